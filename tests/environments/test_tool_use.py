"""Tool use: reading calls, pairing them with those wanted, feedback."""

import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resd.environments import load
from resd.environments.base import KnowsSolutions
from resd.environments.tool_use import MAX_FEEDBACK, Call, ToolUse, paired, read_calls
from resd.records import Problem, ResdError, Response

DATA = Path(__file__).resolve().parents[2] / "../shared/data/tooluse"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the published rows are not here")

NESTED = {"id": 7, "profile": {"pictures": [{"url": "https://example.com/}"}], "public": True}}
GOLD = [("find", {"name": "Ann", "limit": 5}), ("update", NESTED)]


def row(*calls, **fields):
    answer = [{"Action": tool, "Action_Input": json.dumps(arguments)} for tool, arguments in calls]
    return {"prompt": "Tools: find, update.\nQuestion: Who?", "answer": json.dumps(answer), **fields}


def written(folder, *rows):
    file = folder / "test.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def said(*calls):
    return "\n".join(
        f"Thought: so.\nAction: {tool}\nAction Input: {json.dumps(arguments)}" for tool, arguments in calls
    )


def problem_of(*calls):
    target = tuple(
        {"tool": tool.removeprefix("[Optional]"), "arguments": arguments, "optional": tool.startswith("[")}
        for tool, arguments in calls
    )
    return Problem("p", (), {"task": "tool_use", "target": target})


def grade(reply, *calls, **options):
    return ToolUse(**options).grade(problem_of(*(calls or GOLD)), reply)


def feedback(*calls, **options):
    return grade(said(*calls), **options).feedback.splitlines()


def test_row_to_problem(tmp_path):
    first, second = load(
        "tool_use", written(tmp_path, row(*GOLD), row(("f", {}), system="Be short."))
    ).problems("test")
    assert first.id == "tool_use/test/00000"
    assert first.question.startswith("Tools: find, update.\nQuestion: Who?\n\nWrite each call as two lines")
    assert [(one["tool"], one["arguments"]) for one in first.metadata["target"]] == GOLD
    assert second.messages[0] == {"role": "system", "content": "Be short."}


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"prompt": "", "answer": "[]"}, "'prompt' contains no text"),
        ({"prompt": "Q", "answer": "[]"}, "names no calls"),
        ({"prompt": "Q", "answer": "{"}, "is not a JSON list"),
        ({"prompt": "Q", "answer": '[{"Action": "f"}]'}, "is not a JSON list"),
        (
            {"prompt": "Q", "answer": '[{"Action": "f", "Action_Input": "[]"}]'},
            "inputs that are not JSON objects",
        ),
        ({**row(("f", {})), "system": 3}, "'system' contains no text"),
    ],
)
def test_rows_that_are_none(tmp_path, bad, words):
    with pytest.raises(ResdError) as error:
        load("tool_use", written(tmp_path, row(*GOLD), bad)).problems("test")
    assert words in str(error.value)
    assert "tool_use/test/00001" in str(error.value)


@pytest.mark.parametrize(
    "reply",
    [
        said(*GOLD),
        said(*reversed(GOLD)),
        "<think>Action: find\nAction Input: {}</think>" + said(*GOLD),
        said(*GOLD)
        .replace("Action: find", "**Action:** `find`")
        .replace("Action Input:", "**Action Input:**"),
        said(GOLD[0])
        + f"\nAction: update\n\nAction Input:\n```json\n{json.dumps(NESTED, indent=2)}\n```\nDone.",
        said(("find", {"limit": 5.0, "name": "Ann"}), GOLD[1]),
    ],
)
def test_right_replies(reply):
    verdict = grade(reply)
    assert (verdict.reward, verdict.passed, verdict.total, verdict.feedback) == (1.0, 2, 2, "")


def test_calls_are_not_merged():
    """The published grader takes the union of all inputs: these two would be the same."""
    gold = [("f", {"x": 1}), ("f", {"x": 2})]
    assert grade(said(*gold), *gold).solved
    assert not grade(said(gold[1], gold[1]), *gold).solved
    assert not grade(said(("f", {"x": 1, "y": 2}), ("f", {})), ("f", {"x": 1}), ("f", {"y": 2})).solved


def test_true_is_not_one():
    assert not grade(said(("f", {"x": 1})), ("f", {"x": True})).solved
    assert not grade(said(("f", {"x": "1"})), ("f", {"x": 1})).solved


def test_optional_calls_may_be_left_out():
    gold = [("f", {}), ("[Optional]g", {"x": 1})]
    for reply in (said(gold[0]), said(*gold), said(gold[0], ("g", {"x": 1}))):
        assert grade(reply, *gold).feedback == ""
    assert not grade(said(gold[0], ("g", {"x": 2})), *gold).solved
    assert grade("", *gold).total == 1


def test_feedback_for_each_call():
    assert feedback(("find", {"name": "Bob", "all": 1}), ("delete", {})) == [
        "0 of 2 calls are right.",
        'Call 1 (find) has wrong arguments: "name" is "Bob" (wanted "Ann"); "limit" is missing (wanted 5); '
        '"all" is one too many.',
        f"Call 2 (delete) does not use the right tool; wanted is update with {json.dumps(NESTED)}.",
    ]
    assert feedback(*GOLD, ("find", {})) == ["2 of 3 calls are right.", "Call 3 (find) is one too many."]
    assert feedback(GOLD[1]) == [
        "1 of 2 calls is right.",
        'Missing: find with {"limit": 5, "name": "Ann"}.',
    ]


