"""The figures of an experiment: self-contained SVG files for light and dark pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from statistics import fmean
from xml.sax.saxutils import quoteattr

from markupsafe import Markup

from resd.experiments import readings
from resd.experiments.definition import Experiment
from resd.experiments.forest import Row, forest
from resd.experiments.readings import Run
from resd.experiments.results import Results
from resd.experiments.statistics import Estimate, estimate, paired
from resd.experiments.tables import FINAL, by_seed, discovering, label, reference_of, with_reference
from resd.report.chart import COLORS, WIDE, Frame, Line, Size, line_chart, text

Place = Callable[[Run], Sequence[tuple[float, float]]]
# What is spent, with the size of a unit on the axis.
AXES = {
    "updates": ("update", 1),
    "rollouts": ("rollouts", 1),
    "tokens": ("thousand generated tokens", 1000),
    "seconds": ("seconds", 1),
}
SUCCESS = "held-out problems solved, %"
USUAL = {"resd": 0, "grpo": 1}
TITLE = 26.0  # pixels above a chart for its title
LIGHT = ("#0068a8", "#b84f00", "#00785a", "#a03f7d", "#856000", "#74481d", "#be2f49", "#5d6875")
DARK = ("#6cb6f5", "#ff9b57", "#3fcf9f", "#e48cc4", "#e0bf45", "#cba680", "#ff8090", "#a9b3bf")
STYLE = """
.paper { fill: #ffffff } text { font: 11.5px system-ui, sans-serif; fill: #586170 } .name { font-weight: 600 }
.heading { font-size: 13.5px } .heading, .group { font-weight: 600; fill: #1d232b }
.end { text-anchor: end } .middle { text-anchor: middle } .grid { stroke: #e9ecf0 } .axis { stroke: #586170 }
polyline { fill: none; stroke-width: 2; stroke-linejoin: round } .band { opacity: .18 }
.partial { stroke-dasharray: 1 5 } .name { paint-order: stroke; stroke: #ffffff; stroke-width: 4px }
.line4, .line5, .line6, .line7 { stroke-dasharray: 7 3 } .whisker { stroke-width: 1.5 }
.zero { stroke: #586170; stroke-dasharray: 3 3 }
"""
DARK_STYLE = """.paper { fill: #14171b } text { fill: #9ca6b3 } .axis, .zero { stroke: #9ca6b3 }
.grid { stroke: #272d34 } .heading, .group { fill: #e6eaef } .name { stroke: #14171b }"""


def figures(experiment: Experiment, results: Results) -> Iterator[tuple[str, str, str]]:
    """(file name without suffix, description, SVG) of each figure."""
    if any("discovery" in run for run in results.runs):
        yield f"{experiment.name}-attempts", "share solved within so many attempts", discovery_figure(results)
        return
    groups = list(with_reference(experiment, results))
    if len(groups) > 1:
        yield f"{experiment.name}-differences", "differences at the end", differences(experiment, results)
    for number, (group, names) in enumerate(groups if experiment.curves else (), start=1):
        title = group or experiment.title
        svg = curves(title, results, names, "updates")
        if svg:
            name = f"{experiment.name}-{number}" if group else experiment.name
            yield name, f"{title}: held-out success by updates", svg
    for kind in ("rollouts", "tokens", "seconds") if experiment.costs else ():
        if svg := curves(groups[0][0] or experiment.title, results, groups[0][1], kind):
            yield f"{experiment.name}-{kind}", f"held-out success by {AXES[kind][0]}", svg


def curves(title: str, results: Results, names: Sequence[str], kind: str) -> str:
    """Held-out success of variants by cost so far, means over seeds with standard errors.

    "" if there is nothing to draw.
    """
    unit, size = AXES[kind]
    found = {name: mean_curve(results.of(name), lambda run: readings.cost_curve(run, kind)) for name in names}
    found = {name: points for name, points in found.items() if len(points) > 1}
    colors = colors_of(list(found))
    lines = [
        line(label(results, name), [(x / size, y) for x, y in points], colors[name])
        for name, points in reversed(found.items())  # the first on top of the others
    ]
    last = max((line.points[-1][0] for line in lines), default=0.0)
    return drawn(f"{title}, by {unit}", lines, Frame(last, unit)) if lines else ""


def differences(experiment: Experiment, results: Results) -> str:
    """All rows of all groups: how far each ends from its reference, with two standard errors."""
    rows = []
    for group, names in with_reference(experiment, results):
        reference = reference_of(experiment, results, names)
        others = by_seed(results, reference, FINAL)
        rows.append(Row(group))
        for name in (name for name in names if name != reference):
            found = paired(by_seed(results, name, FINAL), others)
            if found is not None:
                rows.append(Row(label(results, name), 100 * found.mean, 200 * (found.error or 0.0)))
    title = f"{experiment.title}: difference at the end, points, with two standard errors"
    return standing(title, *forest(rows))


def discovery_figure(results: Results) -> str:
    lines, names = [], discovering(results)
    colors = colors_of(names)
    for name in names:
        runs = [run for run in results.of(name) if "discovery" in run]
        most = int(results.variants[name]["budget"])
        found = [
            (float(n), estimate(readings.solved_within(n)(run) or 0.0 for run in runs))
            for n in range(1, most + 1)
        ]
        lines.append(line(label(results, name), [(x, y) for x, y in found if y], colors[name]))
    last = max(line.points[-1][0] for line in lines)
    return drawn("Hard problems solved, by attempts", lines, Frame(last, "attempts"))


def colors_of(names: Sequence[str]) -> dict[str, int]:
    """One of eight colours for each variant, the same in every figure."""
    known = {name: color for name, color in USUAL.items() if name in names}
    free = cycle(color for color in range(COLORS) if color not in known.values())
    return known | {name: next(free) for name in names if name not in known}


def mean_curve(runs: Sequence[Run], place: Place) -> list[tuple[float, Estimate]]:
    """The mean over runs at each of their evaluations, as far as all of them have one."""
    points = []
    for step in zip(*(place(run) for run in runs), strict=False):
        found = estimate(y for _, y in step)
        assert found is not None, "a step has a point of each run"
        points.append((fmean(x for x, _ in step), found))
    return points


def line(name: str, points: Sequence[tuple[float, Estimate]], color: int) -> Line:
    """In percent."""
    return Line(
        name,
        tuple((x, 100 * y.mean) for x, y in points),
        color % COLORS,
        [100 * (y.error or 0.0) for _, y in points],
    )


def drawn(title: str, lines: Sequence[Line], frame: Frame) -> str:
    """A self-contained file: the page's style sheet does not apply inside images."""
    return standing(title, line_chart(title, SUCCESS, lines, frame, WIDE), WIDE)


def standing(title: str, chart: Markup, size: Size) -> str:
    """A chart as a file, under its title, with the styles that it needs."""
    body = str(chart).split(">", 1)[1]
    place = f'0 {-TITLE:g} {size.width:g} {size.height + TITLE:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{place} width="{size.width:g}" role="img"'
    paper = f'<rect class="paper" y="{-TITLE:g}" width="100%" height="100%"/>'
    words = text(2, 20 - TITLE, title, "heading")
    return f"{head} aria-label={quoteattr(title)}><style>{style()}</style>{paper}{words}{body}\n"


def style() -> str:
    dark = f"@media (prefers-color-scheme: dark) {{ {DARK_STYLE} {inks(DARK)} }}"
    return f"{STYLE}{inks(LIGHT)}\n{dark}\n"


def inks(colors: Sequence[str]) -> str:
    return " ".join(
        f".line{i} {{ stroke: {color} }} .fill{i}, .ink{i} {{ fill: {color} }}"
        for i, color in enumerate(colors)
    )
