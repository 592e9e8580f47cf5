"""The playbook: lessons with stable ids in a stable order, modified only by journalled changes.

Ids only grow and are never reused, and entries keep their order of arrival: readers of a playbook rely on
both (re-ordering alone took prototype runs from .9 to .2 success).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from resd.context import concise, journal
from resd.context.credit import standing
from resd.context.entries import (
    SECTION_KEYS,
    TAGS,
    Entry,
    Statistics,
    dedup_key,
    find_section,
    one_line,
    render_entries,
    statistics,
)
from resd.context.journal import Change
from resd.records import ResdError

__all__ = ["Entry", "Playbook", "load_playbooks"]

REFUTED = "refuted"  # reason of removal for entries that must not come back


class Playbook:
    """Entries by id. Every change goes through `_commit`, so replaying the journal restores the state."""

    def __init__(self) -> None:
        self.next_number = 1
        self.update_count = 0
        self.merged = 0
        self._entries: dict[str, Entry] = {}
        self._refuted: set[str] = set()  # dedup keys
        self._ids: dict[str, str] = {}  # dedup key -> id
        self._changes: list[Change] = []

    @classmethod
    def load(cls, path: str | Path) -> Playbook:
        """Replay a journal. Raises ResdError, naming file and line, if it cannot be replayed."""
        playbooks = load_playbooks(path)
        if set(playbooks) - {""}:
            raise ResdError(f"journal {path}: holds one playbook per problem; read it with load_playbooks")
        return playbooks.get("", cls())

    @classmethod
    def from_state(cls, state: Change) -> Playbook:
        """Restore a playbook from `state`; its history counts as already written."""
        playbook = cls()
        playbook._commit({"op": "state", **state})
        return playbook

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The entries in order of arrival."""
        return tuple(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, content: str) -> str | None:
        """The id of the entry with this content, up to white space, case and punctuation."""
        return self._ids.get(dedup_key(content))

    def add(self, section: str, content: str) -> str:
        """Add a lesson as one line and return its id; for a duplicate, the id that it merges with.

        Raises ValueError for blank content.
        """
        text = one_line(content)
        if not text:
            raise ValueError("a playbook entry needs text")
        if (existing := self.find(text)) is not None:
            self._commit({"op": "merge", "id": existing})
            return existing
        home = find_section(section)
        entry_id = f"{home.slug}-{self.next_number:05d}"
        self._commit({"op": "add", "id": entry_id, "section": home.key, "content": text})
        return entry_id

    def tag(self, entry_id: object, tag: object) -> bool:
        """Count a tag on an entry. Returns False and changes nothing if the id or tag is unknown."""
        if not isinstance(entry_id, str) or entry_id not in self._entries or tag not in TAGS:
            return False
        if tag != "neutral":
            self._commit({"op": "tag", "id": entry_id, "tag": tag})
        return True

    def credit(self, entry_id: str, values: Sequence[float]) -> None:
        """Add measured credit, in nats. Raises KeyError for an unknown id."""
        self._commit({"op": "credit", "id": entry_id, "values": list(values)})

    def refute(self) -> tuple[str, ...]:
        """Permanently remove entries with decisively negative credit; returns the removed ids."""
        removed = tuple(entry.id for entry in self.entries if standing(entry) == "refuted")
        if removed:
            self._commit({"op": "remove", "ids": list(removed), "method": REFUTED})
        return removed

    def was_refuted(self, content: str) -> bool:
        """Whether a lesson with this content was removed for its credit."""
        return dedup_key(content) in self._refuted

    def concise(self, method: concise.Method, budget: int | None) -> tuple[str, ...]:
        """Remove the entries that `concise.removals` chooses; returns the removed ids."""
        removed = concise.removals(self.entries, method, self.update_count, budget)
        if removed:
            self._commit({"op": "remove", "ids": list(removed), "method": method})
        return removed

    def advance(self) -> None:
        """Count one context update."""
        self._commit({"op": "advance"})

    def render(self, *, counts: bool = True, headers: bool = True) -> str:
        """The playbook as prompt text; "" when empty."""
        return render_entries(self.entries, counts=counts, headers=headers)

    def statistics(self) -> Statistics:
        return statistics(self.entries)

    def state(self) -> Change:
        """The whole state, as JSON-serializable data."""
        return {
            "next_number": self.next_number,
            "update_count": self.update_count,
            "merged": self.merged,
            "refuted": sorted(self._refuted),
            "entries": [asdict(entry) for entry in self.entries],
        }

    def save(self, path: str | Path) -> None:
        """Write the journal atomically: all changes, or the state first if earlier ones were drained."""
        journal.write(path, self._changes)

    def drain(self) -> list[Change]:
        """The changes since the last drain, to append to the run's journal."""
        skip = 1 if self._changes and self._changes[0]["op"] == "state" else 0
        drained = self._changes[skip:]
        if drained:
            self._changes = [{"op": "state", **self.state()}]
        return drained

    def _commit(self, change: Change) -> None:
        self._apply(change)
        self._changes.append(change)

    def _apply(self, change: Change) -> None:
        """Raises KeyError, TypeError or ValueError for a change that does not fit the state."""
        handlers: dict[str, Callable[[Change], None]] = {
            "add": self._apply_add,
            "merge": self._apply_merge,
            "tag": self._apply_tag,
            "credit": self._apply_credit,
            "remove": self._apply_remove,
            "advance": self._apply_advance,
            "state": self._apply_state,
        }
        handlers[change["op"]](change)

    def _apply_add(self, change: Change) -> None:
        slug, _, number = change["id"].rpartition("-")
        if change["section"] not in SECTION_KEYS or slug != find_section(change["section"]).slug:
            raise ValueError("id and section do not agree")
        if int(number) != self.next_number:
            raise ValueError(f"the next entry has number {self.next_number}")
        now = self.update_count
        self._keep(Entry(change["id"], change["section"], change["content"], created=now, last_used=now))
        self.next_number += 1

    def _apply_merge(self, change: Change) -> None:
        self._entries[change["id"]]  # raises KeyError if the entry is missing
        self.merged += 1

    def _apply_tag(self, change: Change) -> None:
        entry = self._entries[change["id"]]
        if change["tag"] not in ("helpful", "harmful"):
            raise ValueError("unknown tag")
        helpful = change["tag"] == "helpful"
        self._entries[entry.id] = replace(
            entry,
            helpful=entry.helpful + helpful,
            harmful=entry.harmful + (not helpful),
            last_used=self.update_count,
        )

    def _apply_credit(self, change: Change) -> None:
        values = [float(value) for value in change["values"]]
        self._entries[change["id"]] = self._entries[change["id"]].credited(values)

    def _apply_remove(self, change: Change) -> None:
        for entry_id in change["ids"]:
            key = dedup_key(self._entries.pop(entry_id).content)
            self._ids.pop(key, None)
            if change.get("method") == REFUTED:
                self._refuted.add(key)

    def _apply_advance(self, change: Change) -> None:
        self.update_count += 1

    def _apply_state(self, change: Change) -> None:
        entries = [
            Entry(**{field.name: entry[field.name] for field in fields(Entry) if field.name in entry})
            for entry in change["entries"]
        ]
        self.next_number, self.update_count = int(change["next_number"]), int(change["update_count"])
        self.merged = int(change["merged"])
        self._refuted = set(change.get("refuted", ()))
        self._entries, self._ids = {}, {}
        for entry in entries:
            self._keep(entry)

    def _keep(self, entry: Entry) -> None:
        self._ids[dedup_key(entry.content)] = entry.id
        self._entries[entry.id] = entry


def load_playbooks(path: str | Path) -> dict[str, Playbook]:
    """All playbooks of a run's journal by problem id; "" is the global one. Raises ResdError like `load`."""
    playbooks: dict[str, Playbook] = {}
    for number, change in journal.read(path):
        name: Any = change.pop("playbook", "")
        if not isinstance(name, str):
            raise journal.corrupt(path, number, "the playbook's name is not text")
        try:
            playbooks.setdefault(name, Playbook())._commit(change)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise journal.corrupt(path, number, f"does not fit the playbook so far ({error!r})") from error
    return playbooks
