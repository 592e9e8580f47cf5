"""Held-out results of one run: which there are, and before, best and after."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from resd.report.runs import Row, Run, number
from resd.report.samples import error_over_problems

_HELD_OUT = re.compile(r"val/(?P<source>.+)/(?P<variable>[^/]+)/(?P<statistic>mean@\d+|best@\d+|mean)")
_WORDS = {
    "reward": "success",
    "solved": "solved (every test passed)",
    "test_cases": "tests passed",
    "response_length": "response length",
}
NONE = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class Cell:
    """A mean, and its standard error with its sign ("" for none)."""

    mean: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One held-out metric: its full name, and what its parts mean."""

    key: str
    source: str
    variable: str
    statistic: str

    @property
    def words(self) -> str:
        return _WORDS.get(self.variable, self.variable)

    @property
    def average(self) -> str:
        """Which average over problems it is, such as "reward/mean" (`samples.Samples`)."""
        return f"{self.variable}/{self.statistic.partition('@')[0]}"

    def format(self, value: float | None) -> str:
        form = "{:.1f}" if self.variable == "response_length" else "{:.3f}"
        return NONE if value is None else form.format(value)

    def cell(self, mean: float | None, error: float | None) -> Cell:
        """An error that rounds to 0 is left out: so it is where all begin with the same, or with nothing."""
        text = self.format(error)
        return Cell(self.format(mean), f"± {text}" if error is not None and float(text) else "")


@dataclass(frozen=True, slots=True)
class Results:
    """Held-out results of one run: a row per metric, a cell per chosen evaluation, and the change."""

    run: str
    columns: Sequence[str]
    rows: Sequence[tuple[HeldOut, Sequence[Cell], str]]

    @property
    def has_errors(self) -> bool:
        return any(cell.error for _, cells, _ in self.rows for cell in cells)


def held_out(run: Run) -> list[HeldOut]:
    """The held-out metrics that a run has, in the order of the log.

    Without the bootstrap, and without `solved` where it is the reward.
    """
    keys = dict.fromkeys(key for row in run.evaluations for key in row if not _repeats(run, key))
    matches = [match for key in keys if (match := _HELD_OUT.fullmatch(key))]
    return [HeldOut(m[0], m["source"], m["variable"], m["statistic"]) for m in matches]


def _repeats(run: Run, key: str) -> bool:
    """Whether a key of `solved` says what that of the reward says: a reward of all or nothing."""
    twin = key.replace("/solved/", "/reward/")
    return twin != key and all(row.get(key) == row.get(twin) for row in run.evaluations)


def best_evaluation(run: Run) -> Row | None:
    """The evaluation with the highest mean reward, then test cases, over all sources; the first of equals."""
    metrics = [m for m in held_out(run) if m.statistic.startswith("mean@")]

    def rank(row: Row) -> tuple[float, ...]:
        return tuple(
            sum(number(row, m.key) or 0.0 for m in metrics if m.variable == variable)
            for variable in ("reward", "test_cases")
        )

    return max(run.evaluations, key=rank, default=None)


def results(run: Run) -> Results | None:
    """Before, best and after; None for a run that was not evaluated."""
    best = best_evaluation(run)
    if best is None:
        return None
    first, last = run.evaluations[0], run.evaluations[-1]
    chosen = [("before", first), ("best", best), ("after", last)] if last is not first else [("only", first)]
    columns = [f"{name} (update {row['step']})" for name, row in chosen]
    rows = []
    for metric in held_out(run):
        values = [number(row, metric.key) for _, row in chosen]
        cells = [_cell(run, row, metric) for _, row in chosen]
        rows.append((metric, cells, _change(metric, values)))
    return Results(run.name, columns, rows)


def _cell(run: Run, row: Row, metric: HeldOut) -> Cell:
    value = number(row, metric.key)
    return metric.cell(value, error_over_problems(run, row["step"], metric.average, value))


def _change(metric: HeldOut, values: Sequence[float | None]) -> str:
    before, after = values[0], values[-1]
    if len(values) < 2 or before is None or after is None:
        return ""
    text = metric.format(after - before)
    if float(text) == 0:
        return text.lstrip("-")
    return text.replace("-", "\N{MINUS SIGN}") if after < before else f"+{text}"
