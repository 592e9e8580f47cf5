from dataclasses import replace

import pytest

from context.fakes import CharTokenizer
from resd.context.entries import Entry
from resd.context.fitting import CUT_MARK, UNFINISHED, PromptBuilder
from resd.context.prompts import COMPACT

ENTRIES = tuple(Entry(f"misc-{i:05d}", "others", f"lesson {i}") for i in range(1, 6))
SECTIONS = {"problem": "Q" * 30, "trial": "a" * 40 + "b" * 40, "feedback": "c" * 40 + "d" * 40}
MESSAGES = ({"role": "system", "content": "SYS"}, {"role": "user", "content": "old question"})


def build(max_tokens, role="reflect", entries=ENTRIES, style=COMPACT):
    builder = PromptBuilder(style, CharTokenizer(), True, max_tokens)
    return builder.build(role, SECTIONS, entries, MESSAGES)


FULL_LENGTH = len(build(10_000).ids)


def test_a_prompt_that_fits_is_not_touched():
    prompt = build(FULL_LENGTH)
    assert prompt.cut == ()
    assert prompt.entries == ENTRIES
    assert CharTokenizer().decode(prompt.ids) == f"<system>SYS<user>{prompt.text}<assistant>"
    assert "old question" not in prompt.text


@pytest.mark.parametrize("limit", range(20, FULL_LENGTH, 7))
def test_what_is_cut_and_in_which_order(limit):
    prompt = build(limit)
    text = CharTokenizer().decode(prompt.ids)
    assert SECTIONS["problem"] in text
    assert COMPACT.instructions["reflect"] in text
    assert text.startswith("<system>SYS<user>")
    assert text.endswith("<assistant>")
    assert prompt.cut == ("playbook", "trial", "feedback")[: len(prompt.cut)], "in order, from the first"
    assert prompt.entries == ENTRIES[len(ENTRIES) - len(prompt.entries) :], "the oldest go first"
    if len(prompt.ids) > limit:
        assert prompt.shown == ("problem",)
    if "trial" in prompt.cut:
        assert prompt.entries == ()
    if "trial" in prompt.cut and "feedback" not in prompt.cut and "trial" in prompt.shown:
        trial = prompt.text.split("Attempt:\n")[1].split("\nFeedback:")[0]
        head, tail = trial.split(CUT_MARK)
        assert SECTIONS["trial"].startswith(head)
        assert SECTIONS["trial"].endswith(tail)


def test_cutting_takes_as_little_as_it_can():
    entry_length = len("[misc-00001] lesson 1\n")
    assert len(build(FULL_LENGTH - 1).entries) == 4
    assert len(build(FULL_LENGTH - entry_length - 1).entries) == 3


def test_an_empty_playbook_is_said_to_be_empty_but_not_to_the_solver():
    assert "(empty)" in build(10_000, entries=()).text
    assert "Playbook" not in build(10_000, role="solve", entries=()).text
    assert "playbook" not in build(100, entries=()).cut


def test_static_sections_come_first_unless_as_released():
    assert build(10_000).shown == ("playbook", "problem", "trial", "feedback")
    released = build(10_000, style=replace(COMPACT, order="as_released")).text
    assert released.index("Task:") < released.index("Playbook:")


@pytest.mark.parametrize(("opens", "text", "kept", "removed"), [
    (False, "plain", "plain", "plain"),
    (False, "<think>hmm</think>\n\nplain", "hmm\n\nplain", "plain"),
    (True, "hmm</think>plain", "hmm\n\nplain", "plain"),
    (False, "<think>hmm", f"{UNFINISHED}\nhmm", f"{UNFINISHED}\nhmm"),
    (True, "hmm", f"{UNFINISHED}\nhmm", f"{UNFINISHED}\nhmm"),
    (True, "<think>hmm", f"{UNFINISHED}\nhmm", f"{UNFINISHED}\nhmm"),
    (False, "", "", ""),
])  # fmt: skip
def test_how_a_response_is_quoted(opens, text, kept, removed):
    builder = PromptBuilder(COMPACT, CharTokenizer(opens), True, 400)
    assert builder.answer(text, remove_thinking=False) == kept
    assert builder.answer(text, remove_thinking=True) == removed


def test_the_end_of_a_long_thought_is_quoted_within_its_share():
    builder = PromptBuilder(COMPACT, CharTokenizer(True), True, 400)
    thought = "x" * 500 + "y" * 90
    assert builder.answer(thought, remove_thinking=True) == f"{UNFINISHED}\n[...] {'x' * 10}{'y' * 90}"
    assert builder.answer(f"{thought}</think>{'z' * 700}", remove_thinking=False).endswith(
        "y\n\n" + "z" * 700
    )


def test_the_reply_of_an_unfinished_thought_is_empty():
    assert PromptBuilder(COMPACT, CharTokenizer(True), True, 400).reply('thinking {"error": "x"}') == ""
    assert PromptBuilder(COMPACT, CharTokenizer(), True, 400).reply('{"error": "x"}') == '{"error": "x"}'


def test_with_a_real_tokenizer():
    pytest.importorskip("transformers")
    from support import tiny_tokenizer

    builder = PromptBuilder(COMPACT, tiny_tokenizer(), False, 120)
    prompt = builder.build("reflect", SECTIONS, ENTRIES)
    assert len(prompt.ids) <= 120
    assert prompt.cut == ("playbook", "trial", "feedback")
    assert CUT_MARK in prompt.text
