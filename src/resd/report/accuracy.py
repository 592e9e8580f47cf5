"""How held-out problems are distributed by the share of their samples that are solved (paper, figure 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from resd.report.bars import bars_of, stacked_bars, swatch
from resd.report.chart import Line
from resd.report.curves import Figure, Legend, View, all_runs, frame
from resd.report.runs import Points, Run, damaged, once_per_run
from resd.report.seeds import Group, mean_points
from resd.report.spending import Axis
from resd.training import journal

BINS = ("none", "less than half", "half or more", "all")
MOST_EVALUATIONS = 120  # read, evenly spaced; their files are large

Shares = tuple[float, ...]


@once_per_run
def distribution(run: Run) -> dict[int, Shares]:
    """By step, the shares of problems in each bin; steps whose samples were not kept are left out."""
    found: dict[int, Shares] = {}
    rows = run.evaluations[:: -(-len(run.evaluations) // MOST_EVALUATIONS) or 1]
    for step in (int(row["step"]) for row in rows):
        path = run.evaluation_file(step)
        if path.is_file():
            status = path.stat()
            if shares := _shares(path, status.st_mtime_ns, status.st_size):
                found[step] = shares
    return found


def figures(groups: Sequence[Group], updates: Axis) -> list[Figure]:
    """One per group, whose shares are means over its runs. The legend is that of the section."""
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


@lru_cache(maxsize=20_000)
def _shares(path: Path, _changed: int, _size: int) -> Shares:
    """Read once as long as it stays as it is."""
    outcomes: dict[str, list[bool]] = {}
    try:
        for row in journal.read(path):
            outcomes.setdefault(row["problem"], []).append(0 < row["total"] == row["passed"])
    except (KeyError, TypeError) as error:
        raise damaged(path, error) from error
    bins = [bin_of(sum(tries), len(tries)) for tries in outcomes.values()]
    return tuple(bins.count(i) / len(bins) for i in range(len(BINS))) if bins else ()
