"""What is passed and what is said, for results as the sandbox hands them back."""

import math

import pytest

from resd.environments.bouncingsim.feedback import MAX_CHARACTERS, describe
from resd.environments.bouncingsim.judging import judge_result, judge_value
from resd.environments.sandbox import Limits, Result

TRUTH = [[0.0, 0.0], [300.0, 400.0]]
TIMES = [0.1, 0.2, 0.3, 0.4]


def result(status="ok", values=(), errors=None, stderr=""):
    listed = list(values)
    return Result(status, listed, "", stderr, 0.1, [None] * len(listed) if errors is None else errors)


def said(given, truth=TRUTH, times=TIMES, reveal=True):
    predictions = judge_result(given, times, [truth] * len(times), 50.0)
    return describe(predictions, given, 50.0, Limits(), reveal)


def off(metres):
    """The second ball is so far off."""
    return [[0.0, 0.0], [300.0, 400.0 + metres]]


@pytest.mark.parametrize(
    ("value", "kind", "mean"),
    [
        (TRUTH, "ok", 0.0),
        ([[0, 0], [300, 400]], "ok", 0.0),
        (off(100.0), "ok", 50.0),
        (off(100.0008), "ok", 50.0),  # rounded to 3 decimals before it is compared
        (off(100.0012), "far", 50.001),
        ([[60, 80], [300, 400]], "ok", 50.0),
        ([[300, 400], [0, 0]], "far", 500.0),
    ],
)
def test_the_mean_over_balls_decides(value, kind, mean):
    prediction = judge_value(value, 0.1, TRUTH, 50.0)
    assert (prediction.kind, prediction.mean) == (kind, mean)


class Sneaky(float):
    def __sub__(self, other):
        return 0.0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "returned None, not a list of 2 pairs"),
        (1.0, "a value of type float"),
        ("[[0, 0], [300, 400]]", "a value of type str"),
        ({"0": TRUTH[0], "1": TRUTH[1]}, "a value of type dict"),
        ([], "a list of length 0"),
        ([*TRUTH, [0, 0]], "a list of length 3"),
        ([TRUTH], "a list of length 1"),
        ([[0, 0], [1]], "for ball 2 it returned a list of length 1"),
        ([0, 0], "for ball 1 it returned a value of type int"),
        ([[0, 0], [300, True]], "a coordinate of ball 2 is a value of type bool"),
        ([[0, "0"], [300, 400]], "a coordinate of ball 1 is a value of type str"),
        ([[0, None], [300, 400]], "a coordinate of ball 1 is None"),
        ([[0, Sneaky(0)], [300, 400]], "a value of type Sneaky"),
        ([[math.nan, 0], [300, 400]], "a coordinate of ball 1 is not finite"),
        ([[math.inf, 0], [300, 400]], "not finite"),
        ([[10**400, 0], [300, 400]], "not finite"),
        ([[-1e301, 0], [300, 400]], "not finite"),
        (([0, 0], [300, 400]), "a value of type tuple"),
    ],
)
def test_only_exact_forms_count(value, message):
    prediction = judge_value(value, 0.1, TRUTH, 50.0)
    assert prediction.kind == "form"
    assert message in prediction.problem


def test_huge_but_finite():
    """The distance overflows nothing, and is told in few characters."""
    text = said(result(values=[[[1e299, -1e299], [10**200, 0]]] * 4))
    assert "predicted (1e+299, -1e+299)" in text
    assert len(text) < MAX_CHARACTERS


