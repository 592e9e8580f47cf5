"""What is said of a program that failed. Verdict first: readers and budgets cut from the end."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from resd.environments.answers import clip
from resd.environments.code.program import Program
from resd.environments.code.runs import NOT_RUN, Outcome
from resd.environments.sandbox import Limits

MAX_CHARACTERS = 2000
NO_PROGRAM = (
    "No program found: the answer holds no fenced block of Python. Put the whole program between a line "
    "```python and a line ```."
)
TOO_LONG = "The program is too long to be run."
_SHOWN = 2
_MAX_LINES = 8
_MAX_TEXT = 300
_MAX_ERROR = 900
_BEFORE_MESSAGE = re.compile(r"[A-Za-z_][\w.]*")
_PLACE = re.compile(r"\(line \d+, in [^()\n]*\)\Z")
_KINDS = {
    "error": "runtime errors",
    "wrong": "wrong answers",
    NOT_RUN: "not run after these",
    "memory_limit": "over the memory limit",
    "output_limit": "over the output limit",
    "cpu_limit": "over the time limit",
    "wall_limit": "over the time limit",
}
_BROKEN = "ended without a result"


@dataclass(frozen=True, slots=True)
class Shown:
    """What feedback may tell: what public tests want; what goes into and is wanted by private ones."""

    answer: bool = True
    private: bool = False

    def tells(self, outcome: Outcome) -> bool:
        return outcome.public or self.private


def write_feedback(outcomes: Sequence[Outcome], program: Program, limits: Limits, shown: Shown) -> str:
    """How many passed; then the first runtime error, else the first limit, else the shortest wrong ones."""
    failed = sorted((o for o in outcomes if not o.passed), key=lambda outcome: not outcome.public)
    counts = Counter(_KINDS.get(outcome.status, _BROKEN) for outcome in failed)
    listed = ", ".join(f"{kind}: {count}" for kind, count in counts.items())
    title = f"{len(outcomes) - len(failed)} of {len(outcomes)} tests passed ({listed})."
    errors = [outcome for outcome in failed if outcome.status == "error"]
    ended = [outcome for outcome in failed if outcome.status not in ("error", "wrong", NOT_RUN)]
    if errors:
        parts = [_error(errors[0], program, shown)]
    elif ended:
        parts = [_ended(ended[0], limits, shown)]
    else:
        parts = [_wrong(outcome, shown) for outcome in _shortest(failed, shown)]
    return clip("\n\n".join([title, *parts]), MAX_CHARACTERS)


def _shortest(failed: Sequence[Outcome], shown: Shown) -> list[Outcome]:
    """The few to show; a private one only where there is nothing else."""
    told = [outcome for outcome in failed if shown.tells(outcome) and outcome.status == "wrong"]
    return sorted(told, key=lambda outcome: len(outcome.given))[:_SHOWN] or list(failed[:1])


def _error(outcome: Outcome, program: Program, shown: Shown) -> str:
    message = program.own_lines(outcome.message)
    line = program.line(message)
    at = f"\nThat line: {clip(line, _MAX_TEXT)}" if line else ""
    if not shown.tells(outcome):  # what an exception says may quote the input
        kind, place = _BEFORE_MESSAGE.match(message), _PLACE.search(message)
        told = " ".join(match[0] for match in (kind, place) if match)
        return f"A private test raised an error: {told}{at}"
    return f"{_block('Input', outcome.given)}\nError: {_end(message)}{at}"


def _ended(outcome: Outcome, limits: Limits, shown: Shown) -> str:
    why = {
        "cpu_limit": f"it took more than {limits.cpu_s:g} s of CPU time",
        "wall_limit": f"it did not end within {limits.wall:g} s",
        "memory_limit": f"it took more than {limits.memory_mb} MB of memory",
        "output_limit": f"it printed or returned more than {limits.output_bytes} bytes",
        "killed": "its process ended before there was a result",
    }.get(outcome.status, "what its process gave back was no result")
    if not shown.tells(outcome):
        return f"A private test failed: {why}."
    return f"{_block('Input', outcome.given)}\nNo result: {why}."


def _wrong(outcome: Outcome, shown: Shown) -> str:
    if not shown.tells(outcome):
        return "All public tests passed; private tests got wrong answers."
    parts = [_block("Input", outcome.given), _block("Output", outcome.got or "")]
    if shown.answer and outcome.wanted is not None:
        parts.append(_block("Wanted", outcome.wanted))
    return "\n".join(parts)


def _block(title: str, text: str) -> str:
    """A short text beside its title, a longer one below; its first lines only."""
    lines = text.rstrip("\n").split("\n")
    cut = clip("\n".join(lines[:_MAX_LINES]), _MAX_TEXT)
    if len(lines) > _MAX_LINES:
        cut += f"\n... ({len(lines)} lines)"
    return f"{title}:\n{cut}" if "\n" in cut else f"{title}: {cut or '(empty)'}"


def _end(text: str) -> str:
    return text if len(text) <= _MAX_ERROR else "..." + text[-_MAX_ERROR:]
