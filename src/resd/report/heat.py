"""Responses whose tokens are coloured by how far the teacher is from the student (paper, figure 5)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any

from resd.report.runs import Run, damaged, number

TOKENS = "tokens"  # a folder with one file per update
MOST_STEPS, MOST_RESPONSES, MOST_TOKENS = 3, 3, 800
LEVELS = 10  # of colour, in the style sheet
# The darkest colour stands for this quantile of the shown values: outliers must not pale the rest.
TOP_QUANTILE = 0.98


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of text with its values; `level` is from -LEVELS to LEVELS, 0 is colourless."""

    text: str
    value: float | None
    level: int

    @property
    def shown(self) -> str:
        """Line ends are made visible: an empty place has no colour."""
        return self.text.replace("\n", "↵\n")

    @property
    def kind(self) -> str:
        return f"h{self.level}" if self.level >= 0 else f"n{-self.level}"


@dataclass(frozen=True, slots=True)
class Response:
    """The first tokens of one response; `total` is how many it has. `first` is the first of its update."""

    step: int
    key: str
    first: bool
    divergence: Sequence[Token]
    advantage: Sequence[Token]
    total: int


@dataclass(frozen=True, slots=True)
class Heat:
    """Some responses of a run. `top` and `advantage_top` are what the darkest colours stand for."""

    run: str
    responses: Sequence[Response]
    top: float
    advantage_top: float
    steps: int  # that have a file


def heat(run: Run) -> Heat | None:
    """The first responses of the first, a middle and the last update; None without `tokens/<step>.jsonl`."""
    steps = [step for step in run.steps_with_updates if _path(run, step).is_file()]
    rows = [(step, row) for step in spaced(steps, MOST_STEPS) for row in _rows(_path(run, step))]
    if not rows:
        return None
    top = _quantile([value for _, row in rows for value in row["divergence"]])
    advantage_top = _quantile([value for _, row in rows for value in row["advantage"]])
    responses = [
        Response(
            step,
            row["key"],
            row["first"],
            _coloured(row["tokens"], row["divergence"], top),
            _coloured(row["tokens"], row["advantage"], advantage_top),
            row["total"],
        )
        for step, row in rows
    ]
    return Heat(run.name, responses, top, advantage_top, len(steps))


def spaced(items: Sequence[int], most: int) -> list[int]:
    """At most so many of the items, the first and the last among them, evenly spaced."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def level(value: float | None, top: float) -> int:
    """0 for nothing and for what is too small to be coloured; else up to `LEVELS`, with the value's sign."""
    if value is None or top <= 0:
        return 0
    strength = min(LEVELS, round(LEVELS * abs(value) / top))
    return strength if value > 0 else -strength


def _path(run: Run, step: int) -> Path:
    return run.folder / TOKENS / f"{step}.jsonl"


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The first responses, cut to their first tokens. A line that is being written is left out."""
    with path.open(encoding="utf-8") as file:
        for place, line in enumerate(islice(file, MOST_RESPONSES)):
            if not line.endswith("\n"):
                return
            try:
                yield {"first": place == 0, **_checked(json.loads(line))}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise damaged(path, error) from error


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    tokens, divergence = [str(token) for token in row["tokens"]], row["divergence"]
    advantage = row.get("advantage") or []
    if len(divergence) != len(tokens) or len(advantage) not in (0, len(tokens)):
        raise ValueError("as many values as tokens are needed")
    return {
        "key": str(row["key"]),
        "total": len(tokens),
        "tokens": tokens[:MOST_TOKENS],
        "divergence": [number({"": value}, "") for value in divergence[:MOST_TOKENS]],
        "advantage": [number({"": value}, "") for value in advantage[:MOST_TOKENS]],
    }


def _coloured(texts: Sequence[str], values: Sequence[float | None], top: float) -> list[Token]:
    return [Token(text, value, level(value, top)) for text, value in zip(texts, values, strict=False)]


def _quantile(values: Sequence[float | None]) -> float:
    sizes = sorted(abs(value) for value in values if value is not None and isfinite(value))
    return sizes[min(len(sizes) - 1, int(TOP_QUANTILE * len(sizes)))] if sizes else 0.0