def test_feedback_can_keep_the_answer_back():
    assert feedback(("find", {"name": "Bob"}), ("delete", {}), reveal_answer=False) == [
        "0 of 2 calls are right.",
        'Call 1 (find) has wrong arguments: "name" is wrong; "limit" is missing.',
        "Call 2 (delete) does not use the right tool.",
    ]
    assert feedback(GOLD[0], reveal_answer=False) == ["1 of 2 calls is right.", "Calls missing: 1."]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("", "no Action Input follows it"),
        ("\nAction Input: none", "its input is not JSON (Expecting value)"),
        (
            "\nAction Input: {'x': 1}",
            "its input is not JSON (Expecting property name enclosed in double quotes)",
        ),
        ("\nAction Input: [1]", "its input is not a JSON object"),
        ('\nAction Input: {"x": NaN}', "its input holds a number that cannot be read"),
        ('\nAction Input: {"x": ' + "9" * 5000, "its input holds a number that cannot be read"),
        ('\nAction Input: {"x": ' + "[" * 100_000, "its input is nested too deeply"),
        ('\nAction Input: {"x": ' + "[" * 400 + "]" * 400 + "}", "its input is nested too deeply"),
    ],
)
def test_inputs_that_cannot_be_read(line, fault):
    verdict = grade(f"Action: f{line}", ("f", {"x": 1}))
    wanted = '0 of 1 calls are right.\nCall 1 (f) cannot be read: {}; wanted is f with {{"x": 1}}.'
    assert verdict.feedback == wanted.format(fault)


def test_no_calls():
    form = (
        "Write each call as two lines, `Action: ` with the name of a tool and `Action Input: ` with a JSON "
        "object."
    )
    assert grade("Nothing").feedback == f"No answer: the reply has no `Action:` line. {form}"
    cut = grade(Response("r", "Thought: I", (), (), "length"))
    assert cut.feedback.startswith("No answer: the reply was cut off")
    assert (cut.passed, cut.total, cut.details["truncated"]) == (0, 2, True)


def test_rewards():
    half = said(GOLD[0])
    assert (grade(half).reward, grade(half, reward="pass_rate").reward) == (0.0, 0.5)
    assert grade(said(*GOLD, GOLD[0]), reward="pass_rate").reward == pytest.approx(2 / 3)
    with pytest.raises(ResdError, match="reward 'some' is not known"):
        ToolUse(reward="some")


def test_feedback_is_bounded():
    calls = [(f"{i}" * 500, {f"{i}{j}" * 200: "x" for j in range(20)}) for i in range(100)]
    verdict = grade(said(*calls), *[("f" * 400, {str(j): "y" * 999 for j in range(20)})] * 9)
    assert len(verdict.feedback) <= MAX_FEEDBACK
    assert verdict.total == 64


@needs_data
def test_published_rows():
    environment = load("tool_use", DATA)
    problems = environment.problems("test")
    rows = [json.loads(line) for line in (DATA / "test.json").read_text().splitlines()]
    assert isinstance(environment, KnowsSolutions)
    assert len(problems) == len(rows) == 68
    for problem, published in zip(problems, rows, strict=True):
        gold = json.loads(published["answer"])
        replayed = "\n".join(f"Action: {one['Action']}\nAction Input: {one['Action_Input']}" for one in gold)
        assert environment.solution(problem).count("Action: ") == len(gold)
        for reply in (environment.solution(problem), replayed):
            verdict = environment.grade(problem, reply)
            assert (verdict.reward, verdict.feedback, verdict.total) == (1.0, "", len(gold))


def key(call):
    return call.tool, tuple(sorted(call.arguments.items()))


CALLS = st.lists(
    st.tuples(st.sampled_from("fg"), st.dictionaries(st.sampled_from("xy"), st.integers(0, 1))), max_size=4
)


@given(CALLS, CALLS)
def test_pairing_against_every_pairing(ours, gold):
    calls, target = [[Call(*call) for call in calls] for calls in (ours, gold)]
    right, others, missing = paired(calls, target)
    fewer, more = sorted((calls, target), key=len)
    assert right == max(
        sum(a == b for a, b in zip(fewer, some, strict=True))
        for some in itertools.permutations(more, len(fewer))
    )
    assert right + len(others) == len(ours)
    assert len(missing) == max(0, len(gold) - len(ours))
    instead = [call for _, call in others if call is not None]
    matched = [call for i, call in enumerate(calls) if i not in dict(others)]
    assert Counter(map(key, [*matched, *instead, *missing])) == Counter(map(key, target))


PARTS = [
    "Action:",
    "\nAction:",
    "\nAction Input:",
    " {",
    "}",
    '"x":',
    "1",
    "```json",
    "<think>",
    "\\ud800",
    '"',
]


@given(st.lists(st.one_of(st.sampled_from(PARTS), st.text(max_size=5))).map("".join))
def test_no_text_is_too_much(reply):
    verdict = grade(reply)
    assert 0 <= verdict.passed <= verdict.total
    assert (verdict.feedback == "") == verdict.solved
    assert len(read_calls(reply)) <= 64


@pytest.mark.parametrize(
    "text", ["Action:" + " " * 200_000, "\n" * 200_000, ("Action: f" + "\n" * 9_000) * 30]
)
def test_long_blanks_take_no_time(text):
    assert not grade(text).solved


def test_halves_of_characters_are_not_shown():
    (_, line) = grade('Action: f\nAction Input: {"\\ud800": "\\ud800"}', ("f", {})).feedback.splitlines()
    assert line == 'Call 1 (f) has wrong arguments: "\\ud800" is one too many.'
