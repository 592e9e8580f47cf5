import pytest

from context.fakes import CharTokenizer
from resd.config import ContextConfig
from resd.context.playbook import Playbook
from resd.context.prompts import style
from resd.context.reflection import parse_reflection
from resd.context.teacher_prompt import TeacherPromptComposer
from resd.records import Problem

PROBLEM = Problem("p", ({"role": "system", "content": "SYS"}, {"role": "user", "content": "the question"}))
REFLECTION = parse_reflection('{"error": "an error", "fix": "a fix", "lessons": ["a lesson"]}', ())


def composer(wording="compact", **switches):
    config = ContextConfig(style=wording, **switches)
    return TeacherPromptComposer(config, style(wording, config.order), CharTokenizer(), True)


def playbook():
    book = Playbook()
    book.add("others", "remember this")
    return book


def compose(wording="compact", **switches):
    return composer(wording, **switches).compose(
        PROBLEM, entries=playbook().entries, trial="<think>hm</think>```\nprogram\n```", feedback="wrong",
        reflection=REFLECTION, solution="<think>ah</think>right",
    )  # fmt: skip


def test_the_compact_prompt_in_full():
    prompt = compose()
    assert prompt.text == (
        "Solve the task.\nPlaybook:\n[misc-00001] remember this\nTask:\nthe question\n"
        "Attempt:\n```\nprogram\n```\nFeedback:\nwrong\n"
        "Reflection:\nError: an error\nFix: a fix\nLesson: a lesson\n"
        "Solution:\nright"
    )
    assert prompt.dropped == ()
    assert prompt.sections == ("playbook", "problem", "trial", "feedback", "reflection", "solution")
    assert CharTokenizer().decode(prompt.ids) == f"<system>SYS<user>{prompt.text}<assistant>"


@pytest.mark.parametrize("part", ["playbook", "trial", "feedback", "reflection", "solution"])
def test_each_part_has_a_switch(part):
    shown = compose().sections
    assert compose(**{f"use_{part}": False}).sections == tuple(name for name in shown if name != part)


def test_feedback_beside_a_solution():
    assert "feedback" not in compose(drop_feedback_with_solution=True).sections
    assert "feedback" in compose(drop_feedback_with_solution=True, use_solution=False).sections


def test_nothing_to_show_is_no_prompt():
    assert composer().compose(PROBLEM) is None
    assert composer().compose(PROBLEM, entries=(), trial="<think></think>") is None
    silent = parse_reflection('{"error": "", "fix": "", "lessons": []}', ())
    assert composer().compose(PROBLEM, reflection=silent) is None
    assert composer(max_prompt_tokens=16).compose(PROBLEM, trial="x" * 100) is None


def test_what_was_cut_is_named():
    prompt = composer(max_prompt_tokens=150).compose(
        PROBLEM, entries=playbook().entries, trial="x" * 300, feedback="wrong"
    )
    assert prompt.dropped == ("playbook", "trial")
    assert len(prompt.ids) <= 150


def test_the_full_wording_names_what_it_shows():
    text = compose("full").text
    assert text.index("## OTHERS") < text.index("# Problem") < text.index("# Previous attempt")
    assert "[misc-00001] helpful=0 harmful=0 :: remember this" in text
