"""Which curves the page shows, and what is in them. A run without a metric is left out of its chart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from resd.report.chart import Frame, Line, line_chart, stacked_bars, swatch
from resd.report.results import HeldOut, held_out
from resd.report.runs import Points, Row, Run, batch_ends, number, series, tags_by_update

Source = Callable[[Run], Points]
# Title, unit, curves by name.
Spec = tuple[str, str, dict[str, Source]]
# So many runs get a chart for every curve.
CROWD = 3


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its heading and legend (sample, text)."""

    title: str
    chart: Markup
    legend: Sequence[tuple[Markup, str]]


def metric(key: str) -> Source:
    """A metric of the updates."""
    return lambda run: series(run.updates, key)


def evaluation(key: str) -> Source:
    """A metric of the evaluations."""
    return lambda run: series(run.evaluations, key)


TRAINING: tuple[Spec, ...] = (
    (
        "Training success",
        "share",
        {"solved": metric("train/solved/mean"), "test cases passed": metric("train/test_cases/mean")},
    ),
    ("Loss", "loss", {"loss": metric("actor/loss")}),
    (
        "Entropy",
        "nats per token",
        {"student": metric("actor/entropy"), "teacher": metric("self_distillation/teacher_entropy")},
    ),
    ("Gradient norm, before clipping", "L2 norm", {"gradient norm": metric("actor/grad_norm")}),
    (
        "Response length",
        "tokens",
        {"mean": metric("response_length/mean"), "longest": metric("response_length/max")},
    ),
    ("Playbook size", "entries", {"entries": metric("playbook/total_bullets")}),
    (
        "Playbook changes",
        "entries per update",
        {
            "added": metric("playbook/added"),
            "removed": metric("playbook/removed"),
            "merged duplicates": metric("playbook/merged"),
        },
    ),
    (
        "Judgements of playbook entries",
        "tags per update",
        {
            "helpful": lambda run: tags_by_update(run, "helpful"),
            "harmful": lambda run: tags_by_update(run, "harmful"),
        },
    ),
)
PHASES = ("generate", "grade", "context", "update")


def figures(runs: Sequence[Run]) -> list[Figure]:
    """Held-out results first, then training, then time."""
    frame = Frame(max(run.steps for run in runs), shared_boundaries(runs))
    specs = [*_held_out_specs(runs), *TRAINING]
    if len(runs) >= CROWD:
        specs = [part for spec in specs for part in _apart(spec)]
    drawn = [_figure(title, unit, curves, runs, frame) for title, unit, curves in specs]
    slowest = max((s for run in runs for _, s in series(run.timing, "timing_s/step")), default=0.0)
    timed = [_seconds(run, len(runs), frame, slowest) for run in runs]
    return [figure for figure in [*drawn, *timed] if figure]


def shared_boundaries(runs: Sequence[Run]) -> tuple[float, ...]:
    """Where batches end, if it is the same in all runs as far as they go; else nothing."""
    longest = max((batch_ends(run) for run in runs), key=len)
    same = all(batch_ends(run) == tuple(end for end in longest if end < run.steps) for run in runs)
    return longest if same else ()


def _apart(spec: Spec) -> list[Spec]:
    """One chart for each of its curves."""
    title, unit, curves = spec
    if len(curves) == 1:
        return [spec]
    return [(f"{title}, {name}", unit, {name: source}) for name, source in curves.items()]


def _held_out_specs(runs: Sequence[Run]) -> list[Spec]:
    """One chart for each held-out source and variable."""
    groups: dict[tuple[str, str], dict[str, HeldOut]] = {}
    for found in (found for run in runs for found in held_out(run) if found.variable != "response_length"):
        groups.setdefault((found.source, found.words), {})[found.statistic] = found
    return [
        (f"Held-out {words}: {source}", "share", {s: evaluation(m.key) for s, m in by_statistic.items()})
        for (source, words), by_statistic in groups.items()
    ]


def _figure(
    title: str, unit: str, curves: dict[str, Source], runs: Sequence[Run], frame: Frame
) -> Figure | None:
    """With one run colours tell curves apart; with several, colours tell runs and dashes tell curves."""
    lines = []
    for i, run in enumerate(runs):
        for j, (name, source) in enumerate(curves.items()):
            if points := source(run):
                several = len(runs) > 1
                words = name if not several else f"{run.name}: {name}" if len(curves) > 1 else run.name
                lines.append(Line(words, points, i if several else j, j if several else 0))
    if not lines:
        return None
    return Figure(title, line_chart(title, unit, lines, frame), [(swatch(x), x.label) for x in lines])


def _seconds(run: Run, runs: int, frame: Frame, slowest: float) -> Figure | None:
    """Where the time of each update went; what no phase claims is "other". All runs share the axis."""
    steps = {step for step, _ in series(run.timing, "timing_s/step")}
    if not steps:
        return None
    phases = {name: series(run.timing, f"timing_s/{name}") for name in PHASES}
    phases["other"] = tuple((row["step"], _rest(row)) for row in run.timing if row["step"] in steps)
    parts = [Line(name, points, i) for i, (name, points) in enumerate(phases.items()) if points]
    title = "Seconds per update" + (f": {run.name}" if runs > 1 else "")
    legend = [(swatch(part, bar=True), part.label) for part in parts]
    return Figure(title, stacked_bars(title, "seconds", parts, frame, slowest), legend)


def _rest(row: Row) -> float:
    claimed = sum(number(row, f"timing_s/{name}") or 0.0 for name in PHASES)
    return max(0.0, (number(row, "timing_s/step") or 0.0) - claimed)
