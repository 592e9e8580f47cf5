"""The playbook's journal on disk: JSON Lines, one change per line, each terminated by a newline."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from resd.records import ResdError
from resd.writing import RESUME, writing

Change = dict[str, Any]


def write(path: str | Path, changes: Iterable[Change]) -> None:
    """Write a whole journal atomically: the file is either the old one or the complete new one."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(_encode(changes))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def append(path: str | Path, changes: Iterable[Change]) -> int:
    """Append lines; returns the file's length in bytes, to be stored with the checkpoint."""
    with writing(f"journal {path}", RESUME), Path(path).open("ab") as file:
        file.write(_encode(changes))
        return file.tell()


def cut(path: str | Path, length: int) -> None:
    """Truncate the journal to the length that a checkpoint recorded. Raises ResdError if it is shorter."""
    path = Path(path)
    present = path.stat().st_size if path.exists() else 0
    if present < length:
        raise ResdError(
            f"journal {path}: {present} bytes, but the checkpoint was made at {length}; "
            "restore the file or start a new run"
        )
    if present:
        with writing(f"journal {path}", RESUME):
            os.truncate(path, length)


def read(path: str | Path) -> Iterator[tuple[int, Change]]:
    """Yield (line number, change) for each complete line; a last line without a newline is ignored.

    Raises ResdError, naming file and line, for a line that is not a JSON object.
    """
    try:
        *lines, _torn = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise ResdError(
            f"journal {path}: cannot be read ({error.strerror}); give the path of a file"
        ) from error
    for number, line in enumerate(lines, start=1):
        try:
            change = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise corrupt(path, number, "not valid JSON") from error
        if not isinstance(change, dict):
            raise corrupt(path, number, "not a JSON object")
        yield number, change


def corrupt(path: str | Path, number: int, reason: str) -> ResdError:
    """The error for a line that cannot be replayed."""
    return ResdError(f"journal {path}, line {number}: {reason}; restore the file or cut it before this line")


def _encode(changes: Iterable[Change]) -> bytes:
    return "".join(json.dumps(change) + "\n" for change in changes).encode()
