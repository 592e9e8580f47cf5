"""Where the time and the tokens of each update went, as stacked bars: one chart per group, on one axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from resd.report.bars import stacked_bars, swatch
from resd.report.chart import Frame, Line
from resd.report.curves import Figure, View, all_runs, frame
from resd.report.runs import Points, Row, Run, number, series
from resd.report.seeds import Group, mean_points
from resd.report.spending import ROLES, Axis, tokens_of

PHASES = ("generate", "grade", "context", "update", "switch")


def seconds(groups: Sequence[Group], updates: Axis) -> list[Figure]:
    """By phase; what no phase claims is "other"."""
    parts: dict[str, Callable[[Run], Points]] = {name: _phase(name) for name in PHASES}
    return _figures("Seconds per update", "seconds", {**parts, "other": _other}, groups, updates)


def tokens(groups: Sequence[Group], updates: Axis) -> list[Figure]:
    """Generated tokens by role."""
    parts = {words: _role(role) for role, words in ROLES.items()}
    return _figures("Generated tokens per update", "tokens", parts, groups, updates)


def _figures(
    title: str,
    unit: str,
    sources: Mapping[str, Callable[[Run], Points]],
    groups: Sequence[Group],
    updates: Axis,
) -> list[Figure]:
    shared = frame(all_runs(groups), updates)
    stacks = {group.name: _stack(group, sources) for group in groups}
    top = max((_highest(parts) for parts in stacks.values()), default=0.0)
    return [
        _figure(title if len(groups) == 1 else f"{title}: {name}", unit, parts, shared, top)
        for name, parts in stacks.items()
        if parts
    ]


def _figure(title: str, unit: str, parts: Sequence[Line], shared: Frame, top: float) -> Figure:
    chart = stacked_bars(title, unit, parts, shared, top)
    return Figure(title, [View("updates", chart)], [(swatch(part.color), part.label) for part in parts])


def _stack(group: Group, sources: Mapping[str, Callable[[Run], Points]]) -> list[Line]:
    """The parts that are not 0 throughout. Each keeps its colour in all groups."""
    parts = [Line(name, mean_points(group, source), i) for i, (name, source) in enumerate(sources.items())]
    return [part for part in parts if any(value > 0 for _, value in part.points)]


def _highest(parts: Sequence[Line]) -> float:
    sums: dict[float, float] = {}
    for part in parts:
        for step, value in part.points:
            sums[step] = sums.get(step, 0.0) + value
    return max(sums.values(), default=0.0)


def _phase(name: str) -> Callable[[Run], Points]:
    return lambda run: series(_timed(run), f"timing_s/{name}")


def _role(role: str) -> Callable[[Run], Points]:
    return lambda run: tokens_of(run, role)


def _other(run: Run) -> Points:
    return tuple((row["step"], _rest(row)) for row in _timed(run))


def _timed(run: Run) -> list[Row]:
    return [row for row in run.timing if number(row, "timing_s/step") is not None]


def _rest(row: Row) -> float:
    claimed = sum(number(row, f"timing_s/{name}") or 0.0 for name in PHASES)
    return max(0.0, (number(row, "timing_s/step") or 0.0) - claimed)
