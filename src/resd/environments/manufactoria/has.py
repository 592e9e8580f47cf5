"""Manufactoria-HAS: 874 problems that ask whether a tape *has* something, split as published (742 / 132)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations, product
from math import prod
from random import Random
from typing import Literal, TypeAlias

from resd.environments.manufactoria.family import FOUR_COLOURS, Family, Params, acceptor
from resd.environments.manufactoria.tapes import random_tape
from resd.records import Problem

_MOST_REQUIRED = 6
_LONGEST_SEQUENCE = 4
_SPLIT_SEED = 42
_TRAIN_SHARE = 0.85

HasProblem: TypeAlias = tuple[str, Params]
HasKind: TypeAlias = Literal["substring", "ordered", "count"]


def has_split(split: str) -> Sequence[HasProblem]:
    """(family name, params) of "train" or "test" in published order.

    The order is that of the published generator: each family sampled whole, one after the other, then all
    shuffled, from one generator seeded with 42.
    """
    rng = Random(_SPLIT_SEED)
    problems: list[HasProblem] = []
    for name, space in [
        ("contains_count", _count_space()),
        ("contains_ordered", _sequence_space()),
        ("contains_substring", _sequence_space()),
    ]:
        problems += [(name, params) for params in rng.sample(space, len(space))]
    rng.shuffle(problems)
    cut = int(len(problems) * _TRAIN_SHARE)
    return problems[:cut] if split == "train" else problems[cut:]


def _sequence_space() -> list[Params]:
    return [
        {"sequence": "".join(symbols)}
        for length in range(1, _LONGEST_SEQUENCE + 1)
        for symbols in product(FOUR_COLOURS, repeat=length)
    ]


def _count_space() -> list[Params]:
    """Sets of one to three colours, each required at least once, at most six symbols in all."""
    return [
        {"requirements": [[colour, n] for colour, n in zip(colours, numbers, strict=True)]}
        for size in (1, 2, 3)
        for colours in combinations(FOUR_COLOURS, size)
        for numbers in product(range(1, _MOST_REQUIRED + 1), repeat=size)
        if sum(numbers) <= _MOST_REQUIRED
    ]


def states_before_acceptance(params: Params) -> int:
    """States that the smallest automaton for a HAS problem has before it accepts: how long programs get."""
    if "sequence" in params:
        return len(params["sequence"])
    return int(prod(n + 1 for _, n in params["requirements"])) - 1


def has_substring(params: Params, tape: str) -> bool:
    return str(params["sequence"]) in tape


def has_in_order(params: Params, tape: str) -> bool:
    rest = iter(tape)
    return all(symbol in rest for symbol in params["sequence"])


def has_counts(params: Params, tape: str) -> bool:
    return all(tape.count(colour) >= n for colour, n in params["requirements"])


def _list_counts(params: Params, each: str) -> str:
    return " and ".join(f"{each}{n} {colour}" for colour, n in params["requirements"])


def _padding(rng: Random, shortest: int, longest: int | None = None) -> str:
    return random_tape(rng, FOUR_COLOURS, shortest, longest)


def _without(rng: Random, symbols: str, length: int) -> str:
    """`length` symbols of the other colours; "" when there are none."""
    others = "".join(colour for colour in FOUR_COLOURS if colour not in symbols)
    return random_tape(rng, others, length) if others else ""


def _shuffled(rng: Random, symbols: str) -> str:
    return "".join(rng.sample(symbols, len(symbols)))


def _spread(rng: Random, sequence: str, shortest: int, longest: int | None = None) -> str:
    """The sequence with random symbols in every gap."""
    return sequence[0] + "".join(_padding(rng, shortest, longest) + symbol for symbol in sequence[1:])


def _ordered_tapes(params: Params, rng: Random) -> list[str]:
    s: str = params["sequence"]
    half, last = len(s) // 2, len(s) - 1
    no_middle = s[:half] + s[half + 1 :]
    ends = _padding(rng, 2, 5)
    short, long, large = _padding(rng, 3), _padding(rng, 9), _padding(rng, 18)
    return [
        s,
        *(s[:gap] + _padding(rng, 1) + s[gap:] for gap in range(1, len(s))),
        _spread(rng, s, 1),
        s + _padding(rng, 3),
        _padding(rng, 6) + s,
        _padding(rng, 2, 4) + _spread(rng, s, 1, 3) + _padding(rng, 2, 4),
        s[:half] + _padding(rng, 1) + s[half:] + _padding(rng, 2) + s,
        s[1:],
        s[:-1],
        no_middle,
        ends + s[::-1] + ends,
        short + s[last:] + s[:last] + short,
        long + s[: max(last - 1, 0)] + s[last:] + long,
        _without(rng, s, 12),
        large + no_middle + large,
    ]


def _substring_tapes(params: Params, rng: Random) -> list[str]:
    s: str = params["sequence"]
    half = len(s) // 2
    overlap = [s + s[1:]] if len(set(s)) < len(s) else []
    # Broken in the middle by a symbol that does not heal the break.
    broken = s[:half] + rng.choice([c for c in FOUR_COLOURS if c != s[half]]) + s[half:]
    return [
        s,
        s + _padding(rng, 3),
        _padding(rng, 6) + s,
        _padding(rng, 1, 3) + s + _padding(rng, 1, 3),
        s + _padding(rng, 1, 3) + s,
        _padding(rng, 3, 5) + s + _padding(rng, 3, 5),
        *overlap,
        _spread(rng, s, 1),
        *(_padding(rng, 3, 6) + s[:end] + _padding(rng, 3, 6) for end in range(1, len(s))),
        _padding(rng, 3) + s[::-1] + _padding(rng, 3),
        _padding(rng, 3) + _shuffled(rng, s) + _padding(rng, 3),
        broken,
        _without(rng, s, 12),
        _padding(rng, 3) + broken + s + _padding(rng, 3),
        _padding(rng, 2) + _spread(rng, s, 2) + _padding(rng, 2),
    ]


def _count_tapes(params: Params, rng: Random) -> list[str]:
    wanted = Counter(dict(params["requirements"]))
    colours = "".join(wanted)
    exact = "".join(wanted.elements())
    more = "".join(colour * (n + rng.randint(1, 2)) for colour, n in wanted.items())
    some_more = "".join(colour * (n + rng.randint(0, 2)) for colour, n in wanted.items())
    first, last = colours[0], colours[-1]
    no_last, first_short = exact.replace(last, ""), exact.replace(first, "", 1)
    all_short = "".join(colour * (n - 1) for colour, n in wanted.items())
    filler = "".join(rng.choices(colours, k=max(0, (18 - len(exact)) * 3 // 5)))
    lists = [
        exact,
        more,
        exact + _without(rng, colours, 3),
        some_more + _padding(rng, max(0, 12 - len(some_more))),
        exact + filler + _padding(rng, max(0, 18 - len(exact) - len(filler))),
        no_last,
        no_last + _without(rng, last, 5),
        first_short,
        first_short + _without(rng, first, 3),
        _without(rng, colours, 12),
        all_short + _without(rng, colours, 4),
        first_short + _without(rng, first, 18 - len(first_short)),
    ]
    return [_shuffled(rng, symbols) for symbols in lists]


SUBSTRING = Family(
    name="contains_substring",
    colours=FOUR_COLOURS,
    expect=acceptor(has_substring),
    criterion=lambda p: (
        f"Accept a tape exactly when the symbols {p['sequence']} stand on it side by side, in this order."
    ),
    brief=lambda p: f"Accept tapes with {p['sequence']} in a row.",
    recipe=_substring_tapes,
)
ORDERED = Family(
    name="contains_ordered",
    colours=FOUR_COLOURS,
    expect=acceptor(has_in_order),
    criterion=lambda p: (
        f"Accept a tape exactly when the symbols {p['sequence']} appear on it in this order. "
        "Other symbols may stand between them."
    ),
    brief=lambda p: f"Accept tapes with {p['sequence']} in order.",
    recipe=_ordered_tapes,
)
COUNT = Family(
    name="contains_count",
    colours=FOUR_COLOURS,
    expect=acceptor(has_counts),
    criterion=lambda p: f"Accept a tape exactly when it holds {_list_counts(p, 'at least ')}, in any order.",
    brief=lambda p: f"Accept tapes with at least {_list_counts(p, '')}.",
    recipe=_count_tapes,
)
HAS_FAMILIES: tuple[Family, ...] = (SUBSTRING, ORDERED, COUNT)

_KINDS: Mapping[str, HasKind] = {
    "contains_substring": "substring",
    "contains_ordered": "ordered",
    "contains_count": "count",
}
_PREDICATES = {
    "contains_substring": has_substring,
    "contains_ordered": has_in_order,
    "contains_count": has_counts,
}


def has_kind(problem: Problem) -> HasKind:
    """Which of the three kinds a HAS problem is. Raises KeyError for problems of other families."""
    return _KINDS[problem.metadata["family"]]


def has_predicate(problem: Problem) -> Callable[[str], bool]:
    """The language of a HAS problem: a function from tape to whether it is to be accepted."""
    return partial(_PREDICATES[problem.metadata["family"]], problem.metadata["params"])