def test_far_off_positions():
    lines = said(result(values=[TRUTH, off(120), off(300.5), off(130)])).splitlines()
    assert lines[0] == (
        "1 of 4 times pass (mean error of the balls at most 50 m). "
        "All pass up to t = 0.1; the first to fail is t = 0.2."
    )
    assert lines[1] == (
        "At t = 0.2 ball 2 is far off while another is right: look at what ball 2 collides with."
    )
    assert lines[2:5] == [
        "t = 0.2: mean error 60.0 m.",
        "  ball 1: 0.0 m off, predicted (0.00, 0.00), true (0.00, 0.00)",
        "  ball 2: 120.0 m off, predicted (300.00, 520.00), true (300.00, 400.00)",
    ]
    assert [line for line in lines if line.startswith("t = ")] == [
        "t = 0.2: mean error 60.0 m.",
        "t = 0.3: mean error 150.2 m.",
        "t = 0.4: mean error 65.0 m.",
    ]


def test_a_later_time_that_passes_does_not_hide_an_earlier_failure():
    text = said(result(values=[TRUTH, off(120), TRUTH, TRUTH]))
    assert text.startswith("3 of 4 times pass")
    assert "All pass up to t = 0.1; the first to fail is t = 0.2." in text


def test_growing_errors():
    text = said(result(values=[off(120), off(130), off(140), off(250)]))
    assert "The first time, t = 0.1, already fails." in text
    assert "The errors grow with time, from 60.0 m at t = 0.1 to 125.0 m at t = 0.4" in text
    assert "grow" not in said(result(values=[off(120), off(130), off(140), off(230)]))


def test_all_balls_off():
    both = [[120.0, 0.0], [300.0, 520.0]]
    assert "while another is right" not in said(result(values=[both] * 4))


def test_answers_can_be_kept_back():
    given = result(values=[TRUTH, off(120), off(300), off(130)])
    text = said(given, reveal=False)
    assert "ball 2: 120.0 m off" in text
    assert not any(word in text for word in ("predicted", "true", "400.00", "520.00"))


def test_exceptions():
    error = "ZeroDivisionError: float division by zero (line 2, in predict_position)"
    text = said(result("error", [TRUTH, None, None, TRUTH], [None, error, error, None]))
    assert text.splitlines() == [
        "2 of 4 times pass (mean error of the balls at most 50 m). "
        "All pass up to t = 0.1; the first to fail is t = 0.2.",
        f"2 of the calls raised an exception; the first, predict_position(0.2): {error}",
    ]


def test_a_program_that_does_not_start():
    trace = "x" * 5000 + "\nNameError: name 'y' is not defined"
    text = said(result("error", stderr=trace))
    assert "The program failed before predict_position was called:\n..." in text
    assert text.endswith("NameError: name 'y' is not defined")
    assert len(text) < 900


def test_values_of_the_wrong_form():
    text = said(result(values=[None, [[1, 2]], TRUTH, TRUTH]))
    assert text.splitlines()[1] == (
        "2 of the calls returned a value of the wrong form; the first, predict_position(0.1): "
        "it returned None, not a list of 2 pairs."
    )


STATUSES = {
    "cpu_limit": "The program ran out of time: all calls together may take 1 s of processor time.",
    "wall_limit": "waited, or worked in the background, for too long.",
    "memory_limit": "more memory than the 512 MB allowed.",
    "output_limit": "printed or returned too much.",
    "killed": "must neither exit nor crash.",
    "bad_payload": "could not be read.",
}


@pytest.mark.parametrize(("status", "sentence"), STATUSES.items())
def test_what_ended_a_program_is_told_apart(status, sentence):
    line = said(result(status, [TRUTH])).splitlines()[1]
    assert f"{sentence} 1 of 4 calls finished." in line
    assert sum(other in line for other in STATUSES.values()) == 1


def test_length_is_bounded_and_the_verdict_comes_first():
    many = [[float(k), float(-k)] for k in range(60)]
    text = said(result(values=[[[1e9 + k, -1e9] for k in range(60)]] * 4), truth=many)
    assert len(text) == MAX_CHARACTERS
    assert text.startswith("0 of 4 times pass")
    error = "E" * 100_000
    assert len(said(result("error", [None] * 4, [error] * 4, "x" * 100_000))) < 1000
