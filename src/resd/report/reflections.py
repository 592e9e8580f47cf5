"""Examples of reflections, spread over a run: question, attempt, feedback, and what the model made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resd.report.heat import spaced
from resd.report.rounds import Round, read_round
from resd.report.runs import Run, clip, damaged

MOST_EXAMPLES = 6


@dataclass(frozen=True, slots=True)
class Example:
    """One failed attempt and the reflection on it."""

    problem: str
    question: str
    round: Round


def examples(run: Run, most: int = MOST_EXAMPLES) -> list[Example]:
    """One from each of a few updates, evenly spaced; [] without rollouts, or without reflections.

    Of each update another place in the list of reflections is taken, so that problems differ.
    """
    found = []
    numbers = {int(row["step"]): int(row.get("round", 0)) for row in run.updates}
    for turn, step in enumerate(spaced(list(numbers), most)):
        try:
            if example := _example(run.rollouts(step), step, numbers[step], turn):
                found.append(example)
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(run.rollout_file(step), error) from error
    return found


def _example(rows: list[dict[str, Any]], step: int, number: int, turn: int) -> Example | None:
    reflected = [row["key"] for row in rows if row["kind"] == "context" and row["role"] == "reflect"]
    attempts: dict[Any, Mapping[str, Any]] = {row["key"]: row for row in rows if row["kind"] == "attempt"}
    keys = [key for key in reflected if key in attempts]
    if not keys:
        return None
    attempt = attempts[keys[turn % len(keys)]]
    chosen = read_round(step, number, [attempt], rows)
    return Example(str(attempt["problem"]), clip(str(attempt["question"])), chosen)
