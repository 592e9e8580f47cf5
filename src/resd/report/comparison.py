"""Runs and groups side by side: held-out results before and after, means and standard errors over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from resd.report.facts import generated, training_time
from resd.report.results import NONE, Cell, HeldOut, held_out
from resd.report.runs import Run, series, total
from resd.report.samples import error_over_problems
from resd.report.seeds import Average, Group, average


@dataclass(frozen=True, slots=True)
class Span:
    """From before to after on an axis from 0 to 1, in percent; the error is that of after."""

    before: float
    after: float
    error: float


@dataclass(frozen=True, slots=True)
class Line:
    """A group, or (`color` None) one of its runs. `cells` are (before, after) by metric."""

    name: str
    color: int | None
    seeds: str
    update: str
    cells: Sequence[tuple[Cell, Cell]]
    span: Span | None
    entries: str
    tokens: str
    time: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """One line per group, followed by those of its runs if it has several."""

    headings: Sequence[str]
    lines: Sequence[Line]

    @property
    def has_seeds(self) -> bool:
        """Whether the seeds need a column: a seed that all runs share is in the header."""
        return len({line.seeds for line in self.lines}) > 1

    @property
    def has_errors(self) -> Sequence[tuple[bool, bool]]:
        """By metric, whether any number before, and any after, has an error."""
        columns = zip(*(line.cells for line in self.lines), strict=True)
        return [(any(b.error for b, _ in cells), any(a.error for _, a in cells)) for cells in columns]


def compare(groups: Sequence[Group]) -> Comparison:
    """Before is the first evaluation, after the last: for a group, the last that all its runs have."""
    metrics = chosen_metrics([run for group in groups for run in group.runs])
    several = len({metric.source for metric in metrics}) > 1
    lines = []
    for color, group in enumerate(groups):
        lines.append(_line(group.name, color, group.seeds, group.runs, metrics))
        if len(group.runs) > 1:
            for run in group.runs:
                lines.append(_line(run.name, None, str(run.setting("seed")), [run], metrics))
    return Comparison([heading(metric, with_source=several) for metric in metrics], lines)


def chosen_metrics(runs: Sequence[Run]) -> list[HeldOut]:
    """The metrics compared: reward, share solved, and the mean of the test cases."""
    found = {metric.key: metric for run in runs for metric in held_out(run)}
    return [
        metric
        for metric in found.values()
        if metric.variable in ("reward", "solved")
        or (metric.variable == "test_cases" and metric.statistic.startswith("mean"))
    ]


def heading(metric: HeldOut, *, with_source: bool) -> str:
    words = {"reward": "success", "solved": "solved", "test_cases": "tests passed"}[metric.variable]
    return f"{metric.source}: {words} {metric.statistic}" if with_source else f"{words} {metric.statistic}"


def before_after(runs: Sequence[Run], metric: HeldOut) -> tuple[Average | None, Average | None]:
    """Averages over the runs that have the metric; after is None if there is only one evaluation.

    Standard errors are over the runs, for one run over its problems.
    """
    points = [dict(series(run.evaluations, metric.key)) for run in runs]
    points = [each for each in points if each]
    if not points:
        return None, None
    shared = sorted(set.intersection(*(set(each) for each in points))) or [max(points[0])]
    first = average(each[min(each)] for each in points)
    last = average(each[shared[-1]] for each in points if shared[-1] in each)
    if len(runs) == 1:
        run, name = runs[0], metric.average
        first = replace(first, error=error_over_problems(run, min(points[0]), name, first.mean))
        last = replace(last, error=error_over_problems(run, shared[-1], name, last.mean))
    return first, None if shared[-1] == min(points[0]) else last


def _line(name: str, color: int | None, seeds: str, runs: Sequence[Run], metrics: Sequence[HeldOut]) -> Line:
    averages = [before_after(runs, metric) for metric in metrics]
    counts = [total(run.updates[-1:], "playbook/total_bullets") for run in runs]
    known = [count for count in counts if count is not None]
    return Line(
        name,
        color,
        seeds,
        _last_update(runs),
        [(_cell(m, before), _cell(m, after)) for m, (before, after) in zip(metrics, averages, strict=True)],
        _span(*averages[0]) if averages else None,
        f"{average(known).mean:.{0 if len(runs) == 1 else 1}f}" if known else "",
        generated(*runs),
        training_time(*runs),
    )


def _last_update(runs: Sequence[Run]) -> str:
    """The update of the last evaluation that all runs have."""
    steps = [{row["step"] for row in run.evaluations} for run in runs if run.evaluations]
    shared = set.intersection(*steps) if steps else set()
    return str(max(shared)) if shared else NONE


def _cell(metric: HeldOut, value: Average | None) -> Cell:
    if value is None:
        return Cell(NONE)
    return metric.cell(value.mean, value.error)


def _span(before: Average | None, after: Average | None) -> Span | None:
    """None if there is nothing to compare, or the values are not shares."""
    if before is None or after is None or not all(0 <= each.mean <= 1 for each in (before, after)):
        return None
    return Span(100 * before.mean, 100 * after.mean, 100 * (after.error or 0.0))
