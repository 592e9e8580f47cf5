"""CONCISE: which entries to remove from a playbook (arXiv 2605.12741, appendix D), as pure functions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from resd.context.credit import standing
from resd.context.entries import Entry
from resd.context.seeding import derive_seed

Method = Literal["reset", "prioritized", "staleness"]

# An unused entry is kept for this many updates: before that, no reflector can have tagged it.
PROTECTED_UPDATES = 2


def frequency_triggers(update_count: int, frequency: int | None) -> bool:
    """True at every `frequency`-th update, but not at the first."""
    return frequency is not None and update_count > 0 and update_count % frequency == 0


def removals(
    entries: Sequence[Entry], method: Method, update_count: int, budget: int | None
) -> tuple[str, ...]:
    """Ids to remove, in the order of the entries.

    `reset` removes all. The other methods remove entries tagged harmful at least as often as helpful, and
    entries left unused. If more than `budget` remain, they also remove the excess: `prioritized` at random,
    tagged entries first (the others have not had their chance yet); `staleness` the longest unused, ties at
    random. Measured credit overrides tags: an entry that it proves stays unless such entries alone exceed
    the budget. Randomness depends on `update_count` alone.
    """
    if method == "reset":
        return tuple(entry.id for entry in entries)
    survivors = [entry for entry in entries if _survives(entry, update_count)]
    if budget is not None and len(survivors) > budget:
        survivors = _expendable_first(survivors, method, update_count)[len(survivors) - budget :]
    kept = {entry.id for entry in survivors}
    return tuple(entry.id for entry in entries if entry.id not in kept)


def _survives(entry: Entry, update_count: int) -> bool:
    if standing(entry) == "proven":
        return True
    young = update_count - entry.last_used < PROTECTED_UPDATES
    return young if entry.unused else not entry.outweighed


def _expendable_first(survivors: list[Entry], method: Method, update_count: int) -> list[Entry]:
    shuffled = list(survivors)
    random.Random(derive_seed("concise", update_count)).shuffle(shuffled)
    if method == "prioritized":
        return sorted(shuffled, key=lambda entry: (standing(entry) == "proven", entry.unused))
    return sorted(shuffled, key=lambda entry: (standing(entry) == "proven", entry.last_used))
