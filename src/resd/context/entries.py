"""The contents of a playbook: sections, entries, their prompt text, and statistics. No mutable state."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

Tag = Literal["helpful", "harmful", "neutral"]
TAGS: tuple[Tag, ...] = ("helpful", "harmful", "neutral")


@dataclass(frozen=True, slots=True)
class Section:
    """A fixed section of the playbook. The ids of its entries start with `slug`."""

    key: str
    slug: str
    title: str


SECTIONS: tuple[Section, ...] = (
    Section("strategies_and_insights", "sai", "STRATEGIES & INSIGHTS"),
    Section("formulas_and_calculations", "calc", "FORMULAS & CALCULATIONS"),
    Section("code_snippets_and_templates", "code", "CODE SNIPPETS & TEMPLATES"),
    Section("common_mistakes_to_avoid", "err", "COMMON MISTAKES TO AVOID"),
    Section("problem_solving_heuristics", "prob", "PROBLEM-SOLVING HEURISTICS"),
    Section("context_clues_and_indicators", "ctx", "CONTEXT CLUES & INDICATORS"),
    Section("others", "misc", "OTHERS"),
)
SECTION_KEYS: tuple[str, ...] = tuple(section.key for section in SECTIONS)
OTHERS = SECTIONS[-1]

_QUOTES = "'\"`\u2018\u2019\u201c\u201d"


@dataclass(frozen=True, slots=True)
class Entry:
    """One lesson. `created` and `last_used` are update counts; helpful and harmful tags count as use."""

    id: str
    section: str
    content: str
    helpful: int = 0
    harmful: int = 0
    created: int = 0
    last_used: int = 0
    # Measurements of `credit.py`: their count, sum in nats, and sum of squares.
    measured: int = 0
    credit: float = 0.0
    credit_squares: float = 0.0

    @property
    def unused(self) -> bool:
        return self.helpful + self.harmful == 0

    @property
    def outweighed(self) -> bool:
        """Whether it was tagged harmful at least as often as helpful."""
        return 0 < self.harmful >= self.helpful

    def credited(self, values: Sequence[float]) -> Entry:
        """A copy with these measurements added."""
        return replace(
            self,
            measured=self.measured + len(values),
            credit=self.credit + sum(values),
            credit_squares=self.credit_squares + sum(value * value for value in values),
        )


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts of a playbook. Each entry is in at most one of the three classes, tested in this order."""

    total: int
    high_performing: int  # helpful > 5 and harmful < 2
    problematic: int  # harmful >= helpful, harmful > 0
    unused: int
    by_section: dict[str, dict[str, int]]  # key -> count, helpful, harmful; sections in use only


def find_section(name: str) -> Section:
    """Find a section by any spelling of its key, title, slug or leading words; OTHERS if none matches."""
    words = _section_words(name)
    for section in SECTIONS:
        if words and (words == _section_words(section.key)[: len(words)] or words == [section.slug]):
            return section
    return OTHERS


def one_line(text: str) -> str:
    """Collapse white space and line ends to single spaces; replace what UTF-8 cannot encode by "?"."""
    return " ".join(text.encode("utf-8", "replace").decode().split())


def dedup_key(content: str) -> str:
    """A key that ignores white space, case, quotation marks and punctuation at the end of words.

    Operators are kept: "use x != 0" and "use x = 0" are different lessons.
    """
    words = unicodedata.normalize("NFKC", one_line(content)).casefold().split()
    return " ".join(word.lstrip(_QUOTES).rstrip(_QUOTES + ".,;:!?") or word for word in words)


def render_entries(entries: Sequence[Entry], *, counts: bool, headers: bool) -> str:
    """The entries as prompt text, in order; with headers, grouped by section.

    Empty sections are left out: the curator learns all section names from its instruction and schema, and
    seven bare headers would make an empty playbook look full.
    """
    if not headers:
        return "\n".join(_line(entry, counts) for entry in entries)
    blocks = []
    for section in SECTIONS:
        lines = [_line(entry, counts) for entry in entries if entry.section == section.key]
        if lines:
            blocks.append("\n".join([f"## {section.title}", *lines]))
    return "\n\n".join(blocks)


def statistics(entries: Iterable[Entry]) -> Statistics:
    """Count the entries by usefulness and by section."""
    classes = {"high": 0, "problematic": 0, "unused": 0, "": 0}
    by_section: dict[str, dict[str, int]] = {}
    for entry in entries:
        classes[_usefulness(entry)] += 1
        counts = by_section.setdefault(entry.section, {"count": 0, "helpful": 0, "harmful": 0})
        counts["count"] += 1
        counts["helpful"] += entry.helpful
        counts["harmful"] += entry.harmful
    total = sum(classes.values())
    ordered = {key: by_section[key] for key in SECTION_KEYS if key in by_section}
    return Statistics(total, classes["high"], classes["problematic"], classes["unused"], ordered)


def render_statistics(stats: Statistics) -> str:
    """The statistics as one line of JSON, for the curator."""
    return json.dumps(asdict(stats))


def _section_words(name: str) -> list[str]:
    words: list[str] = re.findall(r"[^\W_]+", name.casefold())
    return [word for word in words if word != "and"]


def _line(entry: Entry, counts: bool) -> str:
    book = f" helpful={entry.helpful} harmful={entry.harmful} ::" if counts else ""
    return f"[{entry.id}]{book} {entry.content}"


def _usefulness(entry: Entry) -> str:
    if entry.helpful > 5 and entry.harmful < 2:
        return "high"
    if entry.outweighed:
        return "problematic"
    return "unused" if entry.unused else ""
