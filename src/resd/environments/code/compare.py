"""When an output or a value is the wanted one, and how values read.

Values are compared and shown as they came, encoded (see `replay`): sets and dicts made of hostile ones would
take for ever, since the hashes of their items may all be the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

MOST_SHOWN = 1000  # characters of a value


def same_output(got: str, wanted: str) -> bool:
    """Line by line; white space at the ends of lines and empty lines at the end do not count."""
    return _lines(got) == _lines(wanted)


def same_value(got: Any, wanted: Any) -> bool:
    """Python's equality (1, 1.0 and true are equal, floats must be exact), with tuples equal to lists.

    Takes time in proportion to what is wanted, however large the other is.
    """
    got, wanted = _untagged(got), _untagged(wanted)
    if isinstance(got, list) and isinstance(wanted, list):
        return len(got) == len(wanted) and all(map(same_value, got, wanted))
    if not isinstance(got, dict) or not isinstance(wanted, dict):
        return bool(got == wanted)
    if got.keys() != wanted.keys():
        return False
    if (items := _unordered(got)) is not None and (others := _unordered(wanted)) is not None:
        return len(items) == len(others) and same_value(_sorted(items), _sorted(others))
    return all(same_value(got[key], wanted[key]) for key in got)


def written(value: Any) -> str:
    """A value as Python writes it, at most about `MOST_SHOWN` characters of it."""
    pieces, length = [], 0
    for piece in _pieces(value):
        pieces.append(piece)
        length += len(piece)
        if length > MOST_SHOWN:
            break
    return "".join(pieces)


def _lines(text: str) -> list[str]:
    return "\n".join(line.rstrip() for line in text.split("\n")).rstrip("\n").split("\n")


def _untagged(value: Any) -> Any:
    return value["resd_tuple"] if isinstance(value, dict) and value.keys() == {"resd_tuple"} else value


def _unordered(value: dict[str, Any]) -> list[Any] | None:
    """The items of a set, or the pairs of a dict whose keys are no texts."""
    for tag in ("resd_set", "resd_dict"):
        if value.keys() == {tag} and isinstance(value[tag], list):
            return list(value[tag])
    return None


def _sorted(items: Iterable[Any]) -> list[Any]:
    return sorted(map(_plain, items), key=json.dumps)


def _plain(value: Any) -> Any:
    """Without the difference between tuples and lists, in one order."""
    value = _untagged(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    items = _unordered(value)
    if items is not None:
        return {next(iter(value)): _sorted(items)}
    return {key: _plain(item) for key, item in value.items()}


def _pieces(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield repr(value[:MOST_SHOWN])
    elif isinstance(value, list):
        yield from _listed("[", value, "]")
    elif not isinstance(value, dict):
        yield repr(value)
    elif isinstance(inner := _untagged(value), list):
        yield from _listed("(", inner, ",)" if len(inner) == 1 else ")")
    elif (items := _unordered(value)) is None:
        yield from _paired(value.items())
    elif "resd_dict" not in value:
        yield from _listed("{", items, "}") if items else ["set()"]
    else:
        yield from _paired(
            pair if isinstance(pair, list) and len(pair) == 2 else [pair, None] for pair in items
        )


def _listed(before: str, items: Iterable[Any], after: str) -> Iterator[str]:
    yield before
    for number, item in enumerate(items):
        yield ", " if number else ""
        yield from _pieces(item)
    yield after


def _paired(pairs: Iterable[Iterable[Any]]) -> Iterator[str]:
    yield "{"
    for number, (key, item) in enumerate(pairs):
        yield ", " if number else ""
        yield from _pieces(key)
        yield ": "
        yield from _pieces(item)
    yield "}"
