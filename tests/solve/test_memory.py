"""Prompts of multi-turn work: their words, and what gives way when they are too long."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resd.context import prompts
from resd.context.fitting import PromptBuilder
from resd.records import Attempt, Problem, Response, Verdict
from resd.solve.memory import Memory, Turn
from support import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
PROBLEM = Problem(
    "p", ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why? Oh, why?"})
)
TURNS = (Turn("Because.", "No."), Turn("For <R> reasons.", "Not at all."))


def memory(kind: Any, style: str = "compact", max_tokens: int = 10_000) -> Memory:
    builder = PromptBuilder(prompts.style(style), TOKENIZER, thinking=False, max_tokens=max_tokens)
    return Memory(kind, builder, remove_thinking=True)


def text(made: Memory, turns: tuple[Turn, ...]) -> str:
    return str(TOKENIZER.decode(list(made.fit(PROBLEM, turns)[0]), skip_special_tokens=False))


@pytest.mark.parametrize("kind", ["feedback", "dialogue"])
def test_the_first_attempt_is_asked_the_question(kind: str) -> None:
    assert text(memory(kind), ()) == "<|system|>Be brief.<|end|><|user|>Why? Oh, why?<|end|><|assistant|>"


def test_feedback_alone_is_one_message() -> None:
    assert text(memory("feedback"), TURNS) == (
        "<|system|>Be brief.<|end|><|user|>Solve the task.\nTask:\nWhy? Oh, why?\nFeedback:\nNo.\n"
        "Not at all.<|end|><|assistant|>"
    )


def test_the_dialogue_is_the_whole_chat() -> None:
    assert text(memory("dialogue"), TURNS) == (
        "<|system|>Be brief.<|end|><|user|>Why? Oh, why?<|end|>"
        "<|assistant|>Because.<|end|><|user|>Feedback:\nNo.\nSolve the task.<|end|>"
        "<|assistant|>For <R> reasons.<|end|><|user|>Feedback:\nNot at all.\nSolve the task.<|end|>"
        "<|assistant|>"
    )


@pytest.mark.parametrize("kind", ["feedback", "dialogue"])
def test_real_models_are_asked_again_at_the_end(kind: str) -> None:
    closing = prompts.style("full").closing["solve"]
    assert text(memory(kind, "full"), TURNS).endswith(f"{closing}<|end|><|assistant|>")


def test_an_attempt_without_feedback_leaves_no_blank_behind() -> None:
    silent = (Turn("Because.", ""),)
    assert "Feedback" not in text(memory("dialogue"), silent)
    assert text(memory("dialogue"), silent).endswith("<|user|>Solve the task.<|end|><|assistant|>")
    assert "Feedback" not in text(memory("feedback"), silent)
    assert text(memory("feedback"), (*silent, *TURNS)) == text(memory("feedback"), TURNS)


def test_a_turn_quotes_the_answer_without_the_thought() -> None:
    response = Response("r", "<think>Hm.</think>Because.", (1,), (0.0,), "stop")
    attempt = Attempt(PROBLEM, 0, (1,), response, Verdict(0.0, 0, 1, "No."))
    assert memory("dialogue").turn(attempt) == Turn("Because.", "No.")


words = st.text("abc ", min_size=0, max_size=30)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["feedback", "dialogue"]),
    said=st.lists(st.tuples(words, words), max_size=8),
    limit=st.integers(1, 400),
)
def test_the_oldest_turns_go_first_and_the_question_never(
    kind: str, said: list[tuple[str, str]], limit: int
) -> None:
    turns = tuple(Turn(*pair) for pair in said)
    whole = memory(kind)
    lengths = [len(whole.fit(PROBLEM, turns[dropped:])[0]) for dropped in range(len(turns) + 1)]
    fewest = next((i for i, length in enumerate(lengths) if length <= limit), len(turns))
    cut = memory(kind, max_tokens=limit)
    ids, kept = cut.fit(PROBLEM, turns)
    assert tuple(kept) == turns[fewest:]
    assert len(ids) == lengths[fewest]
    assert "Why? Oh, why?" in TOKENIZER.decode(list(ids))
    assert cut.fit(PROBLEM, kept) == (ids, kept), "what is dropped once stays dropped"
