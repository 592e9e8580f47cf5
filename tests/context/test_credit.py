"""Credit by contrasts, against formulas written out; and a playbook that heals by it."""

from __future__ import annotations

import statistics
from dataclasses import replace
from math import sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context.fakes import CharTokenizer, attempt
from resd.context.concise import removals
from resd.context.credit import MAX_CONTRASTS, CreditMeter, standing
from resd.context.entries import Entry
from resd.context.fitting import PromptBuilder
from resd.context.playbook import Playbook, load_playbooks
from resd.context.prompts import style

ENTRIES = [Entry(f"misc-0000{i}", "others", text) for i, text in enumerate(("true", "wrong", "other"), 1)]


class Teacher:
    """Prefers "good" over "bad" by as many nats as its prompt's lessons say, and likes long prompts."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def __call__(self, pairs: Any) -> list[float]:
        texts = [("".join(map(chr, prompt)), "".join(map(chr, reply))) for prompt, reply in pairs]
        self.asked += texts
        return [self.logprob(*pair) for pair in texts]

    def logprob(self, prompt: str, reply: str) -> float:
        leaning = 3.0 * ("true" in prompt) - 2.0 * ("wrong" in prompt)
        return -10 + len(prompt) / 7 + leaning * (reply == "good")


def meter(teacher: Teacher, budget: int = 32) -> CreditMeter:
    builder = PromptBuilder(style("compact", "static_first"), CharTokenizer(), False, 10_000)
    return CreditMeter(builder, teacher, budget, seed=3)


def booked(values: list[float], **others: Any) -> Entry:
    squares = sum(value * value for value in values)
    return Entry(
        "misc-00001",
        "others",
        "text",
        measured=len(values),
        credit=sum(values),
        credit_squares=squares,
        **others,
    )


def test_credit_is_the_change_of_preference() -> None:
    teacher = Teacher()
    one = meter(teacher)
    assert one.contrasts([attempt("p", text="bad")], step=1) == []
    (contrast,) = one.contrasts([attempt("p", solved=True, text="good")], step=2)
    found = one.measure([contrast], ENTRIES)
    assert found == {
        "misc-00001": [pytest.approx(3.0)],
        "misc-00002": [pytest.approx(-2.0)],
        "misc-00003": [pytest.approx(0.0)],
    }
    plain, *shown = [prompt for prompt, reply in teacher.asked if reply == "good"]
    assert plain == "<user>question p<assistant>", "what the student is asked"
    assert all("question p" in prompt and "true" not in plain for prompt in shown)


def test_a_contrast_needs_both_and_their_batch() -> None:
    one = meter(Teacher())
    assert one.contrasts([attempt("p", solved=True), attempt("q", text="bad")], step=1) == []
    assert len(one.contrasts([attempt("q", solved=True)], step=2)) == 1
    one.contrasts([attempt("r", text="bad")], step=3)
    assert one.contrasts([attempt("q", solved=True)], step=4) == [], "its batch is over"


def test_the_failure_is_the_latest_and_may_be_a_peers() -> None:
    one = meter(Teacher())
    one.contrasts([attempt("p", text="old")], step=1)
    now = [attempt("p", text="new"), attempt("p", text="good", solved=True, sample=1)]
    (contrast,) = one.contrasts(now, step=2)
    assert "".join(map(chr, contrast.failed)) == "new"
    assert "".join(map(chr, contrast.solved)) == "good"


def test_few_contrasts_and_the_least_known_entries() -> None:
    teacher = Teacher()
    one = meter(teacher, budget=2 * MAX_CONTRASTS)
    names = "abcdefgh"
    one.contrasts([attempt(name, text="bad") for name in names], step=1)
    contrasts = one.contrasts([attempt(name, solved=True, text="good") for name in names], step=2)
    assert len(contrasts) == MAX_CONTRASTS
    known = [booked([1.0] * 9), *ENTRIES[1:]]
    assert set(one.measure(contrasts, known)) == {"misc-00002", "misc-00003"}, "the proven one can wait"
    assert len(teacher.asked) == 2 * MAX_CONTRASTS * 3
    assert one.measure([], known) == one.measure(contrasts, []) == {}


def test_the_budget_holds_whatever_the_contrasts() -> None:
    teacher = Teacher()
    one = meter(teacher, budget=1)
    one.contrasts([attempt(name, text="bad") for name in "abc"], step=1)
    contrasts = one.contrasts([attempt(name, solved=True, text="good") for name in "abc"], step=2)
    assert len(contrasts) == 3
    assert one.measure(contrasts, ENTRIES) == {"misc-00001": [pytest.approx(3.0)]}
    assert len(teacher.asked) == 2 * 2


def test_an_entry_without_room_has_no_credit() -> None:
    """Not that of the words which stand around entries."""
    one = meter(Teacher())
    one._builder = replace(one._builder, max_tokens=20)
    one.contrasts([attempt("p", text="bad")], step=1)
    contrasts = one.contrasts([attempt("p", solved=True, text="good")], step=2)
    one._score = lambda pairs: [len(prompt) * len(reply) for prompt, reply in pairs]
    assert one.measure(contrasts, ENTRIES[:1]) == {"misc-00001": [0.0]}


@pytest.mark.parametrize("broken", [float("nan"), float("-inf")])
def test_what_is_not_finite_measures_nothing(broken: float) -> None:
    one = meter(Teacher())
    one.contrasts([attempt("p", text="bad")], step=1)
    contrasts = one.contrasts([attempt("p", solved=True, text="good")], step=2)
    one._score = lambda pairs: [-1.0, -1.0, broken, -1.0, -3.0, -1.0]
    assert one.measure(contrasts, ENTRIES[:2]) == {"misc-00002": [-2.0]}


def test_state_survives() -> None:
    first, second = meter(Teacher()), meter(Teacher())
    first.contrasts([attempt("p", text="bad")], step=1)
    second.load_state_dict(first.state_dict())
    solved = [attempt("p", solved=True, text="good")]
    assert second.contrasts(solved, step=2) == first.contrasts(solved, step=2) != []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], "open"),
        ([-9.0, -9.0, -9.0], "open"),  # too few
        ([-1.0, -1.2, -0.9, -1.1], "refuted"),
        ([1.0, 1.2, 0.9, 1.1], "proven"),
        ([0.0, -1.5, 0.0, 0.0], "open"),
        ([-0.01] * 50, "open"),  # agrees to the last digit, and is nothing
        ([0.0, -1.5] * 4, "refuted"),
    ],
)
def test_standing(values: list[float], expected: str) -> None:
    assert standing(booked(values)) == expected


@given(st.lists(st.floats(-20, 20), min_size=4, max_size=30))
def test_standing_is_the_mean_in_standard_errors(values: list[float]) -> None:
    error = max(statistics.stdev(values), 0.25) / sqrt(len(values))
    certainty = statistics.fmean(values) / error
    if abs(abs(certainty) - 2) > 1e-6:
        expected = "open" if abs(certainty) < 2 else "proven" if certainty > 0 else "refuted"
        assert standing(booked(values)) == expected


def test_a_refuted_lesson_goes_and_stays_away(tmp_path: Any) -> None:
    book = Playbook()
    wrong, right = book.add("others", "Leave out the END."), book.add("others", "Declare END.")
    book.credit(wrong, [-1.0] * 4)
    book.credit(right, [1.0, 2.0])
    book.credit(right, [1.5, 2.0])
    assert book.refute() == (wrong,)
    assert book.refute() == ()
    assert book.was_refuted("  leave out the end ")
    assert not book.was_refuted("Declare END.")
    book.save(tmp_path / "journal.jsonl")
    replayed, restored = load_playbooks(tmp_path / "journal.jsonl")[""], Playbook.from_state(book.state())
    for other in (replayed, restored):
        assert other.state() == book.state()
        assert other.was_refuted("Leave out the END.")


def test_states_from_before_credit_was_measured_load() -> None:
    state = Playbook().state()
    del state["refuted"]
    entry = {
        "id": "misc-00001",
        "section": "others",
        "content": "x",
        "helpful": 1,
        "harmful": 0,
        "created": 0,
        "last_used": 0,
    }
    book = Playbook.from_state({**state, "next_number": 2, "entries": [entry]})
    assert (book.entries[0].helpful, book.entries[0].measured) == (1, 0)


def test_votes_do_not_remove_what_is_proven() -> None:
    slandered = booked([1.0] * 5, harmful=9)
    rest = [
        replace(slandered, id=f"misc-0000{i}", measured=0, credit=0.0, credit_squares=0.0) for i in (2, 3)
    ]
    assert removals([slandered, *rest], "staleness", 10, None) == ("misc-00002", "misc-00003")
    useful = [replace(entry, helpful=20, last_used=10) for entry in rest]
    for method in ("staleness", "prioritized"):
        assert "misc-00001" not in removals([slandered, *useful], method, 10, 1)
