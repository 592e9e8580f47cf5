import json

import pytest

from resd.context.concise import frequency_triggers, removals
from resd.context.entries import Entry

GOLDEN = [(1, 3, 0, 2), (2, 0, 0, 5), (3, 1, 1, 7), (4, 0, 2, 7), (5, 5, 4, 6), (6, 0, 0, 7), (7, 1, 0, 4)]
UPDATE = 8


def entries(rows):
    return [Entry(f"misc-{i:05d}", "others", str(i), h, d, used, used) for i, h, d, used in rows]


def survivors(rows, method, budget, update_count=UPDATE):
    removed = removals(entries(rows), method, update_count, budget)
    return {row[0] for row in rows if f"misc-{row[0]:05d}" not in removed}


@pytest.mark.parametrize(("method", "budget", "left"), [
    ("prioritized", None, {1, 5, 6, 7}),  # as released: {1, 5, 7}, the young entry 6 is lost
    ("staleness", None, {1, 5, 6, 7}),
    ("staleness", 3, {5, 6, 7}),
    ("staleness", 2, {5, 6}),
    ("reset", None, set()),
])  # fmt: skip
def test_golden_vector_11(method, budget, left):
    assert survivors(GOLDEN, method, budget) == left


def test_the_golden_entries_are_those_of_the_reference(shared):
    golden = json.loads((shared / "spec" / "golden.json").read_text())["V11_concise_as_released"]
    assert golden["update_count"] == UPDATE
    assert [
        tuple(entry[k] for k in ("id", "helpful", "harmful", "last_used")) for entry in golden["entries"]
    ] == GOLDEN


def test_prioritized_spares_the_young_and_draws_among_the_proven():
    rows = [(i, 1, 0, 0) for i in range(1, 11)] + [(11, 0, 0, 7), (12, 0, 0, 8)]
    kept = survivors(rows, "prioritized", 6)
    assert len(kept) == 6
    assert {11, 12} <= kept
    assert survivors(rows, "prioritized", 6) == kept, "the draw depends on the update count alone"
    assert len({frozenset(survivors(rows, "prioritized", 6, update)) for update in range(9, 12)}) > 1
    assert len(survivors(rows, "prioritized", 1)) == 1


def test_staleness_breaks_ties_at_random_but_reproducibly():
    rows = [(i, 1, 0, 5) for i in range(1, 11)]
    draws = [frozenset(survivors(rows, "staleness", 5, update)) for update in (8, 8, 9, 10)]
    assert draws[0] == draws[1]
    assert len(set(draws)) > 1


def test_removals_are_listed_in_the_order_of_the_entries():
    removed = removals(entries(GOLDEN), "staleness", UPDATE, 2)
    assert list(removed) == sorted(removed)


def test_frequency():
    assert [u for u in range(10) if frequency_triggers(u, 4)] == [4, 8]
    assert not frequency_triggers(4, None)
