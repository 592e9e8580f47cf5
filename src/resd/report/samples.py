"""Statistics of an evaluation's samples: how many there are, and the errors of their averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isclose
from pathlib import Path
from statistics import fmean

from resd.report.runs import Row, Run, damaged
from resd.report.seeds import Average, average
from resd.training import journal


@dataclass(frozen=True, slots=True)
class Samples:
    """Those of one evaluation. `solved` has, by problem, how many of how many samples pass every test.

    `averages` are over the problems, of "reward/mean", "reward/best" and so on.
    """

    solved: Sequence[tuple[int, int]]
    averages: Mapping[str, Average]

    @property
    def size(self) -> str:
        """Such as "24 problems, 4 samples of each"; the problems alone where they have different numbers."""
        counts = {samples for _, samples in self.solved}
        each = f", {counts.pop()} samples of each" if len(counts) == 1 else ""
        return f"{len(self.solved)} problems{each}"


def samples(run: Run, step: int) -> Samples | None:
    """The samples of the evaluation at this step; None if they were not kept."""
    path = run.evaluation_file(step)
    if not path.is_file():
        return None
    status = path.stat()
    return _read(path, status.st_mtime_ns, status.st_size)


def error_over_problems(run: Run, step: float, name: str, value: float | None) -> float | None:
    """The standard error of a held-out number as a mean over problems; `name` is one of `Samples.averages`.

    None where it is not that mean: the samples were not kept, or are those of several sources.
    """
    found = samples(run, int(step))
    mean = found.averages.get(name) if found else None
    if mean is None or value is None or not isclose(mean.mean, value, rel_tol=1e-6, abs_tol=1e-9):
        return None
    return mean.error


def sizes(runs: Sequence[Run]) -> str:
    """Of the last evaluations: once if all are alike, else by run; "" where no samples were kept."""
    last = {run.name: samples(run, int(run.evaluations[-1]["step"])) for run in runs if run.evaluations}
    found = {name: each.size for name, each in last.items() if each}
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return "; ".join(f"{name}: {size}" for name, size in found.items())


@lru_cache(maxsize=20_000)
def _read(path: Path, _changed: int, _size: int) -> Samples | None:
    """Cached until the file changes; None for a file without a sample."""
    problems: dict[str, list[Row]] = {}
    try:
        for row in journal.read(path):
            problems.setdefault(row["problem"], []).append(row)
        return _summary(list(problems.values())) if problems else None
    except (KeyError, TypeError) as error:
        raise damaged(path, error) from error


def _summary(problems: Sequence[Sequence[Row]]) -> Samples:
    passed = [[_solved(row) for row in tries] for tries in problems]
    values = {
        "reward": [[float(row["reward"]) for row in tries] for tries in problems],
        "solved": passed,
        "test_cases": [[_share(row) for row in tries] for tries in problems],
    }
    averages = {f"{name}/mean": average(map(fmean, each)) for name, each in values.items()}
    averages |= {f"{name}/best": average(map(max, each)) for name, each in values.items()}
    return Samples([(round(sum(tries)), len(tries)) for tries in passed], averages)


def _solved(row: Row) -> float:
    return float(0 < row["total"] == row["passed"])


def _share(row: Row) -> float:
    return float(row["passed"] / row["total"]) if row["total"] else 0.0
