"""All families by name, and the sets of problems made of them.

The HAS split is the published one. How the other sets were sampled was not published; ours have the published
sizes: the space is shuffled with seed 42, as many problems as published are kept, and the given share of
them, rounded down, is for training. Sets with a share of 0 are only for testing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TypeAlias

from resd.environments.manufactoria.family import FOUR_COLOURS, TWO_COLOURS, Family, Params
from resd.environments.manufactoria.has import HAS_FAMILIES, has_split
from resd.environments.manufactoria.numbers import (
    NUMBER_FAMILIES,
    comparison_space,
    extreme_space,
    operation_space,
)
from resd.environments.manufactoria.patterns import PATTERN_FAMILIES, regex_space, same_number_space
from resd.environments.manufactoria.sequences import SEQUENCE_FAMILIES, mutation_space, sequence_space

NamedParams: TypeAlias = tuple[str, Params]
ProblemSet: TypeAlias = Callable[[str], Sequence[NamedParams]]

_SEED = 42

FAMILIES: Mapping[str, Family] = {
    family.name: family for family in (*HAS_FAMILIES, *SEQUENCE_FAMILIES, *NUMBER_FAMILIES, *PATTERN_FAMILIES)
}


def _part_of_has(name: str) -> ProblemSet:
    """One kind of HAS problem, in the order and split of the whole."""
    return lambda split: [problem for problem in has_split(split) if problem[0] == name]


def _drawn(name: str, share: float, *spaces: tuple[Callable[[], list[Params]], int | None]) -> ProblemSet:
    """The given number of problems from each space (None: all), shuffled, then split."""

    def problems(split: str) -> list[NamedParams]:
        rng = Random(_SEED)
        chosen: list[Params] = []
        for space, size in spaces:
            fresh = [params for params in space() if params not in chosen]
            chosen += rng.sample(fresh, len(fresh) if size is None else size)
        rng.shuffle(chosen)
        cut = int(len(chosen) * share)
        return [(name, params) for params in (chosen[:cut] if split == "train" else chosen[cut:])]

    return problems


def _two_colour_sequences() -> list[Params]:
    return sequence_space(TWO_COLOURS, 1, 6)


SETS: Mapping[str, ProblemSet] = {
    "has": has_split,
    **{family.name: _part_of_has(family.name) for family in HAS_FAMILIES},
    "starts_with": _drawn("starts_with", 0.93, (_two_colour_sequences, 125)),
    "exact_sequence": _drawn("exact_sequence", 0.93, (_two_colour_sequences, 125)),
    "append_sequence": _drawn("append_sequence", 0.93, (lambda: sequence_space(FOUR_COLOURS, 1, 6), 125)),
    "ends_with": _drawn("ends_with", 0.85, (_two_colour_sequences, None)),
    "prepend_sequence": _drawn(
        "prepend_sequence", 0.85, (lambda: mutation_space(1), 360), (lambda: mutation_space(2), 360)
    ),
    "regex_pattern": _drawn(
        "regex_pattern", 0.85, (lambda: regex_space(1), 60), (lambda: regex_space(2), 600)
    ),
    "numerical_comparison": _drawn(
        "numerical_comparison", 0.85, (lambda: comparison_space(range(1, 127)), None)
    ),
    "numerical_max_min": _drawn("numerical_max_min", 0.98, (extreme_space, None)),
    "numerical_operations": _drawn("numerical_operations", 0.0, (operation_space, None)),
    "regex_same_num": _drawn("regex_same_num", 0.0, (same_number_space, None)),
}
