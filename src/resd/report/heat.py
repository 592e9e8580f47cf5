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
# The strongest colour stands for this quantile of the shown values, so that outliers do not fade the rest.
TOP_QUANTILE = 0.98


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of text with its values; `level` is from -LEVELS to LEVELS, 0 is colourless."""

    text: str
    value: float | None
    level: int

    @property
    def shown(self) -> str:
        """The text with visible line ends: they would otherwise show no colour."""
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
    """Some responses of a run. `quantile` is the run's own, while the scale is common to all runs."""

    run: str
    responses: Sequence[Response]
    quantile: float
    steps: int  # that have a file


@dataclass(frozen=True, slots=True)
class Heats:
    """Several runs on one scale: the strongest colours stand for `top` and `advantage_top`."""

    runs: Sequence[Heat]
    top: float
    advantage_top: float


def heats(runs: Sequence[Run]) -> Heats | None:
    """The first responses of the first, a middle and the last update; None without `tokens/<step>.jsonl`."""
    found = [(run, rows) for run in runs if (rows := _shown(run))]
    if not found:
        return None
    all_rows = [row for _, rows in found for row in rows]
    top, advantage_top = _top(all_rows, "divergence"), _top(all_rows, "advantage")
    return Heats([_heat(run, rows, top, advantage_top) for run, rows in found], top, advantage_top)


def _heat(run: Run, rows: Sequence[dict[str, Any]], top: float, advantage_top: float) -> Heat:
    responses = [
        Response(
            row["step"],
            row["key"],
            row["first"],
            _coloured(row["tokens"], row["divergence"], top),
            _coloured(row["tokens"], row["advantage"], advantage_top),
            row["total"],
        )
        for row in rows
    ]
    return Heat(run.name, responses, _top(rows, "divergence"), len(_steps(run)))


def _steps(run: Run) -> list[int]:
    return [step for step in run.steps_with_updates if _path(run, step).is_file()]


def _shown(run: Run) -> list[dict[str, Any]]:
    return [
        {"step": step, **row} for step in spaced(_steps(run), MOST_STEPS) for row in _rows(_path(run, step))
    ]


def spaced(items: Sequence[int], most: int) -> list[int]:
    """At most `most` of the items, evenly spaced, including the first and the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def level(value: float | None, top: float) -> int:
    """0 for None and values too small to be coloured; else up to `LEVELS`, with the value's sign."""
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


def _top(rows: Sequence[dict[str, Any]], key: str) -> float:
    sizes = sorted(abs(value) for row in rows for value in row[key] if value is not None and isfinite(value))
    return sizes[min(len(sizes) - 1, int(TOP_QUANTILE * len(sizes)))] if sizes else 0.0
