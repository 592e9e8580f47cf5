"""JSON from models: schemas of the requested objects, and finding these objects in replies.

Parsing never raises, whatever the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

from resd.chat import strip_thinking
from resd.context.entries import one_line

JsonObject = dict[str, Any]
Schema = dict[str, Any]

_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_DECODER = json.JSONDecoder()
# Nested braces would make the scan quadratic; a reply that needs more attempts than this is garbage.
_MAX_SCANS = 64


def closed_object(properties: Schema) -> Schema:
    """The schema of an object with exactly these properties, in this order."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def find_object(text: str, keys: Collection[str]) -> JsonObject | None:
    """The first JSON object outside the thinking that has one of `keys`.

    Looks at the whole text, then at fenced blocks, then at every opening brace.
    """
    answer = strip_thinking(text)
    return next((found for found in _objects(answer) if not found.keys().isdisjoint(keys)), None)


def short_text(value: object, limit: int) -> str:
    """`value` on one line of at most `limit` characters; "" for anything but text."""
    return one_line(value)[:limit].rstrip() if isinstance(value, str) else ""


def _objects(answer: str) -> Iterator[JsonObject]:
    for candidate in (answer, *_FENCE.findall(answer)):
        if (found := _decode(candidate.strip(), 0)) is not None:
            yield found[0]
    start = answer.find("{")
    for _ in range(_MAX_SCANS):
        if start < 0:
            return
        found = _decode(answer, start)
        if found is not None:
            yield found[0]
        start = answer.find("{", found[1] if found else start + 1)


def _decode(text: str, start: int) -> tuple[JsonObject, int] | None:
    """The object that begins at `start`, and where it ends."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return (value, end) if isinstance(value, dict) else None
