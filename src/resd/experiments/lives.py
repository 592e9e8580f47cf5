"""How long wrong lessons live in a playbook, and how often a teacher is shown one. From playbook.jsonl."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from resd.context.credit import standing
from resd.context.entries import Entry, dedup_key
from resd.context.journal import Change
from resd.lab.rules import RULES

WRONG = frozenset(dedup_key(rule.wrong_lesson) for rule in RULES)


@dataclass
class WrongLessons:
    """The wrong lessons of one run. An update's teacher prompts show the playbook as of the update's end.

    `lives` are updates from each lesson's addition to its removal, or to the end of the run for the `left`,
    which come last.
    """

    updates: int = 0
    left: int = 0
    lives: list[int] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)  # wrong lessons in the teacher prompts, by update

    def summary(self) -> dict[str, Any]:
        return {
            "updates": self.updates,
            "added": len(self.lives),
            "left": self.left,
            "lives": self.lives,
            "updates_shown": sum(count > 0 for count in self.shown),
            "shown": sum(self.shown),
        }


def is_wrong(content: str) -> bool:
    """Whether it is one of the lab's lessons that teach a violation."""
    return dedup_key(content) in WRONG


def wrong_lessons(changes: Iterable[Change], *, withheld: bool) -> WrongLessons:
    """Replay the journal of one playbook. `withheld`: teachers are shown proven entries alone.

    A lesson that is removed and added again counts twice. One that is removed in the update that added it was
    never shown, and lived for 0 updates.
    """
    there: dict[str, Entry] = {}
    found = WrongLessons()
    for change in changes:
        match change:
            case {"op": "add", "id": id_, "section": section, "content": content} if is_wrong(content):
                there[id_] = Entry(id_, section, content, created=found.updates)
            case {"op": "credit", "id": id_, "values": values} if id_ in there:
                there[id_] = there[id_].credited(values)
            case {"op": "remove", "ids": ids}:
                gone = [there.pop(id_) for id_ in ids if id_ in there]
                found.lives += [found.updates - entry.created for entry in gone]
            case {"op": "advance"}:
                found.updates += 1
                taught = [e for e in there.values() if not withheld or standing(e) == "proven"]
                found.shown.append(len(taught))
    found.left = len(there)
    found.lives += [found.updates - entry.created for entry in there.values()]
    return found


def merged(playbooks: Iterable[WrongLessons]) -> WrongLessons:
    """Merge several playbooks; the updates of all of them are counted together."""
    total = WrongLessons()
    gone: list[int] = []
    left: list[int] = []
    for found in playbooks:
        total.updates += found.updates
        total.left += found.left
        total.shown += found.shown
        gone += found.lives[: len(found.lives) - found.left]
        left += found.lives[len(found.lives) - found.left :]
    total.lives = gone + left
    return total
