"""Batches, rounds and the early stop."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resd.config import StreamConfig
from resd.records import Problem
from resd.training.progress import (
    Progress,
    advance,
    finished,
    improved_fraction,
    make_batches,
    updates_at_most,
)


@given(st.integers(0, 40), st.integers(1, 9))
def test_each_problem_is_in_one_batch_in_order(count: int, size: int) -> None:
    problems = [Problem(str(i), ()) for i in range(count)]
    batches = make_batches(problems, size)
    assert [p for batch in batches for p in batch] == problems[: count // size * size]
    assert all(len(batch) == size for batch in batches)


def places(config: StreamConfig, batches: int, rewards: list[dict[str, float]]) -> list[tuple[int, int]]:
    """(batch, round) of each update."""
    progress, visited = Progress(), []
    while not finished(progress, batches, config):
        visited.append((progress.batch, progress.round))
        progress = advance(progress, rewards[min(progress.step, len(rewards) - 1)], config)
        assert progress.step == len(visited)
    return visited


def test_k_rounds_of_each_batch() -> None:
    config = StreamConfig(updates_per_batch=3)
    assert places(config, 2, [{"a": 0.0}]) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


def test_max_updates_stops_within_a_batch() -> None:
    assert places(StreamConfig(max_updates=2), 5, [{"a": 0.0}]) == [(0, 0), (0, 1)]
    assert places(StreamConfig(max_updates=0), 5, [{"a": 0.0}]) == []
    assert updates_at_most(5, StreamConfig(max_updates=2)) == 2
    assert updates_at_most(5, StreamConfig()) == 20


def test_early_stop_when_too_few_problems_improve() -> None:
    better, same = {"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 0.0}
    config = StreamConfig(early_stop_improvement=0.5)
    assert places(config, 1, [same, better, better]) == [(0, 0), (0, 1), (0, 2)]
    assert places(config, 1, [same, same]) == [(0, 0), (0, 1)]


def test_early_stop_waits_for_the_fewest_updates() -> None:
    config = StreamConfig(early_stop_improvement=1.0, min_updates_per_batch=3)
    assert places(config, 1, [{"a": 0.0}]) == [(0, 0), (0, 1), (0, 2)]


def test_scores_are_compared_within_a_batch_only() -> None:
    config = StreamConfig(early_stop_improvement=1.0, updates_per_batch=2)
    assert places(config, 2, [{"a": 0.0}]) == [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [({"a": 1, "b": 0}, {"b": 0, "a": 0}, 0.5), ({"a": 1}, {"a": 1}, 0.0), ({"a": 1}, {}, None)],
)
def test_improvement_is_by_problem(
    now: dict[str, float], before: dict[str, float], expected: float | None
) -> None:
    assert improved_fraction(now, before) == expected
