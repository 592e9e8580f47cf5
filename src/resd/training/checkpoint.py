"""Atomic checkpoints: a `from_pretrained` folder, with the rest of the run's state under `state/`.

    checkpoints/12/          config.json, model.safetensors, tokenizer files
    checkpoints/12/state/    learner.pt (optimizer, teacher), state.json (cursor, context, journal lengths)
    checkpoints/12/state/learner/    sharded parts of optimizer and teacher, with several processes

A checkpoint is written to a hidden folder, synced, and renamed, so a folder with its final name is complete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from resd.records import ResdError
from resd.training.progress import Progress
from resd.writing import RESUME, writing

STATE = "state"
MODEL_FILES = "config.json", "adapter_config.json"  # either makes a folder a model


@dataclass(frozen=True)
class RunState:
    """The part of a checkpoint that is plain data."""

    progress: Progress = field(default_factory=Progress)
    context: Mapping[str, Any] | None = None
    journals: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> RunState:
        data = json.loads(text)
        return cls(Progress(**data["progress"]), data["context"], data["journals"])


def save(
    root: Path,
    state: RunState,
    write_model: Callable[[Path], None],
    write_learner: Callable[[Path], None],
    keep: int | None,
) -> Path:
    """Write `root/<step>`, then delete all but the `keep` newest. `write_model` fills the folder,
    `write_learner` its `state` folder."""

    def fill(folder: Path) -> None:
        (folder / STATE).mkdir()
        write_model(folder)
        write_learner(folder / STATE)
        (folder / STATE / "state.json").write_text(state.to_json(), encoding="utf-8")

    final = root / str(state.progress.step)
    with writing(f"checkpoint {final}", RESUME):
        write_folder(final, fill)
        _prune(root, keep)
    return final


def write_folder(final: Path, fill: Callable[[Path], None]) -> None:
    """Write `final` atomically: it appears once complete on disk; a partial folder is removed on failure.

    An existing empty folder is replaced.
    """
    partial = final.parent / f".{final.name}.partial"
    _remove(partial)
    try:
        partial.mkdir(parents=True)
        fill(partial)
        _share(partial)
        _sync_tree(partial)
        partial.rename(final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # on a full disk it would get in the way
        raise
    _sync(final.parent)


def saved(root: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted((p for p in root.glob("*") if p.name.isdecimal() and p.is_dir()), key=lambda p: int(p.name))


def latest(root: Path) -> Path | None:
    """The newest complete checkpoint."""
    return next(iter(reversed(saved(root))), None)


def holds_run(folder: Path) -> bool:
    """Whether a model folder is a checkpoint of a run."""
    return (folder / STATE / "state.json").is_file()


def load_state(checkpoint: Path) -> RunState:
    """Load the plain data of a checkpoint. Raises ResdError if the folder contains a model but no run."""
    try:
        return RunState.from_json((checkpoint / STATE / "state.json").read_text(encoding="utf-8"))
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ResdError(f"checkpoint {checkpoint}: state/state.json cannot be read ({error})") from error


def sweep(root: Path) -> None:
    """Remove checkpoints left partially written or deleted by a kill."""
    for path in (*root.glob(".*.partial"), *root.glob(".*.old")):
        _remove(path)


def _prune(root: Path, keep: int | None) -> None:
    sweep(root)
    for path in saved(root)[: -keep if keep else 0]:
        path.rename(hidden := root / f".{path.name}.old")  # a half-deleted folder must never look complete
        _remove(hidden)


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def _share(root: Path) -> None:
    """Give all files the default mode, since some libraries write files readable by their owner only.

    The default is derived from the mode of a new folder.
    """
    mode = root.stat().st_mode & 0o666
    for path in root.rglob("*"):
        if path.is_file() and path.stat().st_mode & 0o666 != mode:
            path.chmod(mode)


def _sync_tree(root: Path) -> None:
    for path in (*root.rglob("*"), root):
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
