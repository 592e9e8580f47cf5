"""What goes together, and which problem is meant: all that is known before torch is imported."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import toy
from resd.config import check_config
from resd.records import ResdError
from resd.solve.effort import Effort, check_effort, find_problems


@given(budget=st.integers(1, 200), batch=st.integers(1, 50))
def test_an_update_between_any_two_rounds(budget: int, batch: int) -> None:
    rounds, left = 0, budget
    while left > 0:
        rounds, left = rounds + 1, left - batch
    assert Effort("self_distill", budget, batch).updates == rounds - 1


def test_a_round_has_the_method_s_width() -> None:
    assert Effort("best_of").width == Effort("self_distill").width == 16
    assert Effort("multi_turn").width == 1
    assert Effort("multi_turn", batch=1).width == 1
    assert Effort("best_of", batch=3).width == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"method": "guess"}, "--method guess: is not known; choose one of self_distill, best_of"),
        ({"method": "multi_turn", "memory": "all"}, "--memory all: is not known"),
        ({"budget": 0}, "--budget 0"),
        ({"batch": 0}, "--batch 0"),
        ({"method": "multi_turn", "batch": 2}, "leave --batch out"),
        ({"method": "best_of", "memory": "dialogue"}, "is only for --method multi_turn, not best_of"),
    ],
)
def test_what_does_not_go_together(words: dict[str, object], said: str) -> None:
    with pytest.raises(ResdError, match=said):
        Effort(**words)  # type: ignore[arg-type]


@pytest.mark.parametrize("algorithm", ["resd", "sdpo", "srpo", "grpo", "rlsd", "ace"])
def test_only_what_learns_from_failures_is_distilled(algorithm: str) -> None:
    changes = {"rollout": {"n": 2}, "context": {"student_playbook": True}}
    config = check_config({"algorithm": algorithm, **changes}, where="test")
    check_effort(config, Effort("best_of"))
    if algorithm in ("resd", "sdpo", "srpo"):
        check_effort(config, Effort())
    else:
        with pytest.raises(ResdError, match=f"algorithm {algorithm}: changes no weights before the first"):
            check_effort(config, Effort())


def test_problems_by_id_and_by_place() -> None:
    found = find_problems(toy.Letters(), "train", ["train/a", "0", "6"])
    assert [problem.id for problem in found] == ["train/a", "train/e", "train/s"]


@pytest.mark.parametrize("name", ["train/x", "7", "-1", "", "²", str(math.inf)])
def test_an_unknown_problem_is_told_what_there_is(name: str) -> None:
    with pytest.raises(ResdError, match=r"has 7 problems, train/e to train/s; .* an index from 0 to 6"):
        find_problems(toy.Letters(), "train", [name])


def test_a_split_without_problems() -> None:
    class Empty(toy.Letters):
        def problems(self, split: str) -> list[object]:  # type: ignore[override]
            return []

    with pytest.raises(ResdError, match="split dev of letters has no problems"):
        find_problems(Empty(), "dev", ["0"])
