"""Against numpy, exact fractions and brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resd.experiments.statistics import Estimate, area, attempts_for, crossing, estimate, paired, spent

SHARES = st.lists(st.integers(0, 100), min_size=2, max_size=12)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20))
def test_a_mean_and_its_standard_error(values: list[float]) -> None:
    found = estimate(values)
    assert found is not None
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    np.testing.assert_allclose([found.mean, found.error], [np.mean(values), error], atol=1e-9)


def test_one_value_has_no_error_and_none_no_mean() -> None:
    assert estimate([0.5]) == Estimate(0.5, None, 1)
    assert estimate([]) is None


def test_differences_are_taken_seed_by_seed() -> None:
    """The seeds differ far more than the variants do: unpaired, nothing could be told."""
    reference = {0: 10.0, 1: 50.0, 2: 90.0, 7: 0.0}
    found = paired({0: 11.0, 1: 51.5, 2: 91.0, 3: 1e9}, reference)
    assert found is not None
    assert (found.n, found.mean) == (3, pytest.approx(3.5 / 3))
    assert found.error == pytest.approx(np.std([1.0, 1.5, 1.0], ddof=1) / 3**0.5)
    assert found.decisive
    assert paired({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize(
    ("mean", "error", "decisive"),
    [(2.01, 1.0, True), (-2.01, 1.0, True), (2.0, 1.0, False), (-0.5, 1.0, False), (1.0, None, None)],
)
def test_what_is_decisive(mean: float, error: float | None, decisive: bool | None) -> None:
    assert Estimate(mean, error, 3).decisive is decisive


@given(SHARES, st.integers(1, 5))
def test_the_area_is_that_of_a_fine_sum(values: list[int], width: int) -> None:
    points = [(float(width * i), value / 100) for i, value in enumerate(values)]
    steps = 64 * (len(values) - 1)
    middles = (np.arange(steps) + 0.5) / 64  # straight between points: middles are exact
    wanted = np.interp(middles, range(len(values)), np.array(values) / 100).mean()
    assert area(points) == pytest.approx(wanted, abs=1e-12)
    assert area(points, best=0.5) == pytest.approx(2 * wanted, abs=1e-12)


def test_no_width_no_area() -> None:
    assert area([]) is None
    assert area([(0.0, 1.0)]) is None
    assert area([(0.0, 1.0), (0.0, 0.0)]) is None


@given(SHARES, st.integers(1, 100))
def test_a_level_is_reached_where_the_curve_is_there_and_nowhere_before(
    values: list[int], level: int
) -> None:
    points = [(float(i), float(value)) for i, value in enumerate(values)]
    found = crossing(points, float(level))
    if found is None:
        assert max(values) < level
        return
    grid = np.linspace(0, len(values) - 1, 1001)
    before = grid[grid < found - 1e-9]
    assert (np.interp(before, range(len(values)), values) < level).all()
    here = np.interp(found, range(len(values)), values)
    assert here == pytest.approx(level) or (found == 0 and here > level)


@given(st.lists(st.floats(0, 100), max_size=8), st.floats(0, 8))
def test_what_is_spent_grows_evenly_within_an_update(costs: list[float], updates: float) -> None:
    found = spent(costs, updates)
    if updates > len(costs):
        assert found is None
    else:
        wanted = np.interp(updates, range(len(costs) + 1), np.cumsum([0.0, *costs]))
        assert found == pytest.approx(wanted, abs=1e-6)


@given(st.lists(st.none() | st.integers(1, 12), min_size=1, max_size=9), st.data())
def test_attempts_are_counted_until_a_share_is_solved(firsts: list[int | None], data: st.DataObject) -> None:
    share = data.draw(st.integers(1, len(firsts))) / len(firsts)
    solved = [sum(first is not None and first <= n for first in firsts) / len(firsts) for n in range(13)]
    assert attempts_for(firsts, share) == next((n for n, found in enumerate(solved) if found >= share), None)
