"""Reflections on failures and tags on successes: the schemas of the replies, and their parsing.

A reflection has four keys: `error`, `fix`, `lessons` and `tags`. Replies are constrained by the schema, so
tolerant parsing is only needed for engines that cannot constrain and for replies that ran out of tokens.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from resd.chat import strip_thinking
from resd.context.entries import TAGS, Tag
from resd.context.parsing import JsonObject, Schema, closed_object, find_object, short_text
from resd.context.plausible import is_degenerate

MAX_LESSONS = 3
MAX_TAGS = 32
# In characters.
MAX_SENTENCE = 400  # error, fix
MAX_LESSON = 300

_TAG_PAIR = re.compile(
    r'"id"\s*:\s*"(?P<id>[a-z]{3,4}-\d{5,})"\s*,\s*"tag"\s*:\s*"(?P<tag>\w+)"'
    r'|"tag"\s*:\s*"(?P<tag2>\w+)"\s*,\s*"id"\s*:\s*"(?P<id2>[a-z]{3,4}-\d{5,})"'
)


@dataclass(frozen=True, slots=True)
class Tags:
    """Tags by entry id, the last one per id. `unknown` counts tags of an unknown entry or kind."""

    by_id: Mapping[str, Tag] = field(default_factory=dict)
    unknown: int = 0
    parsed: bool = True


@dataclass(frozen=True, slots=True)
class Reflection:
    """The model's reflection on one failure. `raw` is the reply without thinking.

    `lessons_rejected` counts degenerate lessons, which are excluded from `lessons`.
    """

    error: str
    fix: str
    lessons: tuple[str, ...]
    tags: Tags
    raw: str
    parsed: bool = True
    lessons_rejected: int = 0


# What remains of a degenerate reply: nothing to show to the teacher or the curator, and no tags.
_NOTHING = Reflection("", "", (), Tags(parsed=False), "", parsed=False)


def tags_schema(entry_ids: Sequence[str]) -> Schema:
    """The schema of the success tagger: {"tags": [{"id", "tag"}]}."""
    return closed_object({"tags": _tag_list(entry_ids)})


def reflection_schema(
    entry_ids: Sequence[str], *, max_lessons: int = MAX_LESSONS, max_sentence: int = MAX_SENTENCE
) -> Schema:
    """The schema of a reflection on a prompt that showed the entries `entry_ids`."""
    sentence = {"type": "string", "maxLength": max_sentence}
    lesson = {"type": "string", "maxLength": MAX_LESSON}
    lessons = {"type": "array", "items": lesson, "maxItems": max_lessons}
    return closed_object(
        {"error": sentence, "fix": sentence, "lessons": lessons, "tags": _tag_list(entry_ids)}
    )


def parse_reflection(text: str, entry_ids: Collection[str]) -> Reflection:
    """Parse a reply. Never raises; without JSON, only the raw text and any tags found in it are kept.

    Nothing is kept of a degenerate reply (its error, its fix, or the whole text if it is not JSON).
    """
    raw = strip_thinking(text)
    tags = parse_tags(text, entry_ids)
    found = find_object(text, ("error", "fix", "lessons"))
    if found is None:
        return _NOTHING if is_degenerate(raw) else Reflection("", "", (), tags, raw, parsed=False)
    error, fix = (short_text(found.get(key), MAX_SENTENCE) for key in ("error", "fix"))
    if is_degenerate(error) or is_degenerate(fix):
        return _NOTHING
    lessons = _lessons(found)
    sound = tuple(lesson for lesson in lessons if not is_degenerate(lesson))
    return Reflection(error, fix, sound, tags, raw, lessons_rejected=len(lessons) - len(sound))


def parse_tags(text: str, entry_ids: Collection[str]) -> Tags:
    """Parse the tags of a reply, from (id, tag) pairs in the text if it is not JSON. Never raises."""
    found = find_object(text, ("tags",))
    if found is None:
        return _tags(_pairs_in(strip_thinking(text)), entry_ids, parsed=False)
    listed = found["tags"] if isinstance(found["tags"], list) else []
    pairs = [(item.get("id"), item.get("tag")) if isinstance(item, dict) else (None, None) for item in listed]
    return _tags(pairs, entry_ids, parsed=True)


def render_reflection(reflection: Reflection) -> str:
    """The reflection as the teacher and the curator see it; the raw reply if it could not be parsed."""
    if not reflection.parsed:
        return reflection.raw
    if not (reflection.error or reflection.fix or reflection.lessons):
        return ""
    lessons = (f"Lesson: {lesson}" for lesson in reflection.lessons)
    return "\n".join([f"Error: {reflection.error}", f"Fix: {reflection.fix}", *lessons])


def _tag_list(entry_ids: Sequence[str]) -> Schema:
    if not entry_ids:  # an enum may not be empty
        return {"type": "array", "items": {"type": "string"}, "maxItems": 0}
    item = closed_object({"id": {"enum": list(entry_ids)}, "tag": {"enum": list(TAGS)}})
    return {"type": "array", "items": item, "maxItems": min(len(entry_ids), MAX_TAGS)}


def _lessons(found: JsonObject) -> tuple[str, ...]:
    listed = found.get("lessons")
    texts = (short_text(item, MAX_LESSON) for item in listed) if isinstance(listed, list) else ()
    return tuple(text for text in texts if text)[:MAX_LESSONS]


def _pairs_in(text: str) -> list[tuple[str, str]]:
    matches = _TAG_PAIR.finditer(text)
    return [(match["id"] or match["id2"], match["tag"] or match["tag2"]) for match in matches]


def _tags(pairs: Sequence[tuple[Any, Any]], entry_ids: Collection[str], *, parsed: bool) -> Tags:
    by_id: dict[str, Tag] = {}
    unknown = 0
    for entry_id, tag in pairs:
        tag = tag.strip().lower() if isinstance(tag, str) else None
        if isinstance(entry_id, str) and entry_id in entry_ids and tag in TAGS:
            by_id[entry_id] = tag
        else:
            unknown += 1
    return Tags(by_id, unknown, parsed)
