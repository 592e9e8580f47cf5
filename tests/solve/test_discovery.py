"""Discovery rates, against enumeration; many problems in one process, against one at a time."""

from itertools import combinations
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

import toy
from resd.records import ResdError
from resd.solve.bench import open_bench
from resd.solve.discovery import (
    Count,
    attempts_for,
    best_of_rates,
    count_successes,
    discover,
    discovery_rates,
)
from resd.solve.effort import Effort
from resd.solve.work import Result, summarize, work
from support import save_tiny


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=3))
def test_best_of_is_the_mean_over_all_subsets(numbers: list[tuple[int, int]]) -> None:
    samples = [[i < solved for i in range(n)] for n, solved in numbers]
    counts = [Count(str(i), len(drawn), sum(drawn)) for i, drawn in enumerate(samples)]
    budget = min(n for n, _ in numbers)
    expected = [
        fmean(fmean(any(chosen) for chosen in combinations(drawn, m)) for drawn in samples)
        for m in range(1, budget + 1)
    ]
    assert best_of_rates(counts, budget) == pytest.approx(expected, abs=1e-12)


def test_best_of_more_than_was_drawn() -> None:
    with pytest.raises(ResdError, match="best of 5: a problem has 4 samples"):
        best_of_rates([Count("a", 4, 1), Count("b", 8, 1)], 5)


def test_the_share_solved_within_m_attempts() -> None:
    firsts = [3, None, 1, 3]
    rates = discovery_rates(firsts, budget=4)
    assert rates == [0.25, 0.25, 0.75, 0.75]
    assert [attempts_for(rates, share) for share in (0.2, 0.25, 0.5, 0.75, 0.8)] == [1, 1, 3, 3, None]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


def test_counts_are_of_the_samples_of_best_of(model: Path) -> None:
    with toy.in_place():
        bench = open_bench(toy.toy_config(model, Path("unused")), learns=False)
    problems = toy.Letters().problems("train")[:3]
    counts = count_successes(bench, problems, samples=60, seed=3, batch=25)
    assert [count.problem for count in counts] == [problem.id for problem in problems]
    for problem, count in zip(problems, counts, strict=True):
        alone = bench.attempt([problem], 3, 0, 60)
        assert (count.samples, count.solved) == (60, sum(attempt.verdict.solved for attempt in alone))
        assert count.rate == count.solved / 60
        first = next((i for i, attempt in enumerate(alone, start=1) if attempt.verdict.solved), None)
        [result] = discover(bench, Effort("best_of", 60, 7), [problem], [3])
        assert result.first == first
    assert sum(count.solved for count in counts)


def test_discovery_is_work_on_each_problem_with_each_seed(model: Path) -> None:
    config = toy.toy_config(model, Path("unused"))
    effort, problems = Effort(budget=24, batch=4), toy.Letters().problems("train")[:2]
    seen: list[Result] = []
    with toy.in_place():
        bench = open_bench(config, learns=True)
        results = discover(bench, effort, problems, [0, 1], watch=seen.append)
        assert seen == results
        places = [(result.problem, result.seed) for result in results]
        assert places == [(problem.id, seed) for seed in (0, 1) for problem in problems]
        alone = open_bench(config, learns=True)
    rounds = list(work(alone, effort, problems[1], seed=1))
    expected = summarize(rounds, effort, seed=1)
    assert (results[3].first, results[3].attempts, results[3].tokens, results[3].text) == (
        expected.first, expected.attempts, expected.tokens, expected.text,
    )  # fmt: skip


def test_what_cannot_learn_is_told(model: Path) -> None:
    with toy.in_place():
        bench = open_bench(toy.toy_config(model, Path("unused")), learns=False)
    with pytest.raises(ResdError, match="open it with learns=True"):
        discover(bench, Effort(), toy.Letters().problems("train"), [0])
