"""What a user's environment gives, looked at before anything is made of it."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch

from resd.environments.checks import judge, problems_of, try_grading
from resd.records import Problem, ResdError, Response, Verdict

ASKED = ({"role": "user", "content": "1 + 1 = ?"},)
PROBLEM = Problem("sum/1", ASKED)
NAN = float("nan")


@dataclass
class Own:
    """Gives what it is told to."""

    given: Any = ()
    said: Callable[[], Any] = lambda: None
    name: str = "sums"

    def problems(self, split: str) -> Any:
        return self.given() if callable(self.given) else self.given

    def grade(self, problem: Problem, response: Response | str) -> Any:
        return self.said()


def judged(verdict: Any, name: str = "sums") -> Verdict:
    return judge(Own(said=lambda: verdict, name=name), PROBLEM, "2")


async def waits() -> Verdict:
    return Verdict(1.0, 1, 1, "")


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (True, "it returned a bool; return Verdict(reward, passed, total, feedback)"),
        ({"reward": 1.0}, "it returned a dict; return Verdict"),
        (1.0, "it returned a float"),
        (None, "it returned None"),
        (Verdict(NAN, 1, 1, ""), "its reward is nan; give it a finite number"),
        (Verdict(float("-inf"), 0, 1, "No."), "its reward is -inf"),
        (Verdict("1.0", 1, 1, ""), "its reward is a str"),
        (Verdict(None, 1, 1, ""), "its reward is None"),
        (Verdict(torch.ones(2), 1, 1, ""), "its reward is a Tensor ("),
        (Verdict(0.5, 0.5, 1, "No."), "its passed is 0.5; give it a whole number of tests"),
        (Verdict(0.5, 1, NAN, "No."), "its total is nan"),
        (Verdict(1.0, 2, 1, ""), "it passed 2 of 1 tests"),
        (Verdict(1.0, 0, 0, ""), "it passed 0 of 0 tests"),
        (Verdict(0.0, -1, 1, "No."), "it passed -1 of 1 tests"),
        (Verdict(0.0, 0, 1, None), 'its feedback is None; give it a text, "" for a success'),
        (Verdict(0.0, 1, 1, "No."), "it passed 1 of 1 tests, with reward 0 and feedback"),
    ],
)
def test_what_is_no_verdict(verdict: Any, words: str) -> None:
    with pytest.raises(ResdError) as error:
        judged(verdict)
    assert str(error.value).startswith("environment sums, problem sum/1: grade gives no verdict on a reply: ")
    assert words in str(error.value)
    assert "--resume" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_grader_that_is_async() -> None:
    with pytest.raises(ResdError, match="it is async; write def grade"):
        judged(waits())


@pytest.mark.parametrize("number", [np.float32, np.int64, torch.tensor, Decimal, int, bool])
def test_numbers_of_others_become_those_of_python(number: Any) -> None:
    verdict = judged(Verdict(number(1), number(1), number(1), ""))
    assert verdict == Verdict(1.0, 1, 1, "")
    assert json.dumps([verdict.reward, verdict.passed, verdict.total]) == "[1.0, 1, 1]"


def test_what_is_plain_stays_itself() -> None:
    verdict = Verdict(0.25, 1, 4, "No.", {"seen": 1})
    assert judged(verdict) is verdict


def test_what_is_said_of_a_success_is_dropped() -> None:
    assert judged(Verdict(1.0, 1, 1, "Well done.", {"seen": 1})) == Verdict(1.0, 1, 1, "", {"seen": 1})


def test_what_looks_odd_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert judged(Verdict(-0.5, 1, 1, ""), "odd").solved
            assert not judged(Verdict(0.0, 0, 1, ""), "odd").solved
    counted, silent = [record.getMessage() for record in caplog.records]
    assert counted.startswith(
        "environment odd: a reply to problem sum/1 passed 1 of 1 tests, with reward -0.5: "
    )
    assert silent.startswith("environment odd: a failed reply to problem sum/1 has no feedback")


@pytest.mark.parametrize(
    "raised", [ValueError("no digit\nat all"), SystemExit("no digit"), StopIteration("no digit")]
)
def test_a_grader_that_raises(raised: BaseException) -> None:
    def said() -> None:
        raise raised

    with pytest.raises(ResdError) as error:
        judge(Own(said=said), PROBLEM, "two")
    assert error.value.__cause__ is raised
    told, kind = str(error.value), type(raised).__name__
    assert told.startswith(
        f"environment sums, problem sum/1: grade fails on a reply ({kind}: no digit, test_checks.py"
    )
    assert "--resume" in told
    assert "\n" not in told


def test_what_a_grader_says_itself_stays() -> None:
    def said() -> None:
        raise ResdError("the grader is gone; start it")

    with pytest.raises(ResdError, match=r"^the grader is gone; start it$"):
        judge(Own(said=said), PROBLEM, "two")


def test_a_grader_is_tried_with_an_empty_reply() -> None:
    class Strips(Own):
        def grade(self, problem: Problem, response: Any) -> Verdict:
            assert response.text == ""
            return Verdict(1.0, 1, 1, response.strip())

    with pytest.raises(ResdError, match=r"grade fails on an empty reply \(AttributeError: 'Response' object"):
        try_grading(Strips(), PROBLEM)
    try_grading(Own(said=lambda: Verdict(0.0, 0, 1, "Nothing.")), PROBLEM)


def asking(content: Any, role: Any = "user") -> Problem:
    return Problem("sum/1", ({"role": role, "content": content},))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda: (problem for problem in [PROBLEM]), "returns a generator; return a list of problems"),
        (lambda: {"sum/1": PROBLEM}, "returns a dict; return a list"),
        (None, "returns None; return a list"),
        (lambda: 1 / 0, "fails (ZeroDivisionError: division by zero, test_checks.py line "),
        ([PROBLEM, {"id": "sum/2"}], "[1] is a dict; make a resd.records.Problem of it"),
        ([Problem(1, ASKED)], "[0]: its id is 1; give it a text"),
        ([Problem("", ASKED)], "its id is ''; give it a text"),
        ([Problem("\ud83d", ASKED)], "its id is '\\ud83d'; give it a text"),
        ([PROBLEM, PROBLEM], "returns two problems with the id 'sum/1'; ids must be unique"),
        (
            [Problem("sum/1", "1 + 1 = ?")],
            'its messages are a str; write ({"role": "user", "content": text},)',
        ),
        ([Problem("sum/1", ASKED[0])], "its messages are a dict; write"),
        ([Problem("sum/1", None)], "its messages are None; write"),
        ([Problem("sum/1", ())], "it has no message of the user; write"),
        ([Problem("sum/1", ("1 + 1 = ?",))], "one of its messages is a str; write"),
        ([Problem("sum/1", ({"content": "1 + 1 = ?"},))], "the role of a message is None, not text; write"),
        ([asking(7)], "the content of a message is an int, not text; write"),
        ([asking("1 + 1 = ?", "human")], "it has no message of the user; write"),
        ([asking(" ")], "its question, the last message of the user, is empty; ask something"),
    ],
)
def test_what_cannot_be_asked(given: Any, words: str) -> None:
    with pytest.raises(ResdError) as error:
        problems_of(Own(given), "train")
    assert str(error.value).startswith("environment sums: problems('train')")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("messages", [ASKED, list(ASKED)])
def test_problems_in_any_order_of_things(messages: Any) -> None:
    assert problems_of(Own((Problem("sum/1", messages),)), "train") == [PROBLEM]


def test_halves_of_characters_can_be_written() -> None:
    (problem,) = problems_of(Own([asking("\ud83d\ude00 é \udc80?")]), "train")
    assert problem.question == "\U0001f600 é \ufffd?"
    assert judged(Verdict(0.0, 0, 1, "Not \ud83d.")).feedback == "Not \ufffd."
