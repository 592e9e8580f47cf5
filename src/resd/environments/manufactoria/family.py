"""Families of problems, and how their problems judge a program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias

from resd.environments.manufactoria.program import Outcome

Params: TypeAlias = Mapping[str, Any]
TWO_COLOURS = "RB"
FOUR_COLOURS = "RBYG"


@dataclass(frozen=True, slots=True)
class Case:
    """A tape and its expected result. `output` is the expected final tape; None allows any."""

    tape: str
    accept: bool
    output: str | None = None

    def passes(self, outcome: Outcome) -> bool:
        """Whether a run of this tape ended as expected."""
        reached = outcome.accepted and (self.output is None or outcome.tape == self.output)
        return reached == self.accept


@dataclass(frozen=True, slots=True)
class Family:
    """A family: pure functions of a problem's parameters.

    `expect(params, tape)` labels a tape. `criterion` is the full sentence, `brief` the lab model's.
    `recipe(params, random)` lists the family's own tapes, telling ones first.
    """

    name: str
    colours: str
    expect: Callable[[Params, str], Case]
    criterion: Callable[[Params], str]
    brief: Callable[[Params], str]
    recipe: Callable[[Params, Random], list[str]]


def acceptor(predicate: Callable[[Params, str], bool]) -> Callable[[Params, str], Case]:
    """Labels for families that only ask for acceptance or rejection."""
    return lambda params, tape: Case(tape, predicate(params, tape))


def transducer(output: Callable[[Params, str], str]) -> Callable[[Params, str], Case]:
    """Labels for families that ask for a final tape."""
    return lambda params, tape: Case(tape, True, output(params, tape))
