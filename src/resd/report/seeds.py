"""Runs of one configuration that differ only in their seed, as one: means and standard errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from math import sqrt
from statistics import fmean, stdev
from typing import Any

from resd.config import RunConfig
from resd.report.runs import Points, Run
from resd.training.run_folder import HARMLESS, flatten

# Longer names would not fit beside a curve.
LONGEST_NAME = 30


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed, and in what does not change their numbers."""

    name: str
    runs: Sequence[Run]

    @property
    def seeds(self) -> str:
        """Such as "3 seeds", "0" for the seed of one run, or "2 runs" where a seed was run twice."""
        seeds = [run.setting("seed") for run in self.runs]
        if len(seeds) == 1:
            return str(seeds[0])
        return f"{len(seeds)} {'seeds' if len(set(map(str, seeds))) == len(seeds) else 'runs'}"


@dataclass(frozen=True, slots=True)
class Average:
    """The mean of `n` values, and its standard error: None for one value."""

    mean: float
    error: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Step:
    """One point of a group's curve: where it is (mean over the runs), and its height."""

    x: float
    y: Average


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Groups in the order of their first runs. A group of one keeps its run's name if all are such."""
    by_settings: dict[str, list[Run]] = {}
    for run in runs:
        by_settings.setdefault(repr(sorted(settings(run).items())), []).append(run)
    members = list(by_settings.values())
    return [Group(name, each) for name, each in zip(_names(members), members, strict=True)]


def settings(run: Run) -> dict[str, Any]:
    """A run's settings, flattened, without the seed and without where and on what it ran."""
    # A setting that did not exist when the run began had its default.
    flat = _defaults() | flatten(run.config)
    return {key: value for key, value in flat.items() if not _ignored(key)}


def differing(groups: Sequence[Group]) -> list[str]:
    """The settings that are not the same in all groups, in the order of the configuration."""
    each = [settings(group.runs[0]) for group in groups]
    keys = dict.fromkeys(key for one in each for key in one)
    return [key for key in keys if any(one.get(key) != each[0].get(key) for one in each)]


def average(values: Iterable[float]) -> Average:
    """Raises ValueError for no values."""
    values = list(values)
    if not values:
        raise ValueError("the mean of nothing")
    error = stdev(values) / sqrt(len(values)) if len(values) > 1 else None
    return Average(fmean(values), error, len(values))


def curve(
    group: Group, source: Callable[[Run], Points], place: Callable[[Run], Mapping[float, float]]
) -> tuple[Step, ...]:
    """The mean over the group's runs at each step that any of them has, in order.

    `place` gives the position on the axis of each step of a run: seeds reach the same step at different
    costs, so the point is placed at their mean. Steps without a position are left out.
    """
    found: dict[float, list[tuple[float, float]]] = {}
    for run in group.runs:
        places = place(run)
        for step, value in source(run):
            if step in places:
                found.setdefault(step, []).append((places[step], value))
    return tuple(
        Step(fmean(x for x, _ in pairs), average(y for _, y in pairs)) for _, pairs in sorted(found.items())
    )


def mean_points(group: Group, source: Callable[[Run], Points]) -> Points:
    """(step, mean over the runs that have it)."""
    steps = curve(group, source, lambda run: {step: step for step, _ in source(run)})
    return tuple((step.x, step.y.mean) for step in steps)


def _ignored(key: str) -> bool:
    # How long a run is to be does count: schedules are spread over it.
    return key != "stream.max_updates" and any(
        f"{key}.".startswith(f"{name}.") for name in (*HARMLESS, "seed")
    )


@lru_cache(maxsize=1)
def _defaults() -> dict[str, Any]:
    return flatten(RunConfig().model_dump(mode="json"))


def _names(members: Sequence[Sequence[Run]]) -> list[str]:
    if all(len(runs) == 1 for runs in members):
        return [runs[0].name for runs in members]
    names = [_algorithm(runs) for runs in members]
    if len(set(names)) == len(names):
        return names
    names = [_described(runs, members) for runs in members]
    if len(set(names)) == len(names) and max(map(len, names)) <= LONGEST_NAME:
        return names
    return [_common_name(runs) for runs in members]


def show(value: object) -> str:
    """A setting's value, as short as possible while unambiguous."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _algorithm(runs: Sequence[Run]) -> str:
    return str(runs[0].setting("algorithm") or "run").upper()


def _described(runs: Sequence[Run], members: Sequence[Sequence[Run]]) -> str:
    """By the algorithm, and by the other settings that tell the groups apart."""
    keys = [key for key in differing([Group("", each) for each in members]) if key != "algorithm"]
    flat = settings(runs[0])
    algorithm = [_algorithm(runs)] * (len({_algorithm(each) for each in members}) > 1)
    return ", ".join([*algorithm, *(f"{key.rpartition('.')[2]} {show(flat.get(key))}" for key in keys)])


def _common_name(runs: Sequence[Run]) -> str:
    """What the names of the runs begin with, if it ends well; else the first name."""
    letters = zip(*(run.name for run in runs), strict=False)
    shared = "".join(each[0] for each in takewhile(lambda each: len(set(each)) == 1, letters))
    shared = shared.rstrip("-_./ 0123456789")
    return shared if len(runs) > 1 and shared else runs[0].name
