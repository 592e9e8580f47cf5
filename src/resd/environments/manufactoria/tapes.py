"""The tapes of a problem, seeded by the problem alone and so independent of what was built before."""

from __future__ import annotations

import json
from hashlib import blake2b
from itertools import count
from random import Random

from resd.environments.manufactoria.family import Case, Family, Params

MAX_TAPES = 35
# A language that is not trivial gets at least this many tapes on either side, where random search finds them.
MIN_PER_SIDE = 3
_TRIES = 50
_CORNERS = ("RB", "BR", "RBR", "BRB", "RRB", "BBR")


def build_cases(family: Family, params: Params, seed: int) -> tuple[Case, ...]:
    """Labelled tapes, without repetition, the empty tape first; at most `MAX_TAPES`."""
    rng = Random(_stable_hash(f"{seed} {problem_key(family, params)}"))
    tapes = dict.fromkeys([*_shared(family.colours, rng), *family.recipe(params, rng)])
    cases = [family.expect(params, tape) for tape in tapes][:MAX_TAPES]
    extra = _balance(family, params, cases, rng)
    return tuple(cases[: MAX_TAPES - len(extra)] + extra)


def problem_key(family: Family, params: Params) -> str:
    """The identity of a problem, as text."""
    return f"{family.name} {json.dumps(params, sort_keys=True)}"


def _stable_hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())


def _shared(colours: str, rng: Random) -> list[str]:
    """The tapes common to all problems: the empty tape, and some of the shortest."""
    short = ["", *colours, *(a + b for a in colours for b in colours)]
    return ["", colours[0], colours[:2], *rng.choices(short, k=5), *_CORNERS]


def _balance(family: Family, params: Params, cases: list[Case], rng: Random) -> list[Case]:
    """Random tapes for the side, accept or reject, that has too few. Transducers accept everything."""
    lacking = {side: MIN_PER_SIDE - sum(case.accept is side for case in cases) for side in (True, False)}
    if cases[0].output is not None:
        return []
    seen = {case.tape for case in cases}
    extra: list[Case] = []
    for attempt in count():
        if attempt == _TRIES or max(lacking.values()) <= 0:
            return extra
        case = family.expect(params, random_tape(rng, family.colours, 1, min(2 + attempt // 10, 12)))
        if case.tape not in seen and lacking[case.accept] > 0:
            seen.add(case.tape)
            lacking[case.accept] -= 1
            extra.append(case)
    raise AssertionError("unreachable")


def random_tape(rng: Random, colours: str, shortest: int, longest: int | None = None) -> str:
    """Symbols drawn evenly; the length too, from `shortest` to `longest` (default: `shortest`)."""
    length = shortest if longest is None else rng.randint(shortest, longest)
    return "".join(rng.choices(colours, k=length))
