"""The protocol of an environment: problems, and a grader with something to say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from resd.records import Problem, Response, Verdict


class Environment(Protocol):
    """`name` appears in metrics (`val/<name>/...`). Splits are "train" and "test"."""

    @property
    def name(self) -> str: ...

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of a split, in published order. Raises ResdError for an unknown split."""
        ...

    def grade(self, problem: Problem, response: Response | str) -> Verdict:
        """Judge one reply. Never raises because of what the reply holds."""
        ...
