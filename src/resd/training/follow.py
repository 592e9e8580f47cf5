"""Runs of several processes: rank 0 decides, the others follow.

Rank 0 runs the loop: it generates, grades, keeps context and journals, and writes checkpoints. What takes
all of them is a call of the learner, which rank 0 says before it makes it itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from resd.config import RunConfig, TeacherConfig
from resd.learner.learner import Learner, State
from resd.learner.model import load_model, resolve_device
from resd.learner.parallel import Ranks, joined, take_device
from resd.learner.teacher import make_teacher
from resd.learner.totals import Metrics
from resd.objectives.objective import Objective
from resd.records import ResdError, TrainingExample
from resd.training import checkpoint


@dataclass(frozen=True)
class Start:
    """All that makes a learner. `found` is the checkpoint that a run goes on from, which all ranks read."""

    config: RunConfig
    found: Path | None
    updates: int

    def load_model(self, ranks: Ranks) -> Any:
        device = take_device(resolve_device(self.config.device), ranks)
        return load_model(str(self.found or self.config.model), device)

    def learner(self, model: Any, ranks: Ranks) -> Learner:
        teacher = make_teacher(_teacher(self.config), model)
        learner = Learner(model, teacher, self.config, total_updates=self.updates, ranks=ranks)
        if self.found:
            learner.load_state_dict(checkpoint.load_learner(self.found))
        return learner


class Leader:
    """Rank 0's learner, each call of which all ranks make."""

    def __init__(self, learner: Learner, ranks: Ranks) -> None:
        self.learner, self.ranks = learner, ranks
        self.model: Any = learner.model

    @property
    def version(self) -> int:
        return self.learner.version

    def update(self, examples: Sequence[TrainingExample], objective: Objective) -> Metrics:
        metrics: Metrics = self._everywhere("update", examples, objective)
        return metrics

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """To be read to the end: each tensor takes all ranks."""
        yield from self._everywhere("weights")

    def teacher_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield from self._everywhere("teacher_weights")

    def model_state(self) -> State:
        state: State = self._everywhere("model_state")
        return state

    def state_dict(self) -> State:
        state: State = self._everywhere("state_dict")
        return state

    def _everywhere(self, method: str, *words: Any) -> Any:
        self.ranks.say((method, words))
        return getattr(self.learner, method)(*words)


def follow() -> None:
    """The whole life of a rank that is not the first."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    with joined() as ranks:
        try:
            _obey(ranks)
        except ResdError as error:
            raise ResdError(f"process {ranks.rank}: {error}") from error


def _obey(ranks: Ranks) -> None:
    """Make the learner that rank 0 has, then its calls, until it says None."""
    start = ranks.hear()
    if start is None:
        return
    learner = start.learner(start.load_model(ranks), ranks)
    for method, words in iter(ranks.hear, None):
        made = getattr(learner, method)(*words)
        if isinstance(made, Iterator):
            deque(made, maxlen=0)


def _teacher(config: RunConfig) -> TeacherConfig:
    """GRPO asks no teacher anything: the live one costs no memory."""
    return TeacherConfig(kind="live") if config.algorithm == "grpo" else config.teacher
