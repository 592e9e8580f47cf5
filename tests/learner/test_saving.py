"""What some processes have saved of optimizer and teacher, any number of them reads."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint import FileSystemReader

from processes import together
from resd.learner import saving
from starts import read_states, read_together, readable, write_states, write_together

SIZES = [1, 2, 3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written by each number of processes, then read, and written again, by each."""
    folder = tmp_path_factory.mktemp("states")
    write_states(folder)
    for size in SIZES[1:]:
        assert together(write_together, folder, size=size) == [0] * size, (folder / "0.log").read_text()
    read_states(folder, SIZES)
    for size in SIZES[1:]:
        assert together(read_together, folder, SIZES, size=size) == [0] * size, (folder / "0.log").read_text()
    return folder


def whole(place: Path) -> dict[str, Any]:
    return {part: saving.whole(place, part) for part in ("optimizer", "teacher")}


@pytest.mark.parametrize(("name", "reader"), [(name, size) for size in SIZES for name in readable(size)])
@pytest.mark.parametrize("writer", SIZES)
def test_any_number_reads_what_any_number_wrote(folder: Path, name: str, writer: int, reader: int) -> None:
    """To the bit: in memory, and as it is saved again."""
    place = folder / f"{writer}" / name
    expected = torch.load(place / "expected.pt")
    again = place / f"{reader}"
    assert_equal(torch.load(again / "expected.pt"), expected)
    assert_equal(whole(again), expected)
    moments = [t for key, t in saving.named(expected) if key.endswith("exp_avg")]
    assert any(t.abs().max() > 0 for t in moments)


@pytest.mark.parametrize("writer", SIZES[1:])
def test_each_process_writes_its_part(folder: Path, writer: int) -> None:
    place, written = folder / f"{writer}" / "distillation", Counter[str]()
    found = FileSystemReader(place / "learner").read_metadata()
    for index, where in found.storage_data.items():
        chunks = found.state_dict_metadata[index.fqn].chunks
        written[where.relative_path] += sum(c.sizes.numel() for c in chunks if c.offsets == index.offset)
    expected = [t for _, t in saving.named(torch.load(place / "expected.pt")) if t.dim()]
    assert sum(written.values()) == sum(t.numel() for t in expected)
    assert len(written) == writer
    assert max(written.values()) < 1.1 * sum(written.values()) / writer
    assert all(t.is_meta for _, t in saving.named(saving.read(place)) if t.dim())


def assert_equal(ours: Any, theirs: Any) -> None:
    one, other = dict(saving.named(ours)), dict(saving.named(theirs))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert ours["optimizer"]["steps"] == theirs["optimizer"]["steps"] == 1
    assert ours["optimizer"]["adamw"]["param_groups"] == theirs["optimizer"]["adamw"]["param_groups"]
