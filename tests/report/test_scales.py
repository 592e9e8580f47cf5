"""Scales, ticks and labels."""

import itertools
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resd.report.scales import Scale, label, ticks, widen

numbers = st.floats(-1e12, 1e12).map(lambda x: 0.0 if abs(x) < 1e-12 else x)


@example(0.0, 5e-10, 5, True)
@given(numbers, numbers, st.integers(2, 10), st.booleans())
def test_ticks_cover_the_range_evenly_with_round_numbers(a: float, b: float, count: int, whole: bool) -> None:
    low, high = widen(min(a, b), max(a, b))
    marks = ticks(low, high, count, whole=whole)
    step = (marks[-1] - marks[0]) / (len(marks) - 1)
    slack = 1e-6 * step
    assert marks[0] <= low + slack
    assert marks[-1] >= high - slack
    assert 2 <= len(marks) <= count + 2
    assert all(y - x == pytest.approx(step, rel=1e-4) for x, y in itertools.pairwise(marks))
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-6)
    assert any(mantissa == pytest.approx(round_one, rel=1e-4) for round_one in (1, 2, 2.5, 5))
    if whole:
        assert all(float(mark).is_integer() for mark in marks)


@given(numbers, numbers)
def test_labels_of_neighbouring_ticks_differ(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    if high - low < 1e-3 * max(abs(low), abs(high)):  # labels keep few digits
        return
    marks = ticks(low, high)
    texts = [label(mark, marks[1] - marks[0]) for mark in marks]
    assert len(set(texts)) == len(texts) or max(abs(low), abs(high)) >= 1e6 or marks[1] - marks[0] < 1e-4


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, ["0", "0.25", "0.50", "0.75", "1.00"]),
        (0, 0.042, ["0", "0.02", "0.04", "0.06"]),
        (0, 87, ["0", "25", "50", "75", "100"]),
        (0, 40_000, ["0", "10k", "20k", "30k", "40k"]),
        (-0.013, 0.01, ["-0.02", "-0.01", "0", "0.01"]),
        (0, 0, ["-0.50", "-0.25", "0", "0.25", "0.50"]),
    ],
)
def test_examples(low: float, high: float, expected: list[str]) -> None:
    marks = ticks(low, high)
    assert [label(mark, marks[1] - marks[0]) for mark in marks] == expected


@given(numbers, numbers, st.lists(numbers, min_size=2, max_size=8))
def test_a_scale_is_monotonic_and_hits_its_ends(a: float, b: float, values: list[float]) -> None:
    low, high = widen(min(a, b), max(a, b))
    up, down = Scale(low, high, 10, 500), Scale(low, high, 500, 10)
    assert (up(low), up(high)) == pytest.approx((10, 500))
    assert (down(low), down(high)) == pytest.approx((500, 10))
    ordered = sorted(values)
    assert sorted(map(up, ordered)) == list(map(up, ordered))
    assert sorted(map(down, ordered), reverse=True) == list(map(down, ordered))
