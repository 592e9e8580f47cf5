"""The run folder: one configuration and its results."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import yaml

from resd.config import RunConfig
from resd.records import ResdError
from resd.training import checkpoint, journal
from resd.writing import ELSEWHERE, writing

LOCK = ".lock"
# Files that a run may have besides its journals before its first result.
BEGUN = frozenset({"config.yaml", "tensorboard", "wandb"})
# Settings that may change on resume: they do not affect the updates already made.
HARMLESS = frozenset({"output", "device", "stream.max_updates", "checkpoint", "logging"})


def check_folder(folder: Path, config: RunConfig, *, resume: bool) -> None:
    """Raises ResdError for a folder with other contents, or a run that cannot be resumed with `config`.

    A run that failed before its first result left nothing to lose: another one may start in its folder.
    """
    saved = folder / "config.yaml"
    if _has_no_result(folder):
        return
    if resume and saved.is_file():
        _check_same(saved, config)
        _check_updates(folder, config)
        return
    if folder.is_dir() and not _empty(folder):
        remedy = "add --resume to continue the run in it, or " if saved.is_file() else ""
        raise ResdError(f"output {folder}: is not empty; {remedy}choose another output")
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise ResdError(f"output {folder}: cannot be created: {nearest} is not a writable folder")


def hold(folder: Path) -> TextIO | None:
    """Lock the folder against other processes until the returned file is closed or this process ends.

    None if the file system does not support locks. Raises ResdError if another process holds the lock.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a")
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # this process may resume its own run
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN) and (folder / LOCK).is_file():
            raise ResdError(
                f"output {folder}: another process is at work on this run; wait for it, or choose another "
                "output"
            ) from error
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            return None
        raise ResdError(f"output {folder}: cannot be written ({error.strerror}); {ELSEWHERE}") from error
    return file


def open_folder(folder: Path, config: RunConfig) -> None:
    """Create the folder and atomically write the configuration, including defaults, to `config.yaml`."""
    partial = folder / ".config.yaml"
    with writing(f"output {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        partial.write_text(to_yaml(config), encoding="utf-8")
        partial.replace(folder / "config.yaml")


def to_yaml(config: RunConfig) -> str:
    """The whole configuration as YAML, including defaults."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _empty(folder: Path) -> bool:
    """Hidden files do not count: a run killed at its very start leaves one."""
    return folder.is_dir() and all(path.name.startswith(".") for path in folder.iterdir())


def _has_no_result(folder: Path) -> bool:
    """Whether a run was started in it (it has a lock) but made no evaluation, update or checkpoint."""
    if not (folder / LOCK).is_file():
        return False
    journals = (journal.METRICS, journal.TIMING, journal.PLAYBOOK)
    made = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - BEGUN
    return made <= set(journals) and not any(_size(folder / name) for name in journals)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _check_updates(folder: Path, config: RunConfig) -> None:
    """Raises ResdError if the run has already made more updates than `config` allows."""
    found, most = checkpoint.latest(folder / "checkpoints"), config.stream.max_updates
    if found and most is not None and int(found.name) > most:
        raise ResdError(
            f"stream.max_updates {most}: {folder} has already reached update {found.name}; raise it to "
            "continue, or choose another output"
        )


def _check_same(saved: Path, config: RunConfig) -> None:
    new = flatten(config.model_dump(mode="json"))
    # A setting that did not exist when the run began had its default.
    defaults = flatten(RunConfig().model_dump(mode="json"))
    old = {key: defaults[key] for key in defaults.keys() & new.keys()}
    old |= flatten(yaml.safe_load(saved.read_text(encoding="utf-8")))
    for key in sorted(old.keys() | new.keys()):
        harmless = any(key == name or key.startswith(f"{name}.") for name in HARMLESS)
        if not harmless and old.get(key) != new.get(key):
            raise ResdError(
                f"{key}: {saved.parent} was started with {old.get(key)!r}, not {new.get(key)!r}; "
                "set it back to resume, or choose another output"
            )


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} becomes {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
