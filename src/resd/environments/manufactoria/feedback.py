"""Feedback on a failed program. The verdict comes first: readers and budgets cut from the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from resd.environments.manufactoria.family import Case
from resd.environments.manufactoria.machine import VISIT_LIMIT
from resd.environments.manufactoria.parser import ProgramError
from resd.environments.manufactoria.program import Outcome, Program

SHOWN = 2
MAX_CHARACTERS = 2000
_PATH = 15
_MAX_NAME = 40
_MAX_TAPE = 120


@dataclass(frozen=True, slots=True)
class Failure:
    """A case that did not end as expected."""

    case: Case
    outcome: Outcome


def shortest(failures: Sequence[Failure]) -> list[Failure]:
    """The few failures to show: short tapes are the most informative."""
    return sorted(failures, key=lambda failure: len(failure.case.tape))[:SHOWN]


class CompactFeedback:
    """The lab model's wording, one line per statement. Frozen: the lab model was trained on it."""

    no_program = "No program found."

    def parse_error(self, error: ProgramError) -> str:
        return f"Parse error: {error}"

    def failures(self, program: Program, failures: Sequence[Failure], total: int) -> str:
        lines = [f"{len(failures)} of {total} tapes fail."]
        for case, outcome in ((f.case, f.outcome) for f in shortest(failures)):
            lines.append(f"Tape {_shown(case.tape)}: want {_wanted(case)}, got {_got(case, outcome)}.")
        return "\n".join(lines)


class FullFeedback:
    """Expected and actual result, reason, tapes and the robot's path, for the shortest failing tapes."""

    no_program = (
        "No program found: the answer holds no fenced block. Put the whole program between a line "
        "```manufactoria and a line ```."
    )

    def parse_error(self, error: ProgramError) -> str:
        where = "" if error.line is None else f" in line {error.line}"
        return f"The program does not parse. Error{where}: {error}."

    def failures(self, program: Program, failures: Sequence[Failure], total: int) -> str:
        chosen = shortest(failures)
        title = f"{len(failures)} of {total} tapes fail. The shortest failing tapes:"
        room = (MAX_CHARACTERS - len(title)) // len(chosen) - 2
        return "\n\n".join([title, *(_describe(program, failure, room) for failure in chosen)])


def _describe(program: Program, failure: Failure, room: int) -> str:
    """One failure in at most `room` characters; the path is shortened first, from its beginning."""
    case, outcome = failure.case, failure.outcome
    path = program.trace(case.tape)
    got = _verdict(outcome.accepted)
    if outcome.accepted and case.accept:
        got += " with the wrong final tape"
    tapes = f"Final tape: {_shown(outcome.tape)}."
    if case.output is not None:
        tapes += f" Expected tape: {_shown(case.output)}."
    text = "\n".join(
        [
            f"Tape {_shown(case.tape)}: wanted {_verdict(case.accept)}, got {got}.",
            _reason(program, outcome, path),
            tapes,
            f"Path ({outcome.visits} visits): ",
        ]
    )
    steps = " -> ".join(_name(name) for name in path[-_PATH:])
    return text + _tail(steps, len(path) > _PATH, room - len(text))


def _reason(program: Program, outcome: Outcome, path: Sequence[str]) -> str:
    """Why the robot stopped, and which node sent it there."""
    if outcome.reason is None:
        return "Reason: the robot reached end."
    if outcome.reason == "limit":
        return f"Reason: no verdict within {VISIT_LIMIT} visits; the last was to {_node(program, path[-1])}."
    routed = f"{_node(program, path[-2])} sent the robot to {_name(path[-1])}"
    if outcome.reason == "none":
        return f"Reason: {routed}, which rejects (a route that is missing counts as NONE)."
    return f"Reason: {routed}, and no node has that name (the accepting node is called end)."


def _node(program: Program, name: str) -> str:
    return f"{_name(name)} ({program.nodes[name].kind})"


def _tail(path: str, cut: bool, room: int) -> str:
    """The end of the path, which is where things went wrong."""
    if len(path) <= room - 4:
        return f"... {path}" if cut else path
    return f"... {path[-(room - 4) :]}"


def _name(name: str) -> str:
    return name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 3] + "..."


def _shown(tape: str) -> str:
    if len(tape) > _MAX_TAPE:
        return f"{tape[:_MAX_TAPE]}... ({len(tape)} symbols)"
    return tape or "(empty)"


def _verdict(accept: bool) -> str:
    return "accept" if accept else "reject"


def _wanted(case: Case) -> str:
    return _verdict(case.accept) if case.output is None else _shown(case.output)


def _got(case: Case, outcome: Outcome) -> str:
    return _verdict(outcome.accepted) if case.output is None or not outcome.accepted else _shown(outcome.tape)


class Feedback(Protocol):
    """A wording of everything that can be wrong with a reply."""

    @property
    def no_program(self) -> str: ...

    def parse_error(self, error: ProgramError) -> str: ...

    def failures(self, program: Program, failures: Sequence[Failure], total: int) -> str: ...


FEEDBACK: Mapping[str, Feedback] = {"full": FullFeedback(), "compact": CompactFeedback()}
