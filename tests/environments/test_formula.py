"""Formula: rows, feedback, numbers."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resd.environments import load
from resd.environments.formula import Formula, read_number
from resd.records import Problem, ResdError

DATA = Path(__file__).resolve().parents[2] / "../shared/data/finer"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the published rows are not here")


def formula_row(target="15.0", question='"It earned $300,000 and kept $45,000."'):
    context = (
        "Use formula Margin to answer the question. Answer with a number. Formula: Margin = Income / Revenue "
        f"* 100, Explanation: Income: earnings, Revenue: sales. Question:  {question}. Answer:"
    )
    return {"context": context, "target": target}


def written(folder, *rows):
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def number(tmp_path_factory):
    return load("formula", written(tmp_path_factory.mktemp("formula"), formula_row())).problems("test")[0]


@needs_data
def test_published_formula_questions():
    environment = load("formula", DATA)
    problems = environment.problems("test")
    assert len(problems) == 200
    for problem in problems:
        verdict = environment.grade(problem, environment.solution(problem))
        assert (verdict.reward, verdict.feedback) == (1.0, "")
        assert "Question: " in problem.question
        assert not re.search("Answer:|Use formula|Answer with", problem.question)


def test_formula(number):
    environment = Formula()
    assert number.metadata["formula"] == "Margin"
    assert "Margin = Income / Revenue * 100" in number.question
    assert "Question: It earned $300,000 and kept $45,000.\n" in number.question
    wrong = environment.grade(number, "<answer>14</answer>")
    assert wrong.feedback == "Wrong: 14 is not what Margin gives here. The right number is 15.0."
    assert (wrong.reward, wrong.passed, wrong.total) == (0.0, 0, 1)
    assert "15" not in Formula(reveal_answer=False).grade(number, "<answer>14</answer>").feedback


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("15", "15"),
        ("-$1,499.76", "-1499.76"),
        ("$ -5", None),
        ("$-5", "-5"),
        ("5,000.0", "5000"),
        ("15.00 %", "15"),
        ("\u22120.02", "-0.02"),
        (".5", "0.5"),
        ("5.", "5"),
        ("+12,345,678", "12345678"),
        ("1,23", None),
        ("ground_truth", None),
        ("9**9**9", None),
        ("1e5", None),
        ("nan", None),
        ("٣", None),
        ("", None),
        ("1" * 65, None),
    ],
)
def test_numbers(answer, value):
    assert read_number(answer) == (None if value is None else read_number(value))
    assert value is None or float(read_number(answer)) == float(value)


@given(st.integers(-(10**9), 10**9), st.integers(-3, 3))
def test_what_rounds_to_the_target_is_right(cents, off):
    """Against whole thousandths: rounding half up or half to even, to whole cents, gives the target."""
    target = f"{'-' * (cents < 0)}{abs(cents) // 100}.{abs(cents) % 100:02d}"
    thousandths = cents * 10 + off * 5
    answer = f"{'-' * (thousandths < 0)}${abs(thousandths) // 1000:,}.{abs(thousandths) % 1000:03d}"
    problem = Problem("p", (), {"task": "formula", "formula": "F", "target": target})
    assert Formula().grade(problem, f"<answer>{answer}</answer>").solved == (abs(off) <= 1)


def test_targets_may_have_signs(tmp_path):
    for target in ("$1,500", "15%"):
        (problem,) = load("formula", written(tmp_path, formula_row(target))).problems("test")
        assert Formula().grade(problem, Formula().solution(problem)).solved
        assert not Formula().grade(problem, "<answer>3</answer>").solved


def test_mistakes(tmp_path):
    with pytest.raises(ResdError, match="does not belong to formula"):
        Formula().solution(Problem("p", (), {"task": "finer"}))
    with pytest.raises(ResdError, match="rows/00001: 'target' 'ten' is not a number"):
        load("formula", written(tmp_path, formula_row(), formula_row("ten"))).problems("test")
    with pytest.raises(ResdError, match="'context' is not a Formula question"):
        load("formula", written(tmp_path, {"context": "Hello", "target": "1"})).problems("test")


PARTS = ["<answer>", "</answer>", "<think>", "</think>", ",", "1", "$", "-", "%", "9**9", "\n", "\0"]


@given(st.lists(st.one_of(st.sampled_from(PARTS), st.text(max_size=5))).map("".join))
def test_no_text_is_too_much(number, reply):
    verdict = Formula().grade(number, reply)
    assert 0 <= verdict.passed <= verdict.total
    assert (verdict.feedback == "") == verdict.solved
    json.dumps(verdict.details)
