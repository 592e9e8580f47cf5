"""Reading what came out of the sandbox. The bytes may be anything; nothing here recurses or runs away.

Nesting, the number of items and the length of numbers are bounded before the parser sees them, and the total
by the limit on output, so that reading costs time and memory in proportion to that limit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from resd.environments.sandbox.launcher.harness import (
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_ITEMS,
    brackets_and_commas,
    deeper_than,
)

_MAX_FLOAT = 500  # characters


class PayloadError(ValueError):
    """Bytes that the harness does not write."""


@dataclass
class Lines:
    """The lines of one run. `complete`: the harness said that it was done; `memory`: that memory ran out.

    `room`: how many items the values may still have.
    """

    values: list[Any]
    errors: list[str | None]
    room: int = MAX_ITEMS
    complete: bool = False
    memory: bool = False


def read_lines(data: bytes, most: int, cut: bool) -> tuple[Lines, bool]:
    """The lines of a run of at most `most` calls, and whether all of them were well formed.

    `cut`: the run was stopped, so that the last line may be half a line. What precedes a bad line is kept.
    """
    lines = Lines([], [])
    *whole, rest = data.split(b"\n", most + 2)  # one line more than there may be
    try:
        for line in whole:
            _read_line(line, lines, most)
    except PayloadError:
        return lines, False
    return lines, cut or not rest


def _read_line(line: bytes, lines: Lines, most: int) -> None:
    if lines.complete or lines.memory:
        raise PayloadError("something follows the last line")
    if line == b"d":
        lines.complete = True
    elif line == b"m":
        lines.memory = True
    elif line[:1] in (b"v", b"e") and len(lines.values) < most:
        value, items = parse_value(line[1:], lines.room)
        lines.room -= items
        failed = line[:1] == b"e"
        if failed and type(value) is not str:
            raise PayloadError("an error that is not text")
        lines.values.append(None if failed else value)
        lines.errors.append(value if failed else None)
    else:
        raise PayloadError("a line of no known kind, or one too many")


def parse_value(text: bytes, room: int = MAX_ITEMS) -> tuple[Any, int]:
    """One JSON value of exact built-in types, NaN and infinities included, and how many items it has.

    Raises PayloadError.
    """
    brackets, commas = brackets_and_commas(text)
    items = len(brackets) // 2 + commas
    if items > room:
        raise PayloadError("too many items")
    if deeper_than(brackets, MAX_DEPTH):
        raise PayloadError("nested too deeply")
    try:
        value = json.loads(text.decode(), parse_int=_integer, parse_float=_float)
        if b"\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # lone surrogates fail wherever it is written
    except (ValueError, RecursionError) as error:
        raise PayloadError(str(error)) from error
    return value, items


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS + 1:
        raise PayloadError("an integer of too many digits")
    return int(digits)


def _float(text: str) -> float:
    if len(text) > _MAX_FLOAT:
        raise PayloadError("a number of too many digits")
    return float(text)
