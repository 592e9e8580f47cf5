"""Programs for the Manufactoria robot, and what happens when one meets a tape.

A robot walks from node to node and carries a tape of coloured symbols, used as a queue: pullers take the
front symbol and branch on it, painters append one at the back. Reaching `end` accepts the tape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from resd.environments.manufactoria.machine import VISIT_LIMIT, Graph, Machine, Reason

Kind = Literal[
    "START",
    "END",
    "PULLER_RB",
    "PULLER_YG",
    "PAINTER_RED",
    "PAINTER_BLUE",
    "PAINTER_YELLOW",
    "PAINTER_GREEN",
]
PULLS: Mapping[str, str] = {"PULLER_RB": "RB", "PULLER_YG": "YG"}
PAINTS: Mapping[str, str] = {
    "PAINTER_RED": "R",
    "PAINTER_BLUE": "B",
    "PAINTER_YELLOW": "Y",
    "PAINTER_GREEN": "G",
}


@dataclass(frozen=True, slots=True)
class Node:
    """`routes` maps a condition ("R", "B", "Y", "G", "EMPTY", or "NEXT") to the name of the next node."""

    name: str
    kind: Kind
    routes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `reason` says why a tape was rejected; `visits` counts `start` and `end` as well."""

    accepted: bool
    tape: str
    visits: int
    reason: Reason | None


@dataclass(frozen=True)
class Program:
    """A checked program. Made by `parse_program`; compiled when it first runs."""

    nodes: Mapping[str, Node] = field(repr=False)

    def run(self, tape: str) -> Outcome:
        """The exact outcome of at most `VISIT_LIMIT` node visits, without walking through idle loops."""
        reason, final, visits = self._machine.run(tape)
        return Outcome(reason is None, final, visits, reason)

    def trace(self, tape: str) -> list[str]:
        """The names of the nodes visited, in order. A missing route shows as NONE."""
        path: list[str] = []
        name = "start"
        while len(path) < VISIT_LIMIT:
            path.append(name)
            if name in ("NONE", "end") or name not in self.nodes:
                break
            name, tape = self._step(self.nodes[name], tape)
        return path

    def _step(self, node: Node, tape: str) -> tuple[str, str]:
        """(next node, tape) after one visit."""
        if node.kind not in PULLS:
            return node.routes["NEXT"], tape + PAINTS.get(node.kind, "")
        if tape and tape[0] in PULLS[node.kind]:
            return node.routes.get(tape[0], "NONE"), tape[1:]
        return node.routes.get("EMPTY", "NONE"), tape

    @cached_property
    def _machine(self) -> Machine:
        return Machine(
            Graph(
                pulls={name: PULLS[node.kind] for name, node in self.nodes.items() if node.kind in PULLS},
                paints={name: PAINTS.get(node.kind, "") for name, node in self.nodes.items()},
                routes={name: node.routes for name, node in self.nodes.items()},
            )
        )
