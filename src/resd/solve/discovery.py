"""How many attempts it takes to solve problems: methods compared over problems and seeds.

    bench = open_bench(config, learns=True)
    counts = count_successes(bench, problems, samples=4096)
    hard = [problem for problem, count in zip(problems, counts) if 0 < count.rate < 0.002]
    results = discover(bench, Effort("self_distill", budget=512), hard, seeds=[0, 1, 2])
    rates = discovery_rates([result.first for result in results], budget=512)

The discovery rate at m is the share of problems solved within m attempts (SDPO's discovery@k).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from resd.records import Problem, ResdError
from resd.solve.bench import Bench
from resd.solve.effort import Effort, check_effort
from resd.solve.work import Result, summarize, work


@dataclass(frozen=True)
class Count:
    """Of independent samples at one problem, how many had the full reward."""

    problem: str
    samples: int
    solved: int

    @property
    def rate(self) -> float:
        return self.solved / self.samples


def discover(
    bench: Bench,
    effort: Effort,
    problems: Sequence[Problem],
    seeds: Sequence[int],
    watch: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Work on each problem with each seed, one after another, from the same initial weights.

    `watch` is called with each result as it comes. `Result.first` is the number of attempts until the first
    success, None if the budget did not suffice. Raises ResdError for an algorithm that cannot do it.
    """
    check_effort(bench.config, effort)
    if effort.method == "self_distill" and bench.learner is None:
        raise ResdError("self_distill: the bench has no learner; open it with learns=True")
    results = []
    for seed in seeds:
        for problem in problems:
            results.append(summarize(list(work(bench, effort, problem, seed)), effort, seed))
            if watch:
                watch(results[-1])
    return results


def count_successes(
    bench: Bench, problems: Sequence[Problem], samples: int, seed: int = 0, batch: int = 64
) -> list[Count]:
    """Draw independent samples with the initial weights, `batch` of each problem at a time; count successes.

    These are the samples that `best_of` would draw with this seed, but continuing after a success.
    """
    bench.reset(updates=0)
    solved = {problem.id: 0 for problem in problems}
    for first in range(0, samples, batch):
        for attempt in bench.attempt(problems, seed, first, min(batch, samples - first)):
            solved[attempt.problem.id] += attempt.verdict.solved
    return [Count(name, samples, count) for name, count in solved.items()]


def discovery_rates(firsts: Sequence[int | None], budget: int) -> list[float]:
    """The share of runs solved within m attempts, for m from 1 to `budget`. None is a run without success."""
    return [fmean(first is not None and first <= m for first in firsts) for m in range(1, budget + 1)]


def best_of_rates(counts: Sequence[Count], budget: int) -> list[float]:
    """The expected share of problems that best-of-m solves, for m from 1 to `budget`, without bias.

    1 - C(n - c, m) / C(n, m) for each problem (Chen et al., arXiv 2107.03374), with n samples of which c
    succeeded. Raises ResdError for a budget larger than the samples.
    """
    fewest = min(count.samples for count in counts)
    if budget > fewest:
        raise ResdError(f"best of {budget}: a problem has {fewest} samples; draw as many as the budget")
    misses = [_misses(count.samples, count.solved, budget) for count in counts]
    return [1.0 - fmean(missed) for missed in zip(*misses, strict=True)]


def attempts_for(rates: Sequence[float], share: float) -> int | None:
    """The fewest attempts within which this share of problems is solved; None for a share not reached."""
    return next((m for m, rate in enumerate(rates, start=1) if rate >= share), None)


def _misses(samples: int, solved: int, budget: int) -> list[float]:
    """The chance that none of m samples succeeds, for m from 1: each is drawn from those that are left."""
    missed, chances = 1.0, []
    for drawn in range(budget):
        missed *= max(0, samples - solved - drawn) / (samples - drawn)
        chances.append(missed)
    return chances
