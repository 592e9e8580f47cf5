"""Families about patterns: two repeated parts in a row, and blocks whose lengths depend on one number."""

from __future__ import annotations

import re
from itertools import product
from random import Random

from resd.environments.manufactoria.family import FOUR_COLOURS, Family, Params, acceptor
from resd.environments.manufactoria.sequences import sequences
from resd.environments.manufactoria.tapes import random_tape

_REPEATS = {"+": "once or more", "*": "any number of times", "?": "at most once"}
_LENGTHS = {
    "n": lambda n: n,
    "n+1": lambda n: n + 1,
    "n+2": lambda n: n + 2,
    "n+3": lambda n: n + 3,
    "2n": lambda n: 2 * n,
}
_TEMPLATES = (
    ("sequence", "R{{{x}}}B{{{y}}}"),
    ("sequence", "B{{{x}}}R{{{y}}}"),
    ("symmetric_r", "R{{{y}}}B{{{x}}}R{{{y}}}"),
    ("symmetric_b", "B{{{x}}}R{{{y}}}B{{{x}}}"),
)
_BLOCK = re.compile(r"(\w)\{([^}]*)\}")


def regex_space(longest: int) -> list[Params]:
    """Two parts of up to `longest` symbols, each with its repetition."""
    parts = list(product(sequences(FOUR_COLOURS, 1, longest), _REPEATS))
    return [{"pattern_parts": [list(first), list(second)]} for first, second in product(parts, parts)]


def same_number_space() -> list[Params]:
    return [
        {"pattern_template": template.format(x=x, y=y), "x_val": x, "y_val": y, "pattern_type": kind}
        for kind, template in _TEMPLATES
        for x, y in product(_LENGTHS, _LENGTHS)
    ]


def _matches(params: Params, tape: str) -> bool:
    pattern = "".join(f"(?:{part}){repeat}" for part, repeat in params["pattern_parts"])
    return re.fullmatch(pattern, tape) is not None


def _regex_text(params: Params) -> str:
    return "".join(f"({part}){repeat}" for part, repeat in params["pattern_parts"])


def _regex_sentence(params: Params) -> str:
    first, second = (f"{part} {_REPEATS[repeat]}" for part, repeat in params["pattern_parts"])
    return (
        f"Accept a tape exactly when all of it is {first}, followed by {second} "
        f"(as a regular expression: {_regex_text(params)})."
    )


def _regex_tapes(params: Params, rng: Random) -> list[str]:
    (a, first), (b, second) = params["pattern_parts"]
    counts = {"+": (1, 2, 3), "*": (0, 1, 3), "?": (0, 1, 1)}
    joined = [a * n + b * m for n in counts[first] for m in counts[second]]
    stray = random_tape(rng, FOUR_COLOURS, 1)
    return [
        *joined,
        *["", a, b, a + a, b + b],
        *[b + a, a + b + a, b + a + b],
        *[a + stray + b, stray + a + b, a + b + stray],
        *[a[:-1] + b, a + b[1:], (a + b)[::-1], (a + b)[:-1]],
        *(random_tape(rng, FOUR_COLOURS, 7) for _ in range(2)),
    ]


def _blocks(params: Params, n: int) -> list[str]:
    return [colour * _LENGTHS[length](n) for colour, length in _BLOCK.findall(params["pattern_template"])]


def _has_same_number(params: Params, tape: str) -> bool:
    return any("".join(_blocks(params, n)) == tape for n in range(1, len(tape) + 1))


def _same_number_tapes(params: Params, rng: Random) -> list[str]:
    hits = ["".join(_blocks(params, n)) for n in (1, 2, 3, 4)]
    small, bigger = _blocks(params, 1), _blocks(params, 2)
    swapped = str.maketrans("RB", "BR")
    return [
        *hits,
        *(hit + small[0][0] for hit in hits[:2]),
        *(hit[:-1] for hit in hits),
        *(hit[1:] for hit in hits[:2]),
        hits[0] + random_tape(rng, "YG", 1),
        hits[0][::-1],
        hits[0].translate(swapped),
        "".join(small[:1] + bigger[1:]),
        "".join(bigger[:1] + small[1:]),
        "".join(sorted(hits[1], key=lambda _: rng.random())),
        hits[0] + hits[0],
        *("R", "B", "Y", "G"),
        *(random_tape(rng, FOUR_COLOURS, 4, 8) for _ in range(2)),
    ]


REGEX = Family(
    name="regex_pattern",
    colours=FOUR_COLOURS,
    expect=acceptor(_matches),
    criterion=_regex_sentence,
    brief=lambda p: f"Accept tapes that match {_regex_text(p)}.",
    recipe=_regex_tapes,
)
SAME_NUMBER = Family(
    name="regex_same_num",
    colours=FOUR_COLOURS,
    expect=acceptor(_has_same_number),
    criterion=lambda p: (
        f"Accept a tape exactly when it has the form {p['pattern_template']} for some whole number n of at "
        "least 1. A number in braces says how often the symbol before it is repeated."
    ),
    brief=lambda p: f"Accept tapes of the form {p['pattern_template']}, n at least 1.",
    recipe=_same_number_tapes,
)
PATTERN_FAMILIES: tuple[Family, ...] = (REGEX, SAME_NUMBER)
