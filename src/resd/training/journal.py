"""The files that a run appends to, and restoring them on resume as if the run had never stopped.

A checkpoint stores the length of every journal in bytes. On resume each journal is truncated to that length,
so the lines of lost updates are rewritten and appear once.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from resd.context import journal
from resd.writing import RESUME, writing

METRICS, TIMING, PLAYBOOK = "metrics.jsonl", "timing.jsonl", "playbook.jsonl"
# Folders with one file per update, named by its step.
ROLLOUTS, EVALUATIONS, TOKENS = "rollouts", "evaluations", "tokens"


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows. NaN and infinity, which JSON lacks, become null."""
    journal.append(path, [{key: _finite(value) for key, value in row.items()} for row in rows])


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a new file with these rows, replacing any existing one."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with writing(f"journal {path}", RESUME):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


def read(path: Path) -> list[dict[str, Any]]:
    """Read all rows, without a last line that a kill cut short; a missing file has none."""
    return [row for _, row in journal.read(path)] if path.is_file() else []


def lengths(run: Path) -> dict[str, int]:
    """The size in bytes of each journal, after syncing to disk."""
    return {name: _synced_size(run / name) for name in (METRICS, TIMING, PLAYBOOK)}


def cut_back(run: Path, sizes: Mapping[str, int], step: int) -> None:
    """Discard what was written after the checkpoint of `step`, whose journals had these `sizes`."""
    for name in (METRICS, TIMING, PLAYBOOK):
        journal.cut(run / name, sizes.get(name, 0))
    for folder in (ROLLOUTS, EVALUATIONS, TOKENS):
        for path in (run / folder).glob("*.jsonl"):
            if int(path.stem) > step:
                with writing(f"journal {path}", RESUME):
                    path.unlink()


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _synced_size(path: Path) -> int:
    if not path.exists():
        return 0
    with writing(f"journal {path}", RESUME), path.open("rb+") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size
