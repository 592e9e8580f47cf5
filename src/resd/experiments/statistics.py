"""Means over seeds, areas under curves, and costs of reaching a level. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, sqrt
from statistics import fmean, stdev

Points = Sequence[tuple[float, float]]
DECISIVE = 2.0  # standard errors


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `n` runs with its standard error, None for one run."""

    mean: float
    error: float | None
    n: int

    @property
    def decisive(self) -> bool | None:
        """Whether the mean is more than two standard errors from zero; None where there is no error."""
        return None if self.error is None else abs(self.mean) > DECISIVE * self.error


def estimate(values: Iterable[float]) -> Estimate | None:
    """The mean and its standard error (with n - 1); None for no values."""
    values = list(values)
    if not values:
        return None
    error = stdev(values) / sqrt(len(values)) if len(values) > 1 else None
    return Estimate(fmean(values), error, len(values))


def paired(values: Mapping[int, float], reference: Mapping[int, float]) -> Estimate | None:
    """The mean difference over the seeds that both have; None if they share none."""
    return estimate(values[seed] - reference[seed] for seed in sorted(values.keys() & reference.keys()))


def area(points: Points, best: float = 1.0) -> float | None:
    """The area under a curve by trapezoids, as a share of that of a constant curve at `best`.

    None for a curve without width. Points are in order.
    """
    if len(points) < 2 or points[0][0] == points[-1][0]:
        return None
    total = sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(points))
    return total / (best * (points[-1][0] - points[0][0]))


def crossing(points: Points, level: float) -> float | None:
    """Where a curve first reaches `level`, by linear interpolation; None if it never does."""
    if points and points[0][1] >= level:
        return points[0][0]
    for (x0, y0), (x1, y1) in pairwise(points):
        if y1 >= level:
            return x0 + (level - y0) / (y1 - y0) * (x1 - x0)
    return None


def spent(costs: Sequence[float], updates: float) -> float | None:
    """The cost of the first `updates` updates, the last one pro rata; None if it is not known that far.

    `costs` are those of updates 1, 2, ...
    """
    whole = int(updates)
    part = updates - whole
    if whole + (part > 0) > len(costs):
        return None
    return sum(costs[:whole]) + (part * costs[whole] if part else 0.0)


def attempts_for(firsts: Iterable[int | None], share: float) -> int | None:
    """The fewest attempts within which this share of all problems is solved; None if it never is.

    `firsts` are the attempts that solved each, None for none.
    """
    firsts = list(firsts)
    needed = max(1, ceil(share * len(firsts) - 1e-9))
    solved = sorted(first for first in firsts if first is not None)
    return solved[needed - 1] if needed <= len(solved) else None
