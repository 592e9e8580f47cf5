"""Programs that solve HAS problems: finite automata, two pullers for each state."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeAlias, TypeVar

from resd.environments.manufactoria.family import FOUR_COLOURS, Params
from resd.records import Problem

State = TypeVar("State", bound=Hashable)
_Transitions: TypeAlias = list[dict[str, int | None]]


def solve_has(problem: Problem) -> str:
    """A program that solves a HAS problem. Raises KeyError for problems of other families."""
    return _SOLVERS[problem.metadata["family"]](problem.metadata["params"])


def automaton(start: State, goal: State, step: Callable[[State, str], State]) -> str:
    """The program that accepts as soon as `goal` is reached, by reading symbols from `start` on."""
    numbers: dict[State, int] = {start: 0}
    transitions: _Transitions = []
    for state in (states := [start]):
        row: dict[str, int | None] = {}
        for colour in FOUR_COLOURS:
            following = step(state, colour)
            if following != goal and following not in numbers:
                numbers[following] = len(states)
                states.append(following)
            row[colour] = None if following == goal else numbers[following]
        transitions.append(row)
    return _render(transitions)


def _render(transitions: _Transitions) -> str:
    """State i is a puller for red and blue, `q<i>`, whose EMPTY leads to one for yellow and green, `p<i>`."""
    lines = ["START start:", "    NEXT q0"]
    for number, row in enumerate(transitions):
        name = {colour: "end" if target is None else f"q{target}" for colour, target in row.items()}
        lines += [f"PULLER_RB q{number}:", f"    [R] {name['R']}", f"    [B] {name['B']}"]
        lines += [f"    [EMPTY] p{number}"]
        lines += [f"PULLER_YG p{number}:", f"    [Y] {name['Y']}", f"    [G] {name['G']}"]
    return "\n".join([*lines, "END end"])


def _solve_substring(params: Params) -> str:
    s: str = params["sequence"]

    def longest_prefix(matched: str, colour: str) -> str:
        tails = ((matched + colour)[start:] for start in range(len(matched) + 2))
        return next(tail for tail in tails if s.startswith(tail))

    return automaton("", s, longest_prefix)


def _solve_ordered(params: Params) -> str:
    return automaton(params["sequence"], "", lambda left, colour: left[left[0] == colour :])


def _solve_count(params: Params) -> str:
    colours, counts = zip(*params["requirements"], strict=True)

    def take(missing: tuple[int, ...], colour: str) -> tuple[int, ...]:
        return tuple(max(0, n - (c == colour)) for c, n in zip(colours, missing, strict=True))

    return automaton(tuple(counts), (0,) * len(counts), take)


_SOLVERS: dict[str, Callable[[Params], str]] = {
    "contains_substring": _solve_substring,
    "contains_ordered": _solve_ordered,
    "contains_count": _solve_count,
}
