"""Curation: the schema of the curator's operations, and their parsing and validation."""

from __future__ import annotations

from dataclasses import dataclass

from resd.context.entries import SECTION_KEYS
from resd.context.parsing import Schema, closed_object, find_object, short_text
from resd.context.plausible import is_degenerate

MAX_OPERATIONS = 3
MAX_CONTENT = 300  # characters


@dataclass(frozen=True, slots=True)
class Addition:
    """Add `content` to the section named `section`, in any spelling."""

    section: str
    content: str


@dataclass(frozen=True, slots=True)
class Curation:
    """The valid operations of one reply; `rejected` counts the others, including degenerate content."""

    additions: tuple[Addition, ...]
    rejected: int = 0
    parsed: bool = True


def curation_schema() -> Schema:
    """The schema of {"operations": [{"type": "ADD", "section", "content"}]}."""
    properties = {
        "type": {"const": "ADD"},
        "section": {"enum": list(SECTION_KEYS)},
        "content": {"type": "string", "maxLength": MAX_CONTENT},
    }
    operation = closed_object(properties)
    return closed_object({"operations": {"type": "array", "items": operation, "maxItems": MAX_OPERATIONS}})


def parse_curation(text: str) -> Curation:
    """Parse a reply. Never raises: invalid operations and those beyond the limit are counted and skipped."""
    found = find_object(text, ("operations",))
    listed = found["operations"] if found else None
    if not isinstance(listed, list):
        return Curation((), parsed=False)
    additions = [addition for item in listed if (addition := _addition(item)) is not None][:MAX_OPERATIONS]
    return Curation(tuple(additions), rejected=len(listed) - len(additions))


def _addition(item: object) -> Addition | None:
    if not isinstance(item, dict):
        return None
    kind, section = item.get("type"), item.get("section")
    content = short_text(item.get("content"), MAX_CONTENT)
    if (
        not isinstance(kind, str)
        or kind.strip().upper() != "ADD"
        or not isinstance(section, str)
        or not content
        or is_degenerate(content)
    ):
        return None
    return Addition(section, content)
