"""Environments out of other people's functions."""

import asyncio
import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from environments.together import graded
from resd import environments
from resd.environments.adapters import from_function, trl, verl
from resd.environments.base import ParallelEnvironment
from resd.records import Problem, ResdError, Response

ROWS = [
    {"split": "train", "prompt": "1 + 1 = ?", "answer": "2", "privileged_context": "Count your fingers."},
    {"split": "test", "prompt": [{"role": "user", "content": "2 + 2 = ?"}], "answer": "4"},
]
VERL = [
    {
        "split": split,
        "data_source": "sums",
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1 = ?"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "2"},
        "extra_info": {"split": split, "index": "7"},
    }
    for split in ("train", "test")
]


def rows_file(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def accuracy(prompts: list[Any], completions: list[Any], answer: list[str], **columns: Any) -> list[float]:
    """As TRL's documentation writes it: completions are messages where prompts are."""
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    assert [isinstance(p, str) for p in prompts] == [isinstance(c, str) for c in completions]
    return [float(text == wanted) for text, wanted in zip(texts, answer, strict=True)]


async def brief(completions: list[Any], **columns: Any) -> list[float | None]:
    await asyncio.sleep(0)
    return [None if not c else float(len(c) < 5) for c in completions]


def tells(completions: list[str], log_extra: Any, log_metric: Any, **columns: Any) -> list[float]:
    log_extra("length", [len(c) for c in completions])
    log_extra("feedback", [f"{c!r} is no sum." for c in completions])
    log_metric("seen", 1.0)
    return [-0.5 for _ in completions]


def test_a_function_of_trl(tmp_path: Path) -> None:
    environment = trl(accuracy, rows_file(tmp_path, ROWS))
    assert environment.name == "accuracy"
    (first,), (second,) = environment.problems("train"), environment.problems("test")
    assert first.messages == ({"role": "user", "content": "1 + 1 = ?"},)
    right, wrong = environment.grade(first, "2"), environment.grade(first, "3")
    assert (right.reward, right.solved, right.feedback) == (1.0, True, "")
    assert (wrong.reward, wrong.solved, wrong.feedback) == (0.0, False, "Count your fingers.")
    assert environment.grade(second, "4").solved
    assert environment.grade(second, "3").feedback == "Reward 0; 1 is wanted."


def test_several_functions_are_weighted_and_named(tmp_path: Path) -> None:
    rows = [{"prompt": "1 + 1 = ?", "answer": "2"}]
    environment = trl(
        [accuracy, brief], rows_file(tmp_path, rows), weights=[1, 0.25], success_reward_threshold=1.25
    )
    assert environment.name == "accuracy_brief"
    (problem,) = environment.problems("train")
    assert environment.grade(problem, "2").solved
    assert environment.grade(problem, "33").feedback == "Reward 0.25: accuracy 0, brief 1."
    assert environment.grade(problem, "").feedback == "Reward 0: accuracy 0, brief not applicable."


def test_what_a_function_logs_as_feedback(tmp_path: Path) -> None:
    environment = trl(tells, rows_file(tmp_path, ROWS[:1]))
    verdict = environment.grade(environment.problems("train")[0], "3")
    assert (verdict.reward, verdict.feedback) == (-0.5, "'3' is no sum.\nCount your fingers.")


def test_thinking_is_shown_unless_it_is_stripped(tmp_path: Path) -> None:
    path = rows_file(tmp_path, ROWS[:1])
    reply = "<think>One and one.</think>2"
    for strip in (False, True):
        environment = trl(accuracy, path, strip_thinking=strip)
        assert environment.grade(environment.problems("train")[0], reply).solved == strip


def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any) -> dict[str, Any]:
    """As SDPO's graders answer."""
    assert (data_source, extra_info["index"]) == ("sums", "7")
    right = solution_str == ground_truth
    said = "" if right else f"Not {solution_str}." + (" Cut off." if extra_info["truncated"] else "")
    return {"score": float(right), "acc": float(right), "pred": solution_str, "feedback": said}


