"""Text to `Program`. The grammar and the order of its errors are those of the published interpreter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias, cast

from resd.environments.manufactoria.program import PAINTS, PULLS, Kind, Node, Program

# Longer texts are rejected unread. A sensible program for a published problem has about 2,000 characters.
MAX_CHARACTERS = 200_000

_KINDS = "|".join(["START", "END", *PULLS, *PAINTS])
_HEADER = re.compile(rf"({_KINDS})\s+(\w+)(:?)\s*(?:#.*)?")
_BRANCH = re.compile(r"\[(R|B|Y|G|EMPTY)\]\s+(\w+)\s*(?:#.*)?")
_NEXT = re.compile(r"(NEXT)\s+(\w+)\s*(?:#.*)?")
_Route: TypeAlias = tuple[str, str]
_RESERVED = {"START": "start", "END": "end"}


class ProgramError(ValueError):
    """Why a text is not a program. `line` counts from 1 within the program; None means the whole program."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class _Block:
    """A header line and the indented lines below it, with their line numbers."""

    line: int
    header: str
    routes: list[tuple[int, str]]


def parse_program(text: str) -> Program:
    """Parse a program, with or without its fence. Raises ProgramError for the first error from the top."""
    if len(text) > MAX_CHARACTERS:
        raise ProgramError(f"the program is longer than {MAX_CHARACTERS:,} characters")
    nodes: dict[str, Node] = {}
    targets: list[tuple[str, int]] = []
    for block in _blocks(text):
        node, routes = _parse_node(block, nodes)
        nodes[node.name] = node
        targets += [(target, block.line) for _, target in routes]
    if not nodes:
        raise ProgramError("the program is empty")
    for kind, name in _RESERVED.items():
        if name not in nodes or nodes[name].kind != kind:
            raise ProgramError(f"no {kind} node")
    _check_targets(targets, nodes)
    return Program(nodes)


def _blocks(text: str) -> Iterator[_Block]:
    """Group the significant lines into nodes."""
    lines = text.strip().split("\n")
    if lines[0].strip() == "```":
        lines = lines[1:]
    if lines and lines[-1].strip() == "```":
        lines = lines[:-1]
    block: _Block | None = None
    for number, line in enumerate(lines, start=1):
        content = line.strip()
        if not content or content.startswith("#"):
            continue
        if block is not None and line.startswith(("    ", "\t")):
            block.routes.append((number, content))
            continue
        if block is not None:
            yield block
        block = _Block(number, content, [])
    if block is not None:
        yield block


def _parse_node(block: _Block, known: dict[str, Node]) -> tuple[Node, list[_Route]]:
    match = _HEADER.fullmatch(block.header)
    if match is None:
        raise ProgramError(f"'{_brief(block.header)}' is not a node", block.line)
    kind, name, colon = cast(tuple[Kind, str, str], match.groups())
    if kind == "END" and colon:
        raise ProgramError("END takes no colon", block.line)
    if kind != "END" and not colon:
        raise ProgramError(f"{kind} {_brief(name)} needs a colon", block.line)
    if name in known:
        raise ProgramError(f"{_brief(name)} is declared twice", block.line)
    if name != _RESERVED.get(kind, name):
        raise ProgramError(f"the {kind} node must be called {_RESERVED[kind]}", block.line)
    routes = [_parse_route(kind, line, content) for line, content in block.routes]
    _check_routes(kind, name, [condition for condition, _ in routes], block.line)
    # The first of two equal conditions wins.
    return Node(name, kind, dict(reversed(routes))), routes


def _parse_route(kind: Kind, line: int, content: str) -> _Route:
    if kind == "END":
        raise ProgramError("END takes no routes", line)
    shape = _BRANCH if kind in PULLS else _NEXT
    match = shape.fullmatch(content)
    if match is None:
        wanted = "[COLOUR] node" if kind in PULLS else "NEXT node"
        raise ProgramError(f"'{_brief(content)}' is not a route of the form {wanted}", line)
    return match[1], match[2]


def _check_routes(kind: Kind, name: str, conditions: list[str], line: int) -> None:
    if kind in PULLS:
        for condition in conditions:
            if condition not in (*PULLS[kind], "EMPTY"):
                raise ProgramError(f"{kind} {_brief(name)} cannot branch on {condition}", line)
    elif kind != "END" and len(conditions) != 1:
        raise ProgramError(f"{kind} {_brief(name)} needs exactly one NEXT, found {len(conditions)}", line)


def _check_targets(targets: list[tuple[str, int]], nodes: dict[str, Node]) -> None:
    """Every target is declared, or NONE, or the literal END (which no node answers to, so it rejects)."""
    for target, line in targets:
        if target not in nodes and target not in ("NONE", "END"):
            raise ProgramError(f"{_brief(target)} is not declared", line)


def _brief(content: str) -> str:
    """On one line, and short: messages are quoted in prompts."""
    content = " ".join(content.split())
    return content if len(content) <= 60 else content[:57] + "..."
