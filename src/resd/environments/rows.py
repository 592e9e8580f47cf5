"""Rows of a task's data: where they are, and how a split is found in a file or folder.

A task reads JSON Lines, JSON (an array, or one object per line) and parquet. Its rows come from the given
path, or from the copy made by `resd data prepare`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from resd.records import Message, ResdError

Row = dict[str, Any]
# For each split, patterns of file names; the first that matches anything wins.
Patterns = Mapping[str, Sequence[str]]
SPLITS: Patterns = {
    "train": ("train.*", "*train*"),
    "validation": ("validation.*", "val.*", "*validation*", "*_val*"),
    "test": ("test.*", "*test*"),
}
SUFFIXES = (".jsonl", ".json", ".parquet")
RECORD = "source.json"  # beside prepared rows: where they are from
# Where the files of tasks are that no command fetches.
ACE = "https://github.com/ace-agent/ace, folder finance/data"
TOOLUSE = "https://github.com/lasgroup/SDPO, folder datasets/tooluse"
BY_HAND = {"finer": ACE, "formula": ACE, "tool_use": TOOLUSE}
_ROLES = ("system", "user", "assistant", "tool")


def load_rows(
    task: str, split: str, path: str | Path | None = None, patterns: Patterns = SPLITS
) -> list[tuple[str, Row]]:
    """(id, row) for each row of a split, in the order of the file.

    Of a folder, the files that `patterns` name for the split; of a file, or a folder with one file that no
    pattern names, the rows whose `split` field says so, or all rows where they have none: such a file is
    every split. An id names file and row, so that one
    row has the same id in every split that it is in. Raises ResdError for what is not there, and for a row of
    a split that is not known: it would be in none.
    """
    if split not in patterns:
        raise ResdError(f"{task}: split {split!r} is not known; choose one of {', '.join(patterns)}")
    source = data_path(task, path)
    if source.is_dir():
        files = _files(task, source, split, patterns)
    else:
        source, files = source.parent, [source]
    found = [pair for file in files for pair in _numbered(task, file, source)]
    kept = [(id_, row) for id_, row in found if _split_of(row, split, id_, patterns) == split]
    if not kept:
        why = f"none of the {len(found)} rows in" if found else "no row in"
        raise ResdError(f"{task}: {why} {files[0]} is for split {split}; give a file or folder that has some")
    return kept


def data_path(task: str, path: str | Path | None) -> Path:
    """The file or folder with the data of `task`: `path`, or the prepared copy."""
    if path is not None:
        given = Path(path).expanduser()
        if not given.exists():
            raise ResdError(f"{task}: path {given} does not exist; give a file or folder of its data")
        return given
    prepared = data_home() / task
    if not prepared.is_dir():
        command = f"run `resd data prepare {task}`"
        if task in BY_HAND:
            command = f"get the files of {BY_HAND[task]}, run `resd data prepare {task} --source FOLDER`"
        raise ResdError(
            f"{task}: there is no data in {prepared}; {command}, or give a path (environment.options.path)"
        )
    return prepared


def data_home() -> Path:
    """Where prepared data lies: $RESD_DATA, else `resd/data` in the user's cache folder."""
    if chosen := os.environ.get("RESD_DATA"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "resd" / "data"


def row_files(folder: Path, pattern: str = "*") -> list[Path]:
    """The files of rows in a folder and below it, sorted."""
    return sorted(file for file in folder.rglob(pattern) if file.suffix in SUFFIXES and file.name != RECORD)


def read_rows(file: Path) -> list[Row]:
    """All rows of a file. Raises ResdError, naming the file and the line from 1, or the row of an array
    from 0 as in ids, for what is no row."""
    if file.suffix == ".parquet":
        return _read_parquet(file)
    if file.suffix not in SUFFIXES:
        raise ResdError(f"{file}: is not a file of rows ({', '.join(SUFFIXES)}); unpack or convert it")
    try:
        text = file.read_text(encoding="utf-8-sig")  # Windows writes a mark of byte order first
    except (OSError, UnicodeDecodeError) as error:
        raise ResdError(f"{file}: cannot be read as UTF-8 text ({error})") from error
    if file.suffix == ".json" and text.lstrip().startswith("["):
        return [_checked(row, f"{file}, row {i}") for i, row in enumerate(_parsed(text, str(file)))]
    return [
        _checked(_parsed(line, f"{file}, line {i}"), f"{file}, line {i}")
        for i, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]


def chat_of(prompt: Any, where: str) -> tuple[Message, ...]:
    """A prompt, text or messages, as messages of text that end with the user's. Raises ResdError."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not isinstance(messages, list | tuple) or not all(_is_message(m) for m in messages):
        raise ResdError(f"{where}: prompt is neither text nor a list of {{role, content}} with text")
    if not messages or messages[-1]["role"] != "user":
        raise ResdError(f"{where}: prompt does not end with a message of the user")
    return tuple({"role": m["role"], "content": m["content"]} for m in messages)


def _files(task: str, folder: Path, split: str, patterns: Patterns) -> list[Path]:
    for pattern in patterns[split]:
        if found := row_files(folder, pattern):
            return found
    files = row_files(folder)
    if len(files) == 1 and not any(row_files(folder, p) for each in patterns.values() for p in each):
        return files
    looked = " or ".join(patterns[split])
    raise ResdError(
        f"{task}: {folder} has no file for split {split} ({looked}); give one that has, or divide what "
        "there is with `resd data split-tasks`"
    )


def _numbered(task: str, file: Path, folder: Path) -> Iterator[tuple[str, Row]]:
    name = file.relative_to(folder).with_suffix("").as_posix()
    for index, row in enumerate(read_rows(file)):
        yield f"{task}/{name}/{index:05d}", row


def _split_of(row: Row, wanted: str, id_: str, known: Patterns) -> str:
    """The split that a row says it is of; the one that is `wanted` where it says none."""
    split: Any = row.get("split", wanted)
    if not isinstance(split, str) or split not in known:
        raise ResdError(f"{id_}: is of split {split!r}, which is none of {', '.join(known)}; rename it")
    return split


def _read_parquet(file: Path) -> list[Row]:
    try:
        import pyarrow.lib
        import pyarrow.parquet
    except ImportError as error:
        raise ResdError(f"{file}: parquet needs pyarrow; pip install 'resd[tasks]'") from error
    try:
        rows: list[Row] = pyarrow.parquet.read_table(file).to_pylist()
    except (OSError, pyarrow.lib.ArrowException) as error:
        raise ResdError(f"{file}: is not a readable parquet file ({error})") from error
    return rows


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        wanted = "a file of rows has one JSON object a line, or is one array"
        raise ResdError(f"{where}: is not JSON ({error}); {wanted}") from error


def _checked(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise ResdError(f"{where}: is not a JSON object, and a row must be one")
    return row


def _is_message(message: Any) -> bool:
    return (
        isinstance(message, Mapping)
        and message.get("role") in _ROLES
        and isinstance(message.get("content"), str)
    )
