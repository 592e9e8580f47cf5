"""Several processes take the same steps as one."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from processes import CASES, learn, together, two_updates
from resd.learner.parallel import deal

ROUNDED = {"bfloat16"}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each of two processes made of every case."""
    folder = tmp_path_factory.mktemp("ranks")
    assert together(learn, folder) == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(ranks: list[Any], name: str) -> None:
    """Loss, metrics and weights after two updates, and all that is saved, to rounding."""
    expected = two_updates(CASES[name])
    rough = 0.02 if name in ROUNDED else 1e-5
    for rank, made in enumerate(each[name] for each in ranks):
        assert made["version"] == expected["version"]
        for ours, theirs in zip(made["metrics"], expected["metrics"], strict=True):
            assert ours == pytest.approx(theirs, rel=rough, abs=1e-7 + rough / 10, nan_ok=True)
        assert_close(made["weights"], expected["weights"], rough)
        if rank == 0:
            assert_close(made["model"], expected["model"], rough)
            assert_close(made["learner"], expected["learner"], rough)


def test_the_cases_learn(ranks: list[Any]) -> None:
    skipped = {name: [m["actor/skipped"] for m in made["metrics"]] for name, made in ranks[0].items()}
    assert skipped.pop("nothing to learn from") == [1, 1]
    assert skipped.pop("not finite") == [0, 1]
    assert set(map(tuple, skipped.values())) == {(0, 0)}


def assert_close(ours: Any, theirs: Any, rough: float) -> None:
    """Through nested dicts and lists."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_close(ours[key], theirs[key], rough)
    elif isinstance(ours, list):
        for one, other in zip(ours, theirs, strict=True):
            assert_close(one, other, rough)
    elif isinstance(ours, torch.Tensor):
        torch.testing.assert_close(ours, theirs, rtol=10 * rough, atol=rough)
    else:
        assert ours == theirs


@given(st.lists(st.integers(1, 1000), max_size=40), st.integers(1, 8))
def test_hands_hold_each_once_and_are_balanced(lengths: list[int], size: int) -> None:
    hands = deal(lengths, size)
    assert sorted(position for hand in hands for position in hand) == list(range(len(lengths)))
    assert all(hand == sorted(hand) for hand in hands)
    loads = [sum(lengths[position] for position in hand) for hand in hands]
    assert max(loads) - min(loads) <= max(lengths, default=0)
