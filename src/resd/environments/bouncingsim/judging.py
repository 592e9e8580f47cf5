"""Compares what a program returned with the truth.

The published rule: a time passes when the mean over the balls of the distance between predicted and true
centre, rounded to 3 decimals, is at most the tolerance. Whatever is not a list with one pair of finite `int`
or `float` for each ball fails, with a reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from resd.environments.sandbox import Result

Positions: TypeAlias = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The outcome of one call. `got` is None where the call returned no positions; `problem` says why.

    `kind` is "ok", "far", "form" (the value has the wrong form), "raised" or "missing" (the call never
    finished). `mean` is in metres.
    """

    time: float
    kind: str
    wanted: Positions
    got: Positions | None = None
    mean: float = math.inf
    problem: str = ""

    @property
    def errors(self) -> list[float]:
        """Distance in metres for each ball; empty without positions."""
        return _distances(self.got, self.wanted) if self.got is not None else []


def judge_result(
    result: Result, times: Sequence[float], truth: Sequence[Positions], tolerance: float
) -> list[Prediction]:
    """One prediction for each time, whatever was returned."""
    predictions = []
    for index, (time, wanted) in enumerate(zip(times, truth, strict=True)):
        error = result.errors[index] if index < len(result.errors) else None
        if index >= len(result.values):
            predictions.append(Prediction(time, "missing", wanted))
        elif error is not None:
            predictions.append(Prediction(time, "raised", wanted, problem=error))
        else:
            predictions.append(judge_value(result.values[index], time, wanted, tolerance))
    return predictions


def judge_value(value: Any, time: float, wanted: Positions, tolerance: float) -> Prediction:
    """Judge one returned value. Exact types suffice: values from the other process are JSON."""
    if problem := wrong_form(value, len(wanted)):
        return Prediction(time, "form", wanted, problem=problem)
    distances = _distances(value, wanted)
    mean = round(sum(distances) / len(distances), 3)
    return Prediction(time, "ok" if mean <= tolerance else "far", wanted, value, mean)


def wrong_form(value: Any, balls: int) -> str | None:
    """What is wrong with the form of a value; None if it holds a pair of finite numbers for each ball."""
    if type(value) is not list:
        return f"it returned {_kind(value)}, not a list of {balls} pairs"
    if len(value) != balls:
        return f"it returned a list of length {len(value)}, not of {balls} pairs"
    for number, pair in enumerate(value, start=1):
        if type(pair) is not list or len(pair) != 2:
            shape = f"a list of length {len(pair)}" if type(pair) is list else _kind(pair)
            return f"for ball {number} it returned {shape}, not a pair [x, y]"
        for part in pair:
            if type(part) not in (int, float):
                return f"a coordinate of ball {number} is {_kind(part)}, not a number"
            # Also what is too large to be a float.
            if not -1e300 < part < 1e300:
                return f"a coordinate of ball {number} is not finite"
    return None


def _distances(got: Positions, wanted: Positions) -> list[float]:
    return [math.dist(one, other) for one, other in zip(got, wanted, strict=True)]


def _kind(value: Any) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"
