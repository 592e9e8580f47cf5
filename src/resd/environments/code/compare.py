"""When an output or a value is the wanted one."""

from __future__ import annotations

import json
from typing import Any


def same_output(got: str, wanted: str) -> bool:
    """Line by line; white space at the ends of lines and empty lines at the end do not count."""
    return _lines(got) == _lines(wanted)


def same_value(got: Any, wanted: Any) -> bool:
    """Python's equality (1, 1.0 and true are equal, floats must be exact), with tuples equal to lists."""
    try:
        return bool(_plain(got) == _plain(wanted))
    except RecursionError:
        return False


def _lines(text: str) -> list[str]:
    return "\n".join(line.rstrip() for line in text.split("\n")).rstrip("\n").split("\n")


def _plain(value: Any) -> Any:
    """Values as `codec` encodes them, without the difference between tuples and lists, in one order."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"resd_tuple"}:
        return _plain(value["resd_tuple"])
    plain = {key: _plain(item) for key, item in value.items()}
    for tag in ("resd_set", "resd_dict"):
        if set(plain) == {tag} and isinstance(plain[tag], list):
            return {tag: sorted(plain[tag], key=json.dumps)}
    return plain
