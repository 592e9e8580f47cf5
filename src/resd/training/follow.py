"""Runs of several processes: rank 0 decides, the others follow.

Rank 0 runs the loop: it grades, keeps context and journals, and writes checkpoints. The others do their part
of what it says (`training/leader.py`), and nothing else.
"""

from __future__ import annotations

from resd.learner.model import load_tokenizer
from resd.learner.parallel import Ranks, joined
from resd.records import ResdError
from resd.training import setup


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
    """Make what rank 0 has made, then what it says, until it says None."""
    start = ranks.hear()
    if start is None:
        return
    learner, student, teacher = setup.make_learner(start, ranks)
    tokenizer = load_tokenizer(start.config.model)
    engines = {"weights": setup.make_engine(student, tokenizer, start.config)}
    if author := setup.make_author(teacher, tokenizer, start.config):
        engines["teacher_weights"] = author
    for method, words in iter(ranks.hear, None):
        if method == "generate":
            whose, shares = words
            ranks.collect(list(engines[whose].submit(shares[ranks.rank])))
        elif method in engines:
            engines[method].load_weights(getattr(learner, method)(), learner.version)
        else:
            getattr(learner, method)(*words)
