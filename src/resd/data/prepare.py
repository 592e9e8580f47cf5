"""`resd data prepare`: a task's rows, checked by its environment and put in place at once."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from resd import environments
from resd.data.export import FORMATS, ground_truths, write_parquet
from resd.data.hub import Files, Load, fetch
from resd.data.origins import GENERATOR, HUB, Origin, find_origin, origins_of
from resd.data.sources import from_path, generate
from resd.environments.base import Environment
from resd.environments.rows import RECORD, SPLITS, data_home
from resd.records import Problem, ResdError

ROWS = "rows"


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was written: where, how many problems per split, its source, and the options that read it."""

    folder: Path
    problems: Mapping[str, int]
    origin: Origin
    source: str
    revisions: Mapping[str, str]
    options: Mapping[str, Any] | None

    def lines(self) -> list[str]:
        """A summary to print."""
        counts = ", ".join(f"{count} {split}" for split, count in self.problems.items())
        commits = [f"  {name} at {commit}" for name, commit in self.revisions.items()]
        return [
            f"{self.origin.task} ({self.origin.set}): {counts}",
            f"in: {self.folder}",
            f"from: {self.source}",
            *commits,
            f"licence: {self.origin.licence}",
            *([] if self.options is None else [f"use: {self._setting()}"]),
        ]

    def _setting(self) -> str:
        """As an override on the command line. The environment's default folder needs no path."""
        found = self.folder == data_home() / self.origin.task and GENERATOR not in self.origin.sources
        options = {**(self.options or {}), **({} if found else {"path": self.folder})}
        listed = ", ".join(f"{key}: {value}" for key, value in options.items())
        said = f", options: {{{listed}}}" if options else ""
        return f"'environment={{name: {self.origin.task}{said}}}'"


def prepare(
    task: str,
    *,
    set_: str | None = None,
    source: str | None = None,
    out: Path | None = None,
    revisions: Sequence[str] = (),
    format_: str = ROWS,
    options: Mapping[str, Any] | None = None,
    command: str = "",
    load: Load | None = None,
) -> Prepared:
    """Get the rows of a set, check every one, and write them with a record of their source.

    `source` is "hub", "generator" or a path; `out` is where `environments.load` looks, or any other folder,
    which is replaced if this command wrote it. `format_` "verl" and "trl" write parquet of complete prompts.
    `load` fetches the rows of a part of the hub. Raises ResdError if fetching, reading or writing fails.
    """
    origin = find_origin(task, set_)
    if "path" in (options or {}):
        raise ResdError(
            "--option path: give the source of the rows with --source, and their destination with --out"
        )
    source = source or _default_source(origin)
    folder = _folder(origin, out, format_)
    files, commits = _rows(origin, source, revisions, dict(options or {}), load)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write_rows(made, files)
        given = _options(origin, options or {})
        environment = environments.load(origin.task, path=made, **given)
        problems = _problems(environment, _splits(files), source)
        if format_ != ROWS:
            _replace_rows(made, origin.task, environment, problems, format_)
        counts = {split: len(found) for split, found in problems.items()}
        prepared = Prepared(folder, counts, origin, source, commits, given if format_ == ROWS else None)
        (made / RECORD).write_text(_record(prepared, format_, command), encoding="utf-8")
        made.chmod(0o755)  # mkdtemp keeps others out
        _put(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return prepared


def _default_source(origin: Origin) -> str:
    if not origin.sources:
        raise ResdError(
            f"data: {origin.task} is not on the hub; get its files from {origin.where.partition(';')[0]}, "
            "and give them as --source PATH"
        )
    return origin.sources[0]


def _folder(origin: Origin, out: Path | None, format_: str) -> Path:
    if format_ not in (ROWS, *FORMATS):
        raise ResdError(f"--format {format_}: choose one of {', '.join((ROWS, *FORMATS))}")
    if out is None and format_ != ROWS:
        raise ResdError(f"--format {format_}: is for other programs; give their folder with --out DIR")
    several = len(origins_of(origin.task)) > 1
    home = data_home() / origin.task
    folder = (out or (home / origin.set if several else home)).expanduser().absolute()
    if folder.exists() and not (folder / RECORD).is_file() and (folder.is_file() or any(folder.iterdir())):
        raise ResdError(f"--out {folder}: was not written by `resd data prepare`; choose another folder")
    return folder


def _rows(
    origin: Origin, source: str, revisions: Sequence[str], options: Mapping[str, Any], load: Load | None
) -> tuple[Files, dict[str, str]]:
    if source in (HUB, GENERATOR) and source not in origin.sources:
        known = ", ".join((*origin.sources, "PATH"))
        raise ResdError(f"--source {source}: {origin.task} {origin.set} has no such source; choose {known}")
    if revisions and source != HUB:
        raise ResdError(f"--revision {' '.join(revisions)}: is for --source hub; leave it out")
    if source == HUB:
        return fetch(origin, revisions, load)
    return (generate(origin, options) if source == GENERATOR else from_path(origin, Path(source))), {}


def _options(origin: Origin, options: Mapping[str, Any]) -> dict[str, Any]:
    return {**({"level": origin.set} if origin.task == "bouncingsim" else {}), **options}


def _replace_rows(
    folder: Path,
    task: str,
    environment: Environment,
    problems: Mapping[str, Sequence[Problem]],
    format_: str,
) -> None:
    """Replace the rows by the complete prompts made from them."""
    truths = ground_truths(task, folder, problems)
    shutil.rmtree(folder)
    folder.mkdir()
    write_parquet(folder, task, environment, problems, truths, format_)


def _problems(environment: Environment, splits: Sequence[str], source: str) -> dict[str, Sequence[Problem]]:
    """All problems by split. Raises ResdError, naming source and row, for a row that cannot be read."""
    try:
        return {split: environment.problems(split) for split in splits}
    except ResdError as error:
        raise ResdError(f"--source {source}: {error}") from error


def _splits(files: Files) -> list[str]:
    named = {name.rpartition("/")[2] for name in files}
    said = {str(row["split"]) for rows in files.values() for row in rows if "split" in row}
    return [split for split in SPLITS if split in named | said]


def _write_rows(folder: Path, files: Files) -> None:
    for name, rows in files.items():
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


def _record(prepared: Prepared, format_: str, command: str) -> str:
    origin = {key: value for key, value in asdict(prepared.origin).items() if key != "parts"}
    record = {
        "origin": origin,
        "source": prepared.source,
        "revisions": dict(prepared.revisions),
        "problems": dict(prepared.problems),
        "format": format_,
        "command": command,
    }
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def _put(made: Path, folder: Path) -> None:
    """Rename into place; the old folder is deleted only when the new one is there."""
    if not folder.exists():
        made.rename(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    folder.rename(old / folder.name)
    made.rename(folder)
    shutil.rmtree(old)
