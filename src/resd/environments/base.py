"""The protocol of an environment: problems, and a grader that gives feedback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from resd.chat import strip_thinking
from resd.records import Problem, Response, Verdict


class Environment(Protocol):
    """`name` appears in metrics (`val/<name>/...`). Splits are "train" and "test"."""

    @property
    def name(self) -> str: ...

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of a split, in published order. Raises ResdError for an unknown split."""
        ...

    def grade(self, problem: Problem, response: Response | str) -> Verdict:
        """Grade one reply. Never raises because of the reply's content."""
        ...


@runtime_checkable
class ParallelEnvironment(Environment, Protocol):
    """For graders that wait for other processes: `workers` threads may call `grade` in parallel."""

    @property
    def workers(self) -> int: ...


@runtime_checkable
class KnowsSolutions(Protocol):
    """An environment that knows reference solutions."""

    def solution(self, problem: Problem) -> str | None:
        """A reply that earns the full reward; None if none is known."""
        ...


def reply_text(response: Response | str) -> str:
    """The whole reply, thinking included."""
    return response if isinstance(response, str) else response.text


def answer_text(response: Response | str) -> str:
    """What a grader reads: the reply without its thinking; "" if a thought never ended."""
    return strip_thinking(reply_text(response))
