"""Lab programs: a HAS problem's automaton in the form that the lab model writes, with rules kept or broken.

State i is an RB puller `s<i>` whose EMPTY branch leads to its partner, the YG puller `t<i>`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TypeAlias

from resd.environments.manufactoria.has import HasKind
from resd.lab.rules import Rule, applicable

COLORS = "RBYG"
Transitions: TypeAlias = tuple[tuple[int, ...], ...]
# The lab's problems have so many states before acceptance. Left out are long counts, and single symbols,
# whose languages are all that the three kinds share: one held out would hold out all.
STATES = (2, 6)


@dataclass(frozen=True)
class Task:
    """A HAS problem as the lab sees it: what a tape must have, in a row, in order, or in number."""

    kind: HasKind
    sequence: str = ""  # "substring" and "ordered"
    counts: tuple[tuple[str, int], ...] = ()  # "count": (color, at least)

    @property
    def transitions(self) -> Transitions:
        """[state][color index] -> next state; state 0 is the first; the number of states means "accept"."""
        return _transitions(self)

    @property
    def states(self) -> int:
        return len(self.transitions)

    @property
    def rules(self) -> tuple[Rule, ...]:
        return applicable(self.kind)


@cache
def _transitions(task: Task) -> Transitions:
    if task.kind == "count":
        return _count_automaton(task.counts)
    step = _prefix_after if task.kind == "substring" else _subsequence_after
    states = range(len(task.sequence))
    return tuple(tuple(step(task.sequence, state, color) for color in COLORS) for state in states)


def _prefix_after(sequence: str, matched: int, color: str) -> int:
    """Knuth-Morris-Pratt: the longest prefix of `sequence` that ends what was just read."""
    text = sequence[:matched] + color
    return next(k for k in range(len(text), -1, -1) if text.endswith(sequence[:k]) and k <= len(sequence))


def _subsequence_after(sequence: str, matched: int, color: str) -> int:
    return matched + (sequence[matched] == color)


def _count_automaton(counts: Sequence[tuple[str, int]]) -> Transitions:
    """States are how often each color was seen, capped, in product order; the last one is acceptance."""
    order = {seen: i for i, seen in enumerate(itertools.product(*(range(n + 1) for _, n in counts)))}

    def step(seen: tuple[int, ...], color: str) -> int:
        return order[tuple(min(k + (c == color), n) for k, (c, n) in zip(seen, counts, strict=True))]

    *open_states, _ = order
    return tuple(tuple(step(seen, color) for color in COLORS) for seen in open_states)


def program(task: Task, broken: Iterable[str] = ()) -> str:
    """The program text, with the named rules broken."""
    broken = frozenset(broken)
    lines = ["START start:", f"    NEXT {'t0' if 'start' in broken else 's0'}"]
    for state in range(task.states):
        lines += _state_lines(task, state, broken)
    return "\n".join(lines if "end" in broken else [*lines, "END end"])


def _state_lines(task: Task, state: int, broken: frozenset[str]) -> Iterator[str]:
    route = {color: _target(task, state, color, broken) for color in COLORS}
    yield f"PULLER_RB s{state}:"
    yield from (f"    [{color}] {route[color]}" for color in "RB")
    yield f"    [EMPTY] {'NONE' if 'partner' in broken else f't{state}'}"
    yield f"PULLER_YG t{state}:"
    yield from (f"    [{color}] {route[color]}" for color in "YG")
    yield f"    [EMPTY] {'end' if 'empty' in broken else 'NONE'}"


def _target(task: Task, state: int, color: str, broken: frozenset[str]) -> str:
    after = task.transitions[state][COLORS.index(color)]
    if after == task.states:
        return "s0" if "accept" in broken else "end"
    if after <= state:  # no progress: the color does not match
        if "restart" in broken:
            return "NONE"
        if "stay" in broken:
            return "s0"
    return f"s{after}"


def fenced(text: str) -> str:
    """As a reply."""
    return f"```manufactoria\n{text}\n```"


@lru_cache(maxsize=4096)
def variants(task: Task) -> Mapping[str, frozenset[str]]:
    """Every reply that the built-in rules allow -> the names of the rules that it breaks."""
    names = [rule.name for rule in task.rules]
    subsets = itertools.chain.from_iterable(itertools.combinations(names, k) for k in range(len(names) + 1))
    return {fenced(program(task, subset)): frozenset(subset) for subset in subsets}


def broken_rules(task: Task, reply: str) -> frozenset[str] | None:
    """The rules that a reply breaks; None if it errs outside the built-in rules."""
    return variants(task).get(reply)
