"""Rows, verdicts, strict and loose scores."""

import json

import numpy as np
import pytest

from resd.environments import load
from resd.environments.base import KnowsSolutions
from resd.environments.ifeval import IFEval, variants
from resd.records import Problem, ResdError, Response

ROW = {
    "key": 1000,
    "prompt": "Write 5 words or more, no commas.",
    "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
    "kwargs": [{}, {"relation": "at least", "num_words": 5}],
}


def environment(folder, *rows, **options):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load("ifeval", path=path, **options)


@pytest.fixture
def problem(tmp_path):
    return environment(tmp_path, ROW).problems("test")[0]


def test_published_rows(problem):
    assert problem.question == ROW["prompt"]
    assert problem.metadata["instructions"][1]["parameters"] == {"num_words": 5, "relation": "at least"}
    json.dumps(problem.metadata)


def test_verdicts(problem):
    half = IFEval().grade(problem, "Too short.")
    assert (half.reward, half.passed, half.total, half.solved) == (0.5, 1, 2, False)
    assert half.feedback == (
        "1 of 2 instructions are not followed.\n- Write at least 5 words: the reply has 2."
    )
    assert half.details["followed"] == [True, False]
    assert IFEval(reward="all_or_nothing").grade(problem, "Too short.").reward == 0.0
    full = IFEval(reward="all_or_nothing").grade(problem, "Now this has enough words.")
    assert (full.reward, full.feedback, full.solved) == (1.0, "", True)
    json.dumps(full.details)


def test_a_reply_without_end(problem):
    """Checked 8 times, a reply of a million sentences would take ten seconds."""
    verdict = IFEval().grade(problem, "a. " * 300_000)
    assert (verdict.passed, verdict.details["followed_loosely"]) == (0, [False, False])
    assert verdict.feedback == (
        "2 of 2 instructions are not followed.\n- Write at most 100000 characters: the reply has 899999."
    )


def test_thinking_is_not_read(problem):
    response = Response("r", "<think>a, b, c, d, e</think>Five words without any comma.", (), (), "stop")
    assert IFEval().grade(problem, response).solved
    assert not IFEval().grade(problem, response).details["truncated"]
    endless = IFEval().grade(problem, "<think>five words without any comma")
    assert (endless.passed, endless.details["incorrect_format"]) == (0, True)
    assert endless.feedback == (
        "2 of 2 instructions are not followed: the thought never ended; what is written inside it does not "
        "count."
    )
    ended = IFEval().grade(problem, "<think>five words without any comma</think> ")
    assert ended.feedback.endswith("not followed: after the thinking there is no text.")
    assert IFEval().grade(problem, " ").feedback.endswith("not followed: the reply has no text.")


def test_loose_scores(problem):
    verdict = IFEval().grade(problem, "Sure, here it is:\nfive words without any comma\nBye, then!")
    assert verdict.details["followed"] == [False, True]
    assert verdict.details["followed_loosely"] == [True, True]
    assert verdict.details["solved_loosely"]
    assert not verdict.solved


def test_variants():
    assert variants("*a*\nb\nc") == ["*a*\nb\nc", "b\nc", "*a*\nb", "b", "a\nb\nc", "a\nb"]
    assert len(variants("*1*\n*2*\n*3*\n*4*")) == 8
    assert variants("one line") == ["one line"]
    assert variants("") == []


def test_long_feedback_is_cut(tmp_path):
    ids = ["keywords:existence"] * 40
    row = {**ROW, "instruction_id_list": ids, "kwargs": [{"keywords": [f"k{i}" * 30]} for i in range(40)]}
    env = environment(tmp_path, row)
    assert len(env.grade(env.problems("test")[0], "nothing").feedback) <= 2000


def trainer_row(truth):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ROW["prompt"]}]
    return {"prompt": chat, "reward_model": {"style": "IF", "ground_truth": truth}}


def test_trainer_rows(tmp_path, problem):
    nulls = {"num_words": None, "relation": None, "letter": None}
    given = {**ROW, "kwargs": [nulls, {**nulls, "num_words": 5.0, "relation": "at least"}]}
    env = environment(tmp_path, trainer_row(given), trainer_row(json.dumps(given)))
    for found in env.problems("test"):
        assert found.metadata == problem.metadata
        assert [m["role"] for m in found.messages] == ["system", "user"]


def test_arrays(tmp_path, monkeypatch, problem):
    row = trainer_row({
        "instruction_id_list": np.array(ROW["instruction_id_list"]),
        "kwargs": np.array([json.dumps(k) for k in ROW["kwargs"]], dtype=object),
    })  # fmt: skip
    row["prompt"] = np.array(row["prompt"], dtype=object)
    monkeypatch.setattr("resd.environments.ifeval.environment.load_rows", lambda *_: [("row", row)])
    assert IFEval().problems("test")[0].metadata == problem.metadata


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "x"}, "lists of equal length"),
        ({**ROW, "kwargs": []}, "lists of equal length"),
        ({**ROW, "instruction_id_list": [], "kwargs": []}, "has no instructions"),
        ({**ROW, "prompt": 3}, "prompt is neither text nor a list"),
        ({"prompt": "x", "reward_model": {"ground_truth": "yes"}}, "no ground truth"),
    ],
)
def test_rows_that_are_not_understood(tmp_path, row, message):
    with pytest.raises(ResdError, match=message):
        environment(tmp_path, row).problems("test")


def test_options_and_other_problems(problem):
    with pytest.raises(ResdError, match="choose one of pass_rate, all_or_nothing"):
        load("ifeval", reward="most")
    with pytest.raises(ResdError, match="does not belong to ifeval"):
        IFEval().grade(Problem("x", problem.messages), "reply")
    assert isinstance(IFEval(), KnowsSolutions)
    assert IFEval().solution(problem) is None


def test_published_prompts(shared):
    env = load("ifeval", path=shared / "data/ifeval/test.parquet")
    problems = env.problems("test")
    assert len(problems) == 100
    stated = [i for problem in problems for i in problem.metadata["instructions"]]
    assert len(stated) == 163
    assert len({i["id"] for i in stated}) == 23
    assert all(value is not None for i in stated for value in i["parameters"].values())
    for problem in problems:
        verdict = env.grade(problem, problem.question)
        assert verdict.total == len(problem.metadata["instructions"])
        assert bool(verdict.feedback) != verdict.solved


def test_a_published_prompt_followed(shared):
    problem = load("ifeval", path=shared / "data/ifeval/test.parquet").problems("test")[0]
    highlights = "*Early life* *Reign* *Death*"
    assert IFEval().grade(problem, highlights + " word" * 296).solved
    short = IFEval().grade(problem, highlights + " word" * 295)
    assert short.feedback.endswith("Write at least 300 words: the reply has 299.")
