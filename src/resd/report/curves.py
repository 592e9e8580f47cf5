"""The curves on the page and their data. A run without a metric is left out of its chart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from resd.report.bars import swatch
from resd.report.chart import SMALL, WIDE, Frame, Line, Size, labelled, line_chart
from resd.report.results import HeldOut, held_out
from resd.report.runs import Points, Run, batch_ends, series, tags_by_update
from resd.report.seeds import Group, curve, differing
from resd.report.spending import Axis

Source = Callable[[Run], Points]
# Title, unit, curves by name.
Spec = tuple[str, str, dict[str, Source]]
# Settings that make the losses of two runs different quantities.
LOSSES = ("algorithm", "loss_aggregation", "distillation", "policy", "srpo", "rlsd", "switch")
Legend = Sequence[tuple[Markup, str]]


@dataclass(frozen=True, slots=True)
class View:
    """One chart of a figure: by which axis, and how it is drawn on a narrow and on a wide page."""

    axis: str
    chart: Markup
    wide: Markup | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """Charts of the same curves with their heading, and a legend where the curves are not named."""

    title: str
    views: Sequence[View]
    legend: Legend = ()

    @property
    def is_wide(self) -> bool:
        return self.views[0].wide is not None


def metric(key: str) -> Source:
    """A metric of the updates."""
    return lambda run: series(run.updates, key)


def evaluation(key: str) -> Source:
    """A metric of the evaluations."""
    return lambda run: series(run.evaluations, key)


SUCCESS: Spec = (
    "Training success",
    "share",
    {"solved": metric("train/solved/mean"), "tests": metric("train/test_cases/mean")},
)
TRAINING: tuple[Spec, ...] = (
    ("Loss", "loss", {"loss": metric("actor/loss")}),
    (
        "Entropy",
        "nats per token",
        {"student": metric("actor/entropy"), "teacher": metric("self_distillation/teacher_entropy")},
    ),
    (
        "Distance from the teacher",
        "divergence per token",
        {"divergence": metric("self_distillation/teacher_student_gap")},
    ),
    ("Gradient norm, before clipping", "L2 norm", {"gradient norm": metric("actor/grad_norm")}),
    (
        "Response length",
        "tokens",
        {"mean": metric("response_length/mean"), "longest": metric("response_length/max")},
    ),
    ("Peak memory", "GiB", {"memory": lambda run: series(run.timing, "memory_gib/peak")}),
)
PLAYBOOK: tuple[Spec, ...] = (
    ("Playbook size", "entries", {"entries": metric("playbook/total_bullets")}),
    (
        "Changes",
        "entries per update",
        {
            "added": metric("playbook/added"),
            "removed": metric("playbook/removed"),
            "merged duplicates": metric("playbook/merged"),
        },
    ),
    (
        "Judgements",
        "per update",
        {
            "helpful tags": lambda run: tags_by_update(run, "helpful"),
            "harmful tags": lambda run: tags_by_update(run, "harmful"),
        },
    ),
)


def progress(groups: Sequence[Group], axes: Sequence[Axis]) -> list[Figure]:
    """Held-out results and training success by each axis. The first figure also has a wide form."""
    figures: list[Figure] = []
    for spec in _apart([*_held_out_specs(groups), SUCCESS], groups):
        if figure := _figure(spec, groups, axes, wide=not figures):
            figures.append(figure)
    return figures


def by_update(specs: Sequence[Spec], groups: Sequence[Group], updates: Axis) -> list[Figure]:
    """One figure for each of the specs that any run has numbers for."""
    drawn = [_figure(spec, groups, [updates]) for spec in _apart(specs, groups)]
    return [figure for figure in drawn if figure]


def without_zeros(specs: Sequence[Spec], groups: Sequence[Group]) -> tuple[list[Spec], list[str]]:
    """The specs without curves that are 0 throughout, and the names of these."""
    runs = all_runs(groups)
    zeros: list[str] = []
    kept: list[Spec] = []
    for title, unit, curves in specs:
        values = {
            name: {value for run in runs for _, value in source(run)} for name, source in curves.items()
        }
        zeros += [name for name, found in values.items() if found == {0.0}]
        if left := {name: source for name, source in curves.items() if values[name] != {0.0}}:
            alone = next(iter(left)) if len(left) == 1 < len(curves) else ""
            kept.append((f"{title}, {alone}" if alone else title, unit, left))
    return kept, zeros


def frame(runs: Sequence[Run], axis: Axis) -> Frame:
    last = max((max(axis.place(run).values(), default=0.0) for run in runs), default=0.0)
    if axis.key != "updates":
        return Frame(last, axis.unit)
    return Frame(max(last, 1.0), axis.unit, shared_boundaries(runs))


def shared_boundaries(runs: Sequence[Run]) -> tuple[float, ...]:
    """Where batches end, if that is the same in all runs as far as they go; else nothing."""
    longest = max((batch_ends(run) for run in runs), key=len)
    same = all(batch_ends(run) == tuple(end for end in longest if end < run.steps) for run in runs)
    return longest if same else ()


def losses_differ(groups: Sequence[Group]) -> bool:
    """Whether the heights of loss curves cannot be compared."""
    return any(key.partition(".")[0] in LOSSES for key in differing(groups))


def group_legend(groups: Sequence[Group]) -> Legend:
    """With several groups, the colour of each."""
    if len(groups) == 1:
        return []
    return [(swatch(i, kind="line"), group.name) for i, group in enumerate(groups)]


def all_runs(groups: Sequence[Group]) -> list[Run]:
    return [run for group in groups for run in group.runs]


def _apart(specs: Sequence[Spec], groups: Sequence[Group]) -> list[Spec]:
    """With several groups, whose colours tell them apart, one chart for each curve."""
    if len(groups) == 1:
        return list(specs)
    return [
        (f"{title}, {name}" if len(curves) > 1 else title, unit, {name: source})
        for title, unit, curves in specs
        for name, source in curves.items()
    ]


def _held_out_specs(groups: Sequence[Group]) -> list[Spec]:
    """One chart for each held-out source and variable."""
    found: dict[tuple[str, str], dict[str, HeldOut]] = {}
    for each in (each for run in all_runs(groups) for each in held_out(run)):
        if each.variable != "response_length":
            found.setdefault((each.source, each.words), {})[each.statistic] = each
    several = len({source for source, _ in found}) > 1
    return [
        (
            f"Held-out {words}" + (f": {source}" if several else ""),
            "share",
            {s: evaluation(m.key) for s, m in by_statistic.items()},
        )
        for (source, words), by_statistic in found.items()
    ]


def _figure(
    spec: Spec, groups: Sequence[Group], axes: Sequence[Axis], *, wide: bool = False
) -> Figure | None:
    title, unit, _ = spec
    runs = all_runs(groups)
    views = []
    lines: list[Line] = []
    for axis in axes:
        if drawn := _lines(spec, groups, axis):
            lines = lines or drawn
            charts = [line_chart(title, unit, drawn, frame(runs, axis), size) for size in _sizes(wide=wide)]
            views.append(View(axis.key, *charts))
    if not views:
        return None
    told = labelled(lines, SMALL) or (len(lines) == 1 == len(groups))
    return Figure(title, views, [] if told else [(swatch(x.color, kind="line"), x.label) for x in lines])


def _sizes(*, wide: bool) -> list[Size]:
    return [SMALL, WIDE] if wide else [SMALL]


def _lines(spec: Spec, groups: Sequence[Group], axis: Axis) -> list[Line]:
    """One line per curve for a single group; with several groups, one line per group."""
    _, _, curves = spec
    lines = []
    for i, group in enumerate(groups):
        for j, (name, source) in enumerate(curves.items()):
            steps = curve(group, source, axis.place)
            if not steps:
                continue
            several = len(groups) > 1
            most = max(step.y.n for step in steps)
            whole = next((k for k, step in enumerate(steps) if step.y.n < most), None)
            lines.append(
                Line(
                    group.name if several else name,
                    tuple((step.x, step.y.mean) for step in steps),
                    i if several else j,
                    [step.y.error or 0.0 for step in steps],
                    whole,
                )
            )
    return lines
