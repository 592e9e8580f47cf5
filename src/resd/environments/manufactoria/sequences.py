"""Families about one sequence: a tape starts with it, ends with it, is it, or gets it added at either end."""

from __future__ import annotations

from itertools import product
from random import Random

from resd.environments.manufactoria.family import (
    FOUR_COLOURS,
    TWO_COLOURS,
    Family,
    Params,
    acceptor,
    transducer,
)
from resd.environments.manufactoria.tapes import random_tape

_SWAP = str.maketrans("RB", "BR")


def sequences(colours: str, shortest: int, longest: int) -> list[str]:
    """All strings over `colours` of these lengths, short ones first, in product order."""
    lengths = range(shortest, longest + 1)
    return ["".join(symbols) for length in lengths for symbols in product(colours, repeat=length)]


def sequence_space(colours: str, shortest: int, longest: int) -> list[Params]:
    return [{"sequence": sequence} for sequence in sequences(colours, shortest, longest)]


def mutation_space(pattern: int) -> list[Params]:
    """Mutations that change patterns of 1 or 2 symbols into others, before each sequence of up to 4 symbols.

    Patterns of one symbol may also be removed everywhere or swapped; changes into themselves are left out.
    """
    simple = [("remove_B", None), ("remove_R", None), ("swap_RB", None)] if pattern == 1 else []
    changes = [
        (f"change_{old}_to_pattern", new)
        for old in sequences(TWO_COLOURS, pattern, pattern)
        for new in sequences(TWO_COLOURS, 0, 2)
        if new != old and (new or pattern == 2)
    ]
    return [
        {"prepend_sequence": sequence, "mutation_type": kind, "mutation_pattern": new}
        for kind, new in [*simple, *changes]
        for sequence in sequences(TWO_COLOURS, 1, 4)
    ]


def mutate(params: Params, tape: str) -> str:
    """The tape after the mutation: left to right, matches do not overlap, no sequence in front yet."""
    kind, new = params["mutation_type"], params["mutation_pattern"] or ""
    if kind == "swap_RB":
        return tape.translate(_SWAP)
    old = kind.removeprefix("remove_").removeprefix("change_").removesuffix("_to_pattern")
    return tape.replace(old, "" if kind.startswith("remove_") else new)


def _prepended(params: Params, tape: str) -> str:
    return str(params["prepend_sequence"]) + mutate(params, tape)


def _mutation_sentence(params: Params) -> str:
    kind, new = params["mutation_type"], params["mutation_pattern"]
    if kind == "swap_RB":
        return "Change every R to B and every B to R"
    if kind.startswith("remove_"):
        return f"Remove every {kind.removeprefix('remove_')}"
    old = kind.removeprefix("change_").removesuffix("_to_pattern")
    order = ", from left to right without overlaps" if len(old) > 1 else ""
    return f"Replace every {old} by {new}{order}" if new else f"Remove every {old}{order}"


def _flips(sequence: str) -> list[str]:
    """The sequence with each of its symbols, in turn, exchanged for the other colour."""
    return [sequence[:at] + sequence[at].translate(_SWAP) + sequence[at + 1 :] for at in range(len(sequence))]


def _edge_tapes(params: Params, rng: Random) -> list[str]:
    """Hits and near misses for a sequence at the beginning, at the end, or alone."""
    s: str = params["sequence"]
    pads = [random_tape(rng, TWO_COLOURS, length) for length in (1, 3, 6, 9)]
    return [
        s,
        *(s + pad for pad in pads),
        *(pad + s for pad in pads),
        s + pads[1] + s,
        s + s,
        s[:-1],
        s[1:],
        s[::-1],
        *_flips(s),
        *(flipped + pads[1] for flipped in _flips(s)),
        *(pads[1] + flipped for flipped in _flips(s)[::-1]),
    ]


def _append_tapes(params: Params, rng: Random) -> list[str]:
    s: str = params["sequence"]
    return [
        *FOUR_COLOURS,
        s,
        s + s,
        s[:-1],
        s[1:],
        s[::-1],
        *(colour * 4 for colour in FOUR_COLOURS),
        *(random_tape(rng, FOUR_COLOURS, length) for length in (3, 4, 5, 6, 8, 9, 12, 18)),
    ]


def _prepend_tapes(params: Params, rng: Random) -> list[str]:
    s: str = params["prepend_sequence"]
    runs = ["RRRR", "BBBB", "RBRB", "BRBR", "RRBB", "BBRR"]
    return [
        *["B", "RR", "BB", *runs],
        s,
        s + s,
        *(random_tape(rng, TWO_COLOURS, length) for length in (3, 5, 6, 8, 9, 12, 18)),
    ]


STARTS = Family(
    name="starts_with",
    colours=TWO_COLOURS,
    expect=acceptor(lambda p, tape: tape.startswith(p["sequence"])),
    criterion=lambda p: f"Accept a tape exactly when its first symbols are {p['sequence']}.",
    brief=lambda p: f"Accept tapes that start with {p['sequence']}.",
    recipe=_edge_tapes,
)
ENDS = Family(
    name="ends_with",
    colours=TWO_COLOURS,
    expect=acceptor(lambda p, tape: tape.endswith(p["sequence"])),
    criterion=lambda p: f"Accept a tape exactly when its last symbols are {p['sequence']}.",
    brief=lambda p: f"Accept tapes that end with {p['sequence']}.",
    recipe=_edge_tapes,
)
EXACT = Family(
    name="exact_sequence",
    colours=TWO_COLOURS,
    expect=acceptor(lambda p, tape: bool(tape == p["sequence"])),
    criterion=lambda p: f"Accept the tape {p['sequence']} and reject all others.",
    brief=lambda p: f"Accept only the tape {p['sequence']}.",
    recipe=_edge_tapes,
)
APPEND = Family(
    name="append_sequence",
    colours=FOUR_COLOURS,
    expect=transducer(lambda p, tape: tape + p["sequence"]),
    criterion=lambda p: f"Add {p['sequence']} at the end of the tape, then accept.",
    brief=lambda p: f"Append {p['sequence']}.",
    recipe=_append_tapes,
)
PREPEND = Family(
    name="prepend_sequence",
    colours=TWO_COLOURS,
    expect=transducer(_prepended),
    criterion=lambda p: (
        f"{_mutation_sentence(p)}. Then put {p['prepend_sequence']} in front of the tape, and accept."
    ),
    brief=lambda p: f"{_mutation_sentence(p)}, then prepend {p['prepend_sequence']}.",
    recipe=_prepend_tapes,
)
SEQUENCE_FAMILIES: tuple[Family, ...] = (STARTS, ENDS, EXACT, APPEND, PREPEND)
