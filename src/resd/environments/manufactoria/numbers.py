"""Families about numbers: a tape is read in binary, B for 1 and R for 0, most significant bit first."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from random import Random

from resd.environments.manufactoria.family import TWO_COLOURS, Family, Params, acceptor, transducer

_TO_BITS = str.maketrans("RB", "01")
_TO_TAPE = str.maketrans("01", "RB")
_READING = (
    "Read the tape as a binary number: B is 1, R is 0, the most significant bit comes first, and the empty "
    "tape is 0. "
)
_WRITING = " The result starts with B; a result of 0 or less is the empty tape. Then accept."
_FIXED = [41, 53, 90, 127, 137, 170, 214, 255, 300, 341]

_COMPARISONS: Mapping[str, tuple[Callable[[int, int], bool], str]] = {
    ">": (operator.gt, "greater than"),
    ">=": (operator.ge, "at least"),
    "<": (operator.lt, "less than"),
    "<=": (operator.le, "at most"),
    "=": (operator.eq, "equal to"),
}
_OPERATIONS: Mapping[str, tuple[Callable[[int, int], int], str]] = {
    "add": (operator.add, "the number plus {}"),
    "subtract": (operator.sub, "the number minus {}"),
    "and": (operator.and_, "the bitwise AND of the number and {}"),
    "or": (operator.or_, "the bitwise OR of the number and {}"),
    "xor": (operator.xor, "the bitwise XOR of the number and {}"),
    "floor_div": (operator.rshift, "the number divided by 2 to the power of {}, rounded down"),
    "max": (max, "the greater of the number and {}"),
    "min": (min, "the smaller of the number and {}"),
}
_NOT = "the number that results from inverting each of its lowest eight bits and dropping all others"

# Seven operands an operation: small ones, and both sides of powers of two.
OPERANDS = (1, 3, 4, 8, 15, 16, 31)
SHIFTS = (1, 2, 3, 4, 5, 6, 7)


def value(tape: str) -> int:
    """The number that a tape of R and B spells."""
    return int(tape.translate(_TO_BITS) or "0", 2)


def spelled(number: int) -> str:
    """The tape of a number, without leading R; "" for 0 and less."""
    return f"{number:b}".translate(_TO_TAPE) if number > 0 else ""


def comparison_space(thresholds: range) -> list[Params]:
    return [{"threshold": number, "operator": sign} for sign in _COMPARISONS for number in thresholds]


def operation_space() -> list[Params]:
    operands = {"floor_div": SHIFTS}
    return [
        {"operation": name, "operand": operand}
        for name in ("add", "subtract", "and", "or", "xor", "floor_div")
        for operand in operands.get(name, OPERANDS)
    ]


def extreme_space() -> list[Params]:
    return [{"operation": name, "operand": number} for name in ("max", "min") for number in range(1, 257)]


def _compares(params: Params, tape: str) -> bool:
    return _COMPARISONS[params["operator"]][0](value(tape), params["threshold"])


def _computed(params: Params, tape: str) -> str:
    number = value(tape)
    if params["operation"] == "not":
        return spelled(~number & 0xFF)
    return spelled(_OPERATIONS[params["operation"]][0](number, params["operand"]))


def _result(params: Params) -> str:
    if params["operation"] == "not":
        return _NOT
    return _OPERATIONS[params["operation"]][1].format(params["operand"])


def _number_tapes(params: Params, rng: Random) -> list[str]:
    """Around the constant, with leading zeros, twice and half of it, round numbers, and ten fixed ones."""
    constant = params.get("threshold", params.get("operand")) or 1
    near = [spelled(constant + offset) for offset in (0, -1, 1, -2, 2) if constant + offset > 0]
    related = [
        spelled(constant * 2),
        spelled(constant * 4 + 1),
        spelled(constant // 2),
        spelled(constant ^ 5),
    ]
    round_numbers = [spelled(number) for number in (15, 16, 31, 64, 128)]
    fixed = [spelled(number) for number in _FIXED]
    padded = ["R" + near[0], "RR" + near[0], "RRR" + near[-1], "RR" + fixed[0]]
    drawn = [spelled(rng.randrange(1, 512)) for _ in range(2)]
    return ["B", "RR", *near, *padded, *related, *fixed, *drawn, *round_numbers]


COMPARISON = Family(
    name="numerical_comparison",
    colours=TWO_COLOURS,
    expect=acceptor(_compares),
    criterion=lambda p: (
        f"{_READING}Accept the tape exactly when the number is "
        f"{_COMPARISONS[p['operator']][1]} {p['threshold']}."
    ),
    brief=lambda p: f"Accept binary numbers {p['operator']} {p['threshold']}.",
    recipe=_number_tapes,
)
OPERATION = Family(
    name="numerical_operations",
    colours=TWO_COLOURS,
    expect=transducer(_computed),
    criterion=lambda p: f"{_READING}Replace it by {_result(p)}.{_WRITING}",
    brief=lambda p: f"Write {_result(p)}.",
    recipe=_number_tapes,
)
EXTREME = Family(
    name="numerical_max_min",
    colours=TWO_COLOURS,
    expect=transducer(_computed),
    criterion=lambda p: f"{_READING}Replace it by {_result(p)}.{_WRITING}",
    brief=lambda p: f"Write {_result(p)}.",
    recipe=_number_tapes,
)
NUMBER_FAMILIES: tuple[Family, ...] = (COMPARISON, OPERATION, EXTREME)
