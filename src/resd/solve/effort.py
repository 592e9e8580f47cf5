"""How a problem is worked on: which method, with which budget. This module does not import torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from resd.algorithms.traits import TRAITS
from resd.environments.base import Environment
from resd.environments.checks import problems_of
from resd.records import Problem, ResdError

if TYPE_CHECKING:
    from resd.config import RunConfig

Method = Literal["self_distill", "best_of", "multi_turn"]
MemoryKind = Literal["feedback", "dialogue"]
METHODS: tuple[Method, ...] = get_args(Method)
MEMORIES: tuple[MemoryKind, ...] = get_args(MemoryKind)
# These train on failures alone. GRPO and RLSD have no gradient before the first success, which is the end.
LEARNERS = [name for name, traits in TRAITS.items() if traits.distils_failures]
BATCH = 16


@dataclass(frozen=True)
class Effort:
    """At most `budget` attempts, `batch` of them in a round; the last round may be smaller.

    `batch` None means 16, or 1 for `multi_turn`. Only `multi_turn` has a `memory` (None: feedback).
    Raises ResdError for options that do not go together.
    """

    method: Method = "self_distill"
    budget: int = 512
    batch: int | None = None
    memory: MemoryKind | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ResdError(f"--method {self.method}: is not known; choose one of {', '.join(METHODS)}")
        if self.memory is not None and self.memory not in MEMORIES:
            raise ResdError(f"--memory {self.memory}: is not known; choose one of {', '.join(MEMORIES)}")
        if self.budget < 1:
            raise ResdError(f"--budget {self.budget}: allow at least one attempt")
        if self.batch is not None and self.batch < 1:
            raise ResdError(f"--batch {self.batch}: a round needs at least one attempt")
        if self.method == "multi_turn" and self.batch not in (None, 1):
            raise ResdError(f"--batch {self.batch}: a turn of multi_turn is one attempt; leave --batch out")
        if self.method != "multi_turn" and self.memory is not None:
            raise ResdError(
                f"--memory {self.memory}: is only for --method multi_turn, not {self.method}; leave it out"
            )

    @property
    def width(self) -> int:
        """Attempts in a round."""
        return self.batch or (1 if self.method == "multi_turn" else BATCH)

    @property
    def updates(self) -> int:
        """The maximum number of weight updates: one between any two rounds."""
        return math.ceil(self.budget / self.width) - 1


def check_effort(config: RunConfig, effort: Effort) -> None:
    """Raises ResdError for an algorithm that does not train on failures."""
    if effort.method == "self_distill" and config.algorithm not in LEARNERS:
        raise ResdError(
            f"algorithm {config.algorithm}: changes no weights before the first success; for self_distill "
            f"set algorithm to one of {', '.join(LEARNERS)}"
        )


def find_problems(environment: Environment, split: str, names: Sequence[str]) -> list[Problem]:
    """The problems of a split by id, or by index from 0. Raises ResdError for a name that matches none."""
    problems = problems_of(environment, split)
    by_id = {problem.id: problem for problem in problems}
    return [_find(environment.name, split, problems, by_id, name) for name in names]


def _find(
    environment: str, split: str, problems: Sequence[Problem], by_id: dict[str, Problem], name: str
) -> Problem:
    if name in by_id:
        return by_id[name]
    if name.isascii() and name.isdigit() and int(name) < len(problems):
        return problems[int(name)]
    if not problems:
        raise ResdError(f"--problem {name}: split {split} of {environment} has no problems; see --split")
    raise ResdError(
        f"--problem {name}: split {split} of {environment} has {len(problems)} problems, {problems[0].id} to "
        f"{problems[-1].id}; give one of their ids, or an index from 0 to {len(problems) - 1}"
    )
