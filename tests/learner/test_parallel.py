"""Several processes take the same steps as one."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from processes import CASES, compare, learn, together, two_updates
from resd.learner.parallel import joined, partition
from resd.records import ResdError

SIZES = [2, 3]


@pytest.fixture(scope="module", params=SIZES)
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each of the processes made of every case."""
    folder = tmp_path_factory.mktemp("ranks")
    assert together(learn, folder, CASES, size=request.param) == [0] * request.param
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(request.param)]


@pytest.mark.parametrize("name", CASES)
def test_several_processes_equal_one(ranks: list[Any], name: str) -> None:
    """Loss, metrics and weights after two updates, and all that is saved, to rounding."""
    compare([made[name] for made in ranks], two_updates(CASES[name]), 0.02 if name == "bfloat16" else 1e-5)


def test_the_cases_learn(ranks: list[Any]) -> None:
    skipped = {name: [m["actor/skipped"] for m in made["metrics"][:2]] for name, made in ranks[0].items()}
    assert skipped.pop("nothing to learn from") == [1, 1]
    assert skipped.pop("not finite") == skipped.pop("adapters, not finite") == [0, 1]
    assert set(map(tuple, skipped.values())) == {(0, 0)}
    for made in ranks:
        assert {name for name, case in made.items() if case["prefixed"]} == {
            "packed",
            "packed srpo",
            "adapters, packed",
        }


def test_each_rank_holds_its_share(ranks: list[Any]) -> None:
    """Student, teacher and optimizer state, and that of no other rank."""
    total = two_updates(CASES["untied"])["held"]
    shares = [made["untied"]["held"] for made in ranks]
    for part, count in total.items():
        assert sum(share[part] for share in shares) == count
        assert max(share[part] for share in shares) < 1.1 * count / len(ranks)


@given(st.lists(st.integers(1, 1000), max_size=40), st.integers(1, 8))
def test_hands_hold_each_once_and_are_balanced(lengths: list[int], size: int) -> None:
    hands = partition(lengths, size)
    assert sorted(position for hand in hands for position in hand) == list(range(len(lengths)))
    assert all(hand == sorted(hand) for hand in hands)
    loads = [sum(lengths[position] for position in hand) for hand in hands]
    assert max(loads) - min(loads) <= max(lengths, default=0)


def test_half_an_environment_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ResdError, match="start several processes with torchrun"), joined():
        pass