def test_a_function_of_sdpo(tmp_path: Path) -> None:
    environment = verl(compute_score, rows_file(tmp_path, VERL))
    (problem,) = environment.problems("train")
    assert [m["role"] for m in problem.messages] == ["system", "user"]
    assert environment.grade(problem, "2").solved
    cut = Response("r", "33", (1, 2), (0.0, 0.0), "length")
    verdict = environment.grade(problem, cut)
    assert verdict.feedback == "Not 33. Cut off."
    assert verdict.details == {"acc": 0.0, "pred": "33"}


def test_a_function_of_verl_that_gives_a_number(tmp_path: Path) -> None:
    def score(solution_str: str, ground_truth: str, format_score: float) -> float:
        return 1.0 if solution_str == ground_truth else format_score

    path = rows_file(tmp_path, VERL)
    environment = verl(score, path, arguments={"format_score": 0.1})
    (problem,) = environment.problems("test")
    assert environment.grade(problem, "2").solved
    assert environment.grade(problem, "3").feedback == "Reward 0.1; 1 is wanted."
    lenient = verl(score, path, arguments={"format_score": 0.1}, success_reward_threshold=0.1)
    assert lenient.grade(problem, "3").solved


def test_functions_that_wait_are_called_at_once(tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=10)

    def meet(solution_str: str) -> float:
        if solution_str:
            both.wait()  # breaks unless two calls are under way
        return 1.0

    environment = verl(meet, rows_file(tmp_path, VERL), workers=2)
    assert isinstance(environment, ParallelEnvironment)
    (problem,) = environment.problems("train")
    assert [verdict.solved for verdict in graded(environment, [problem] * 2, "ab")] == [True, True]


def test_one_worker_stays_in_the_thread_of_the_caller(tmp_path: Path) -> None:
    def where(solution_str: str) -> float:
        return float(threading.current_thread() is threading.main_thread())

    environment = verl(where, rows_file(tmp_path, VERL))
    assert not isinstance(environment, ParallelEnvironment)
    assert environment.grade(environment.problems("train")[0], "").solved


def grumpy(solution_str: str, ground_truth: str) -> float:
    return float(int(solution_str or "0") == int(ground_truth))


def test_a_function_that_fails_later_fails_the_reply_alone(tmp_path: Path) -> None:
    environment = verl(grumpy, rows_file(tmp_path, VERL))
    (problem,) = environment.problems("train")
    verdict = environment.grade(problem, "two")
    assert (verdict.reward, verdict.passed, verdict.total) == (0.0, 0, 1)
    assert "ValueError: invalid literal" in verdict.feedback
    assert "ValueError" in verdict.details["grader_error"]
    assert environment.grade(problem, "2").solved


SUMS = [Problem(f"{n}", ({"role": "user", "content": f"{n} + 7"},), {"sum": n + 7}) for n in range(3)]


def plain(solution_str: str, ground_truth: str) -> float:
    return float(solution_str == ground_truth)


def hungry(completions: list[str], colour: list[str]) -> list[float]:
    return [1.0]


def not_a_number(solution_str: str) -> float:
    return float("nan")


def two_for_one(prompts: list[Any], completions: list[Any]) -> list[float]:
    return [1.0, 1.0]


