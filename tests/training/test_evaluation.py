"""mean@k, best@k and its bootstrap against brute force."""

from itertools import product
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resd.records import Attempt, Problem, Response, Verdict
from resd.training.console import without_repeats
from resd.training.evaluation import expected_best, summarize

scores = st.lists(st.integers(0, 4).map(lambda n: n / 4), min_size=1, max_size=4)


@given(scores)
def test_expected_best_is_the_mean_over_all_draws(values: list[float]) -> None:
    draws = product(values, repeat=len(values))
    assert expected_best(values) == pytest.approx(fmean(max(draw) for draw in draws))


@pytest.mark.parametrize(
    ("correct", "expected"), [(0, 0), (1, 0.68359375), (2, 0.9375), (3, 0.99609375), (4, 1)]
)
def test_expected_best_of_four_verdicts(correct: int, expected: float) -> None:
    assert expected_best([1.0] * correct + [0.0] * (4 - correct)) == pytest.approx(expected)


def graded(problem: str, sample: int, passed: int) -> Attempt:
    verdict = Verdict(float(passed == 4), passed, 4, "" if passed == 4 else "no")
    response = Response("", "", (1,) * (passed + 1), (0.0,) * (passed + 1), "stop")
    return Attempt(Problem(problem, ({"role": "user", "content": ""},)), sample, (0,), response, verdict)


def test_summary_names_and_values() -> None:
    attempts = [graded("a", 0, 4), graded("b", 0, 1), graded("a", 1, 2), graded("b", 1, 3)]
    assert summarize("toy", attempts) == pytest.approx(
        {
            "val/toy/reward/mean@2": 0.25,
            "val/toy/reward/best@2": 0.5,
            "val/toy/reward/best@2_bootstrap": 0.375,
            "val/toy/solved/mean@2": 0.25,
            "val/toy/solved/best@2": 0.5,
            "val/toy/solved/best@2_bootstrap": 0.375,
            "val/toy/test_cases/mean@2": 0.625,
            "val/toy/test_cases/best@2": 0.875,
            "val/toy/test_cases/best@2_bootstrap": 0.75,
            "val/toy/response_length/mean": 3.5,
        }
    )


def test_solved_is_shown_where_the_reward_is_a_share() -> None:
    before = {"val/toy/reward/mean@1": 0.5, "val/toy/solved/mean@1": 0.5}
    assert without_repeats(before) == {"val/toy/reward/mean@1": 0.5}
    assert without_repeats(before | {"val/toy/solved/mean@1": 0.25}, before) == {
        "val/toy/reward/mean@1": 0.5,
        "val/toy/solved/mean@1": 0.25,
    }
    assert "val/toy/solved/mean@1" in without_repeats(
        before, {"val/toy/reward/mean@1": 0.75} | before | {"val/toy/solved/mean@1": 0}
    )
