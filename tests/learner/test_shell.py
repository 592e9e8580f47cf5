"""Several processes begin with the weights that one begins with, and none but the first reads them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from processes import assert_close, together
from starts import KINDS, begin, begin_together, save_kinds

SIZE = 3  # no number of rows can be divided by it


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    save_kinds(folder)
    return folder


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, dict[str, Any]]:
    return begin(folder)


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, dict[str, Any]]]:
    assert together(begin_together, folder, size=SIZE) == [0] * SIZE, (folder / "1.log").read_text()
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(SIZE)]


@pytest.mark.parametrize("name", KINDS)
def test_they_begin_with_the_same_numbers(ranks: list[Any], alone: dict[str, Any], name: str) -> None:
    """To the bit, those of buffers that no file holds too."""
    for made in (rank[name] for rank in ranks):
        for part in ("weights", "teacher"):
            assert made[part].keys() == alone[name][part].keys()
            assert all(torch.equal(made[part][key], alone[name][part][key]) for key in made[part])
        expected = alone[name]["buffers"]
        assert expected.keys() == made["buffers"].keys()
        assert all(torch.equal(made["buffers"][key], expected[key]) for key in expected)
        assert expected  # rotary frequencies
        for fact in ("tied", "packed", "names"):
            assert made[fact] == alone[name][fact]


@pytest.mark.parametrize("name", KINDS)
def test_and_take_the_same_step(ranks: list[Any], alone: dict[str, Any], name: str) -> None:
    expected = alone[name]
    for made in (rank[name] for rank in ranks):
        assert made["metrics"] == pytest.approx(expected["metrics"], rel=1e-4, abs=1e-6)
        for part in ("after", "averaged"):
            assert_close(made[part], expected[part], 1e-5)
    moved = (not torch.equal(expected["after"][key], expected["weights"][key]) for key in expected["after"])
    assert any(moved)


def test_the_kinds_differ(alone: dict[str, Any]) -> None:
    assert {name for name, made in alone.items() if made["tied"]} == {"tied", "cannot be packed"}
    assert {name for name, made in alone.items() if not made["packed"]} == {"cannot be packed"}


@pytest.mark.parametrize("name", KINDS)
def test_no_process_but_the_first_has_the_whole_model(ranks: list[Any], name: str) -> None:
    """Beside its parts and the decoder's copy, two tensors at most: one whole, and one in pieces."""
    for made in (rank[name] for rank in ranks[1:]):
        parts = sum(made["held"].values())
        assert parts < 0.45 * sum(4 * 2 * t.numel() for t in made["weights"].values())
        assert made["peak"] <= made["decoder"] + parts + 2.2 * made["largest"]
        assert made["peak"] > parts
