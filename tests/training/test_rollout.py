"""What graders are given to read, and when."""

import threading
from collections.abc import Iterator, Sequence

import pytest

from context.fakes import CharTokenizer, ScriptedEngine
from resd.environments.base import ParallelEnvironment
from resd.records import Problem, Request, ResdError, Response, Verdict
from resd.training.rollout import Sampling, roll_out

PROBLEMS = [Problem("p", ({"role": "user", "content": "Go."},))]


class Says(ScriptedEngine):
    """Answers everything with one text, cut short."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def submit(self, requests: Sequence[Request]) -> Iterator[Response]:
        for request in requests:
            yield Response(request.id, self.text, (1,), (0.0,), "length")


class Reads:
    """Passes what holds a block outside the thinking, by the rule of `split_thinking`."""

    name = "reads"

    def problems(self, split: str) -> list[Problem]:
        return PROBLEMS

    def grade(self, problem: Problem, response: Response | str) -> Verdict:
        from resd.chat import strip_thinking

        text = response if isinstance(response, str) else response.text
        passed = int("```" in strip_thinking(text))
        return Verdict(float(passed), passed, 1, "" if passed else "No block.")


@pytest.mark.parametrize(
    ("text", "opened", "solved"),
    [
        ("A draft: ```x``` but", True, False),
        ("<think>A draft: ```x``` but", True, False),
        ("Thought.</think>```x```", True, True),
        ("Answer: ```x``` and", False, True),
    ],
)
def test_a_draft_in_an_unfinished_thought_is_no_answer(text: str, opened: bool, solved: bool) -> None:
    sampling = Sampling(1, 8, 1.0, 1.0, thinking=True)
    (attempt,) = roll_out(
        PROBLEMS, Says(text), Reads(), CharTokenizer(opened), sampling, seed=lambda problem, sample: 0
    )
    assert attempt.verdict.solved == solved
    assert attempt.response.text == text, "what was generated stays as it was"


def test_what_is_asked_may_be_more_than_the_problem() -> None:
    sampling, tokenizer = Sampling(2, 8, 1.0, 1.0, thinking=True), CharTokenizer()
    plain, longer = (
        roll_out(PROBLEMS, Says(""), Reads(), tokenizer, sampling, seed=lambda *_: 0, prompt_ids=prompt_ids)
        for prompt_ids in (None, lambda problem: tuple(tokenizer.encode(f"Hint. {problem.question}")))
    )
    assert [tokenizer.decode(a.prompt_ids) for a in plain] == ["<user>Go.<assistant>"] * 2
    assert [tokenizer.decode(a.prompt_ids) for a in longer] == ["Hint. Go."] * 2
    assert [a.problem for a in longer] == [a.problem for a in plain]


def test_two_problems_of_one_id_are_a_mistake() -> None:
    sampling = Sampling(1, 8, 1.0, 1.0, thinking=True)
    with pytest.raises(ResdError, match="problem p: two problems"):
        roll_out(PROBLEMS * 2, Says(""), Reads(), CharTokenizer(), sampling, seed=lambda problem, sample: 0)


class Together(Reads):
    """Two graders that end only if both are at work at once."""

    workers = 2

    def __init__(self) -> None:
        self.both = threading.Barrier(2, timeout=30)

    def grade(self, problem: Problem, response: Response | str) -> Verdict:
        self.both.wait()
        return super().grade(problem, response)


class Fails(Together):
    def grade(self, problem: Problem, response: Response | str) -> Verdict:
        raise ResdError("the grader is gone; start it")


def test_graders_of_other_processes_work_at_once() -> None:
    environment = Together()
    assert isinstance(environment, ParallelEnvironment)
    assert not isinstance(Reads(), ParallelEnvironment)
    sampling = Sampling(4, 8, 1.0, 1.0, thinking=True)
    attempts = roll_out(PROBLEMS, Says("```x```"), environment, CharTokenizer(), sampling, seed=lambda *_: 0)
    assert [(a.sample, a.verdict.solved) for a in attempts] == [(i, True) for i in range(4)]


def test_what_a_grader_raises_arrives() -> None:
    sampling = Sampling(4, 8, 1.0, 1.0, thinking=True)
    with pytest.raises(ResdError, match="the grader is gone"):
        roll_out(PROBLEMS, Says(""), Fails(), CharTokenizer(), sampling, seed=lambda *_: 0)


@pytest.mark.parametrize("workers", [{}, {"workers": 2}])
def test_verdicts_are_looked_at(workers: dict[str, int]) -> None:
    given = {"grade": lambda self, problem, response: Verdict(float("nan"), 0, 1, "No."), **workers}
    environment, sampling = type("Own", (Reads,), given)(), Sampling(4, 8, 1.0, 1.0, thinking=True)
    with pytest.raises(ResdError, match="environment reads, problem p: grade gives no verdict on a reply"):
        roll_out(PROBLEMS, Says(""), environment, CharTokenizer(), sampling, seed=lambda *_: 0)
