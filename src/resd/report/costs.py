"""Where the time and the tokens of each update went, as stacked bars: one chart per group, on one axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from resd.report.bars import bars_of, stacked_bars, swatch
from resd.report.chart import Line
from resd.report.curves import Figure, Legend, View, all_runs, frame
from resd.report.runs import Points, Row, Run, number, series
from resd.report.seeds import Group, mean_points
from resd.report.spending import ROLES, Axis, tokens_of

PHASES = ("generate", "grade", "context", "update", "switch")

VISIBLE = 0.01  # share of the highest bar; a smaller part would be just a line

Sources = Mapping[str, Callable[[Run], Points]]


@dataclass(frozen=True, slots=True)
class Stacks:
    """One chart per group, which share their axes and the legend. `unseen` are parts too small to be seen."""

    title: str
    legend: Legend
    unseen: Sequence[str]
    figures: Sequence[Figure]


def costs(groups: Sequence[Group], updates: Axis) -> list[Stacks]:
    """Seconds by phase (the rest is "other"), and generated tokens by role."""
    phases: Sources = {**{name: _phase(name) for name in PHASES}, "other": _other}
    roles: Sources = {words: _role(role) for role, words in ROLES.items()}
    drawn = (
        _stacks("Seconds per update", "seconds", "phase", phases, groups, updates),
        _stacks("Generated tokens per update", "tokens", "role", roles, groups, updates),
    )
    return [stacks for stacks in drawn if stacks.figures]


def _stacks(
    title: str, unit: str, kind: str, sources: Sources, groups: Sequence[Group], updates: Axis
) -> Stacks:
    """`kind` names the palette, which is not that of the runs."""
    shared = frame(all_runs(groups), updates)
    parts = {group.name: _parts(group, sources) for group in groups}
    top = max(map(_highest, parts.values()), default=0.0)
    named, unseen = _by_visibility([part for each in parts.values() for part in each], VISIBLE * top)
    legend = [
        (swatch(color, kind=kind), label) for label, color in sorted(named.items(), key=lambda pair: pair[1])
    ]
    most = bars_of(len(groups))
    figures = [
        Figure(
            name if len(groups) > 1 else "",
            [View("updates", stacked_bars(f"{title}, {name}", unit, each, shared, top, kind, most))],
        )
        for name, each in parts.items()
        if each
    ]
    return Stacks(title, legend, unseen, figures)


def _parts(group: Group, sources: Sources) -> list[Line]:
    """The parts that are not 0 throughout. Each keeps its colour in all groups."""
    parts = [Line(name, mean_points(group, source), i) for i, (name, source) in enumerate(sources.items())]
    return [part for part in parts if any(value > 0 for _, value in part.points)]


def _by_visibility(parts: Sequence[Line], least: float) -> tuple[dict[str, int], list[str]]:
    """Colours of the parts that reach `least` somewhere, and the names of the others."""
    highest: dict[str, float] = {}
    for part in parts:
        highest[part.label] = max(highest.get(part.label, 0.0), *(value for _, value in part.points))
    seen = {part.label: part.color for part in parts if highest[part.label] >= least}
    return seen, [label for label in highest if label not in seen]


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