@pytest.mark.parametrize(
    ("make", "rows", "words"),
    [
        (lambda p: verl(lambda solution_str: 1 / 0, p), VERL, "empty reply to problem verl/rows/00000"),
        (lambda p: verl(not_a_number, p), VERL, "the reward is nan"),
        (lambda p: trl(two_for_one, p), ROWS, "it returned 2 rewards for 1 completion; return one for each"),
        (
            lambda p: trl(lambda completions: 1.0, p),
            ROWS,
            "it returned a float; return a list",
        ),
        (lambda p: trl(lambda completions: ["1"], p), ROWS, "the reward is a str; return a finite number"),
        (
            lambda p: verl(lambda solution_str: {"acc": 1}, p),
            VERL,
            "a dict without score (acc); add",
        ),
        (lambda p: verl(lambda solution_str: None, p), VERL, "the reward is None; return a finite number"),
        (
            lambda p: verl(lambda solution_str: (1, "", 0), p),
            VERL,
            "it returned 3 values; return a number",
        ),
        (
            lambda p: verl(lambda solution_str: sys.exit("no"), p),
            VERL,
            "SystemExit: no, test_adapters.py",
        ),
        (lambda p: from_function("sums", {"train": SUMS}, lambda *_: {}), ROWS, "a dict without score"),
        (lambda p: from_function("sums", SUMS, lambda *_: 1.0), ROWS, "the problems are a list; give lists"),
        (lambda p: from_function("sums", {"train": ["?"]}, lambda *_: 1.0), ROWS, "[0] is a str; make a"),
        (
            lambda p: trl(accuracy, p),
            [*ROWS, {"prompt": "?", "split": "dev"}],
            "of split 'dev', which is",
        ),
        (lambda p: trl(accuracy, p), [{"prompt": "?"}], "answer"),
        (lambda p: trl(accuracy, p), [{"question": "?"}], "has no column prompt (it has question)"),
        (lambda p: trl(accuracy, p), [{"prompt": []}], "does not end with a message of the user"),
        (
            lambda p: trl(accuracy, p),
            [{"prompt": [{"role": "user", "content": [1]}]}],
            "neither text nor a list",
        ),
        (lambda p: verl(grumpy, p), ROWS, "no reward_model.ground_truth"),
        (lambda p: trl(accuracy), ROWS, "environment.options.path"),
        (lambda p: trl([], p), ROWS, "0 reward functions"),
        (lambda p: trl("accuracy", p), ROWS, "module:function"),
        (lambda p: trl("nowhere_at_all:accuracy", p), ROWS, "cannot be imported"),
        (lambda p: verl(grumpy, p, workers=0), VERL, "workers 0"),
        (lambda p: verl(plain, p, arguments={"strict": True}), VERL, "plain: takes no argument strict"),
        (lambda p: verl(plain, p), [{**VERL[0], "reward_model": "rule"}], "no reward_model.ground_truth"),
        (lambda p: trl(hungry, p), ROWS, "hungry: takes colour, which is not a column of the rows"),
    ],
)
def test_mistakes_are_told_before_a_run(tmp_path: Path, make: Any, rows: Any, words: str) -> None:
    with pytest.raises(ResdError) as error:
        make(rows_file(tmp_path, rows))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_by_name_from_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_rewards.py").write_text("def right(completions, answer):\n    return [1.0]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = rows_file(tmp_path, ROWS)
    environment = environments.load("trl", reward="their_rewards:right", path=str(path))
    assert environment.grade(environment.problems("train")[0], "").solved
    with pytest.raises(ResdError, match="verl: needs the option reward"):
        environments.load("verl", path=path)


def test_one_function_is_an_environment() -> None:
    def grade(problem: Problem, reply: str) -> tuple[float, str]:
        return float(reply == str(problem.metadata["sum"])), f"{reply!r} is not the sum."

    environment = from_function("sums", {"train": SUMS[:2], "test": SUMS[2:]}, grade)
    (held_out,) = environment.problems("test")
    assert environment.grade(held_out, "<think>Hm.</think> 9").solved
    assert environment.grade(held_out, "9").feedback == ""
    assert environment.grade(held_out, "8").feedback == "'8' is not the sum."
    with pytest.raises(ResdError, match="choose one of train, test"):
        environment.problems("dev")


def test_a_function_may_be_async() -> None:
    async def grade(problem: Problem, reply: str) -> float:
        await asyncio.sleep(0)
        return float(reply == "7")

    assert from_function("sums", {"train": SUMS}, grade).grade(SUMS[0], "7").solved


def test_one_made_by_a_function_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made_here.py").write_text(
        "from resd.environments.adapters import from_function\n"
        "def make(size=1):\n"
        "    return from_function('sums', {'train': []}, lambda problem, reply: size)\n"
        "environment = make()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert environments.load("made_here:environment").name == "sums"
    assert environments.load("made_here:make", size=2).name == "sums"
