"""Programs in replies: how they are found, and what they must not contain.

The check of the syntax tree tells the writer in one sentence what is not allowed, and is a second line of
defence. It is the sandbox that keeps a program from doing harm.
"""

from __future__ import annotations

import ast
import re
import warnings
from textwrap import dedent

from resd.chat import strip_thinking
from resd.environments.syntax import parse_python

ENTRY = "predict_position"
MAX_CHARACTERS = 50_000
MODULES = ("math", "__future__")
TAGS = ("", "python", "python3", "py")
# Programs with classes, and those that end in `if __name__ == "__main__"`, need these.
_DUNDERS = ("__name__", "__init__")
_READING = ("compile", "eval", "exec", "input", "open", "breakpoint")
_LOOKING_UP = ("delattr", "getattr", "globals", "locals", "setattr", "vars")
_NAMES = frozenset(_READING + _LOOKING_UP)
_FRAMES = re.compile(r"(ag|cr|f|gi|tb)_(await|back|builtins|code|frame|globals|locals|next|origin|yieldfrom)")
_FILENAME = "<program in a reply>"
# A reply could cause one warning per character; none of them concerns readers of the trainer's output.
warnings.filterwarnings("ignore", module=re.escape(_FILENAME))
_BLOCK = re.compile(r"^[ \t]*```([^\n`]*)\n(.*?)```", re.MULTILINE | re.DOTALL)


class ProgramError(Exception):
    """Why a program is not run, in one sentence for its writer."""


def extract_program(reply: str) -> str | None:
    """The last fenced block of the answer that is tagged as Python or not at all; None without one."""
    blocks = _BLOCK.findall(strip_thinking(reply))
    found = next((text for tag, text in reversed(blocks) if tag.strip().lower() in TAGS), None)
    return found and dedent(found)  # blocks in lists are indented as a whole


def check_program(program: str) -> None:
    """Raises ProgramError for a program that is too long, does not parse or uses what is not allowed."""
    if len(program) > MAX_CHARACTERS:
        raise ProgramError(
            f"The program has {len(program)} characters; at most {MAX_CHARACTERS} are allowed."
        )
    try:
        nodes = list(ast.walk(parse_python(program, _FILENAME)))
    except SyntaxError as error:
        where = "" if error.lineno is None else f" (line {error.lineno})"
        raise ProgramError(f"The program is not valid Python{where}: {error.msg}.") from error
    except ValueError as error:
        raise ProgramError(f"The program is not valid Python: {error}.") from error
    except (RecursionError, MemoryError) as error:
        raise ProgramError("The program is nested too deeply to be read.") from error
    for node in nodes:
        if found := _forbidden(node):
            line = getattr(node, "lineno", None)
            raise ProgramError(f"The program was not run: {found} is not allowed (line {line}).")
    if not any(_defines_entry(node) for node in nodes):
        raise ProgramError(f"The program defines no function {ENTRY}.")


def _forbidden(node: ast.AST) -> str | None:
    match node:
        case ast.Import(names=names):
            return next((f"to import {name.name:.40}" for name in names if name.name not in MODULES), None)
        case ast.ImportFrom(module=module, level=level):
            return f"to import from {module or '.':.40}" if level or module not in MODULES else None
        case ast.Attribute(attr=name) if _is_dunder(name) or _FRAMES.fullmatch(name):
            return f"the attribute {name:.40}"
        case ast.Name(id=name) if _is_dunder(name) or name in _NAMES:
            return f"the name {name:.40}"
    return None


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__") and name not in _DUNDERS


def _defines_entry(node: ast.AST) -> bool:
    """A `def`, or a name that something is assigned to."""
    match node:
        case ast.FunctionDef(name=name):
            return name == ENTRY
        case ast.Name(id=name, ctx=ast.Store()):
            return name == ENTRY
    return False
