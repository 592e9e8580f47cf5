"""Which entries a prompt does without, and that it fits then."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from context.fakes import CharTokenizer
from resd.context.entries import Entry
from resd.context.fitting import PromptBuilder
from resd.context.prompts import style
from resd.context.retrieval import least_relevant_first


def entry(number: int, content: str, **counts: int) -> Entry:
    return Entry(f"misc-{number:05d}", "others", content, **counts)


def test_rare_shared_words_count_most() -> None:
    entries = [
        entry(1, "Check the units of pressure."),
        entry(2, "Check the sign of the charge."),
        entry(3, "Check the answer."),
    ]
    assert [e.id[-1] for e in least_relevant_first(entries, "the PRESSURE of a gas")] == ["3", "2", "1"]


def test_without_shared_words_votes_and_then_age_decide() -> None:
    entries = [entry(1, "a"), entry(2, "b", helpful=3), entry(3, "c", harmful=1), entry(4, "d")]
    assert [e.id[-1] for e in least_relevant_first(entries, "")] == ["3", "1", "4", "2"]


@given(st.lists(st.text(max_size=20), max_size=8), st.text(max_size=30))
def test_nothing_is_lost(contents: list[str], text: str) -> None:
    entries = [entry(i, content) for i, content in enumerate(contents, 1)]
    ordered = least_relevant_first(entries, text)
    assert sorted(ordered, key=lambda e: e.id) == entries


def test_a_full_prompt_keeps_what_matters_in_its_order() -> None:
    entries = [entry(i, f"filler {'x' * 60}") for i in range(1, 6)]
    entries[0] = entry(1, "Mind the voltage of the lamp.")
    entries[3] = entry(4, "A lamp takes current.")
    old, relevant = (
        PromptBuilder(style("compact", "static_first"), CharTokenizer(), False, 300, by_relevance=by).build(
            "solve", {"problem": "What voltage has the lamp?"}, entries
        )
        for by in (False, True)
    )
    assert [e.id[-1] for e in old.entries] == ["3", "4", "5"], "the newest"
    assert [e.id[-1] for e in relevant.entries] == ["1", "4", "5"], "both about the lamp, and the newest"
    assert max(len(old.ids), len(relevant.ids)) <= 300
