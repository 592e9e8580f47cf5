"""A run's position in its stream, as stored in a checkpoint and restored on resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from resd.config import StreamConfig
from resd.records import Problem


@dataclass(frozen=True)
class Progress:
    """`step` counts updates done. The next one is round `round` (from 0) on batch `batch` (from 0).

    `scores` is the mean reward per problem in the batch's last round, empty before its first. `evaluated` is
    the step of the last evaluation, -1 before the first. `switched` is the number of optimizer steps after
    which the run switched to its second algorithm.
    """

    step: int = 0
    batch: int = 0
    round: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)
    evaluated: int = -1
    switched: int | None = None


def make_batches(problems: Sequence[Problem], size: int) -> list[Sequence[Problem]]:
    """Batches in published order, each problem in one of them; an incomplete last batch is dropped."""
    return [problems[start : start + size] for start in range(0, len(problems) - size + 1, size)]


def advance(progress: Progress, scores: Mapping[str, float], config: StreamConfig) -> Progress:
    """After an update whose rollouts had these mean rewards: the next round, or the next batch."""
    rounds = progress.round + 1
    improved = improved_fraction(scores, progress.scores)
    stalled = improved is not None and improved < config.early_stop_improvement
    if rounds == config.updates_per_batch or (stalled and rounds >= config.min_updates_per_batch):
        return replace(progress, step=progress.step + 1, batch=progress.batch + 1, round=0, scores={})
    return replace(progress, step=progress.step + 1, round=rounds, scores=dict(scores))


def finished(progress: Progress, batches: int, config: StreamConfig) -> bool:
    """Whether the stream has ended, or `max_updates` has been reached."""
    return progress.batch >= batches or progress.step >= updates_at_most(batches, config)


def updates_at_most(batches: int, config: StreamConfig) -> int:
    """The number of updates of a run that never leaves a batch early."""
    whole = batches * config.updates_per_batch
    return whole if config.max_updates is None else min(whole, config.max_updates)


def improved_fraction(now: Mapping[str, float], before: Mapping[str, float]) -> float | None:
    """The share of problems whose mean reward rose since the round before; None in a batch's first round."""
    if not before:
        return None
    return fmean(now[problem] > before[problem] for problem in now)
