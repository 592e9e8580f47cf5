"""How held-out problems are distributed by the share of their samples that are solved (paper, figure 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from resd.report.bars import bars_of, stacked_bars, swatch
from resd.report.chart import Line
from resd.report.curves import Figure, Legend, View, all_runs, frame
from resd.report.runs import Points, Run, once_per_run
from resd.report.samples import samples
from resd.report.seeds import Group, mean_points
from resd.report.spending import Axis

BINS = ("none", "less than half", "half or more", "all")
MOST_EVALUATIONS = 120  # read, evenly spaced; their files are large

Shares = tuple[float, ...]


@once_per_run
def distribution(run: Run) -> dict[int, Shares]:
    """Shares of problems in each bin, by step; steps whose samples were not kept are left out."""
    found: dict[int, Shares] = {}
    rows = run.evaluations[:: -(-len(run.evaluations) // MOST_EVALUATIONS) or 1]
    for step in (int(row["step"]) for row in rows):
        if kept := samples(run, step):
            bins = [bin_of(*each) for each in kept.solved]
            found[step] = tuple(bins.count(i) / len(bins) for i in range(len(BINS)))
    return found


def figures(groups: Sequence[Group], updates: Axis) -> list[Figure]:
    """One figure per group, with shares averaged over its runs. The section has the legend."""
    shared = frame(all_runs(groups), updates)
    drawn = []
    for group in groups:
        if all(not distribution(run) for run in group.runs):
            continue
        parts = [Line(name, mean_points(group, _bin(i)), i) for i, name in enumerate(BINS)]
        # From the bottom up: what is solved stands on the ground.
        chart = stacked_bars(
            f"Problems by share solved, {group.name}",
            "share of problems",
            parts[::-1],
            shared,
            1.0,
            kind="share",
            most=bars_of(len(groups)),
        )
        drawn.append(Figure(group.name if len(groups) > 1 else "", [View("updates", chart)]))
    return drawn


def legend() -> Legend:
    return [(swatch(i, kind="share"), name) for i, name in enumerate(BINS)]


def bin_of(solved: int, samples: int) -> int:
    """0: none solved; 1: less than half; 2: half or more; 3: all."""
    if solved == 0:
        return 0
    return 3 if solved == samples else 1 + (2 * solved >= samples)


def _bin(i: int) -> Callable[[Run], Points]:
    return lambda run: tuple((float(step), shares[i]) for step, shares in distribution(run).items())
