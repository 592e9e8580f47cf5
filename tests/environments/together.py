"""Replies graded as a run grades them: several at once, where the environment has workers."""

from __future__ import annotations

from collections.abc import Sequence

from resd.environments.base import Environment
from resd.records import Problem, Response, Verdict
from resd.training.rollout import grading


def graded(
    environment: Environment, problems: Sequence[Problem], replies: Sequence[Response | str]
) -> list[Verdict]:
    """Verdicts in the order of the replies."""
    with grading(environment) as grade:
        waited = [grade(*pair) for pair in zip(problems, replies, strict=True)]
        return [verdict() for verdict in waited]
