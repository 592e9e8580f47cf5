"""Runs of several processes: rank 0 leads, the others follow.

Rank 0 runs the loop: it grades, keeps context and journals, and writes checkpoints. The others only do their
part of the calls that it broadcasts (`training/leader.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from resd.generation.engine import GenerationEngine
from resd.learner.learner import Learner
from resd.learner.model import load_tokenizer
from resd.learner.parallel import Ranks, joined
from resd.records import Request, ResdError
from resd.training import setup
from resd.training.leader import Whose


def follow() -> None:
    """The main function of every rank other than rank 0."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    with joined() as ranks:
        try:
            _serve(ranks)
        except ResdError as error:
            raise ResdError(f"process {ranks.rank}: {error}") from error


def _serve(ranks: Ranks) -> None:
    """Build the same learner and engines as rank 0, then run the calls that it broadcasts, until None."""
    start = ranks.receive()
    if start is None:
        return
    learner, student, teacher = setup.make_learner(start, ranks)
    tokenizer = load_tokenizer(start.config.model)
    student_engine = setup.make_engine(student, tokenizer, start.config, learner.logprobs)
    engines = {"weights": FollowerEngine("weights", student_engine, learner, ranks)}
    if author := setup.make_author(teacher, tokenizer, start.config):
        engines["teacher_weights"] = FollowerEngine("teacher_weights", author, learner, ranks)
    for method, words in iter(ranks.receive, None):
        if method in ("generate", "wake", "sleep", "load"):
            whose, *rest = words
            getattr(engines[whose], method)(*rest)
        else:
            getattr(learner, method)(*words)


class FollowerEngine:
    """Runs one of a rank's engines on behalf of rank 0 (`leader.DistributedEngine`)."""

    def __init__(self, whose: Whose, engine: GenerationEngine, learner: Learner, ranks: Ranks) -> None:
        self.whose, self.engine, self.learner, self.ranks = whose, engine, learner, ranks
        self._awake = ExitStack()

    def wake(self) -> None:
        self._awake.enter_context(self.engine.awake())

    def sleep(self) -> None:
        self._awake.close()

    def load(self) -> None:
        self.engine.load_weights(getattr(self.learner, self.whose)())

    def generate(self, shares: Sequence[Sequence[Request]]) -> None:
        self.ranks.collect(list(self.engine.submit(shares[self.ranks.rank])))
