"""Checkpoints appear whole or not at all."""

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from resd.records import ResdError
from resd.training import checkpoint, journal
from resd.training.checkpoint import RunState
from resd.training.progress import Progress


def write_model(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


def write_learner(folder: Path) -> None:
    (folder / "learner.pt").write_text("moments")


def save(root: Path, step: int, keep: int | None = None) -> Path:
    state = RunState(Progress(step, 1, 2, {"a": 0.1}, 3), {"playbooks": {}}, {"metrics.jsonl": 7})
    return checkpoint.save(root, state, write_model, write_learner, keep)


def test_state_round_trip(tmp_path: Path) -> None:
    folder = save(tmp_path, 4)
    state = checkpoint.load_state(folder)
    assert state == RunState(Progress(4, 1, 2, {"a": 0.1}, 3), {"playbooks": {}}, {"metrics.jsonl": 7})
    assert (folder / "state/learner.pt").read_text() == "moments"


def test_only_the_newest_are_kept_by_number(tmp_path: Path) -> None:
    for step in (8, 9, 10, 11):
        save(tmp_path, step, keep=2)
    assert [path.name for path in checkpoint.saved(tmp_path)] == ["10", "11"]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_all_files_have_the_mode_of_new_ones(tmp_path: Path, umask: int) -> None:
    """Also those that the library of weights keeps to their owner."""

    def write(folder: Path) -> None:
        save_file({"weight": torch.zeros(2)}, folder / "model.safetensors")
        (folder / "model.safetensors").chmod(0o600)
        (folder / "config.json").write_text("{}")

    before = os.umask(umask)
    try:
        checkpoint.write_folder(tmp_path / "saved", write)
        (tmp_path / "plain").touch()
    finally:
        os.umask(before)
    expected = (tmp_path / "plain").stat().st_mode
    assert {path.stat().st_mode for path in (tmp_path / "saved").iterdir()} == {expected}


def test_all_are_kept_without_a_limit(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert len(checkpoint.saved(tmp_path)) == 3


def test_a_failed_save_leaves_the_last_one(tmp_path: Path) -> None:
    save(tmp_path, 1)

    def full_disk(folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ResdError, match=r"checkpoint .*/2: cannot be written \(No space left on device\)"):
        checkpoint.save(tmp_path, RunState(Progress(2)), full_disk, write_learner, None)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]  # what was begun would fill the disk for good
    save(tmp_path, 2, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["2"]


def test_what_a_kill_left_is_swept(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for name in (".2.partial", ".0.old"):
        (tmp_path / name / "state").mkdir(parents=True)
    checkpoint.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    checkpoint.sweep(tmp_path / "none")


def test_journals_on_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(ResdError, match=r"journal /dev/full: cannot be written \(No space left"):
        journal.append(Path("/dev/full"), [{"step": 1}])
    (tmp_path / "1.jsonl").symlink_to("/dev/full")
    with pytest.raises(ResdError, match=r"1\.jsonl: cannot be written .* --resume"):
        journal.write(tmp_path / "1.jsonl", [{"step": 1}])


def test_a_folder_without_a_run_is_one_sentence(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "none") is None
    with pytest.raises(ResdError, match=r"state\.json"):
        checkpoint.load_state(tmp_path)


def test_journals_are_cut_back(tmp_path: Path) -> None:
    journal.append(tmp_path / journal.METRICS, [{"step": 1, "loss": float("nan")}])
    sizes = journal.lengths(tmp_path)
    journal.append(tmp_path / journal.METRICS, [{"step": 2}])
    for step in (1, 2, 10):
        journal.write(tmp_path / journal.ROLLOUTS / f"{step}.jsonl", [{"text": "é"}])
    journal.cut_back(tmp_path, sizes, step=1)
    assert journal.read(tmp_path / journal.METRICS) == [{"step": 1, "loss": None}]
    assert [path.name for path in (tmp_path / journal.ROLLOUTS).iterdir()] == ["1.jsonl"]


def test_a_line_cut_short_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"ste')
    assert journal.read(path) == [{"step": 1}]
    assert journal.read(tmp_path / "none.jsonl") == []
