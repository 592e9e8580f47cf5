"""Rows of a task from a file or folder, or from the task's own generator."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resd import environments
from resd.data.convert import as_rows
from resd.data.hub import Files
from resd.data.origins import Origin
from resd.environments import finer, formula
from resd.environments.rows import SPLITS, Patterns, Row, read_rows, row_files
from resd.records import ResdError


def from_path(origin: Origin, path: Path) -> Files:
    """Rows by the file they go to, in the task's own format: "train", "chemistry/test", "multiobj_easy".

    From a folder, the files whose names say their split; from a file, its rows by their field `split`, or all
    rows if the file's name says it. Raises ResdError if the path does not exist or the split is not given.
    """
    if not path.exists():
        raise ResdError(f"--source {path}: does not exist; give {_wanted(origin)}")
    if origin.task == "bouncingsim":
        return _scenes(origin, path)
    files: Files = defaultdict(list)
    found = _files(origin, path)
    for file, split in found:
        rows = as_rows(origin.task, read_rows(file), str(file))
        folder = file.parent.relative_to(path) if path.is_dir() else Path()
        for row in rows:
            files[(folder / split_of(row, split, file)).as_posix()].append(row)
    if not files:
        lacks = "no rows" if found else "no file of a split"
        raise ResdError(f"--source {path}: holds {lacks}; give {_wanted(origin)}")
    return dict(files)


def split_of(row: Row, split: str | None, file: Path) -> str:
    """The split given by a row, or by its file's name. Raises ResdError if neither gives one."""
    said = row.get("split", split)
    if said not in SPLITS:
        raise ResdError(
            f"--source {file}: does not say which rows are for training, and which for testing; divide it "
            "with `resd data split-tasks`, or give a folder with train.jsonl and test.jsonl"
        )
    return str(said)


def generate(origin: Origin, options: Mapping[str, Any]) -> Files:
    """The rows that the task's own generator makes."""
    if origin.task == "bouncingsim":
        from resd.environments.bouncingsim.generator import generated_rows

        return {f"multiobj_{origin.set}": list(generated_rows(origin.set, int(options.get("seed", 0))))}
    environment: Any = environments.load(origin.task, **options)
    return {
        split: [_tapes(environment, problem) for problem in environment.problems(split)]
        for split in ("train", "test")
    }


def _tapes(environment: Any, problem: Any) -> Row:
    """A problem of Manufactoria, in the published format."""
    cases = [
        {
            "input": case.tape,
            "expected_output": case.output or "",
            "expected_accepted": case.accept,
            "check_output": case.output is not None,
        }
        for case in environment.cases(problem)
    ]
    return {
        "problem_family": problem.metadata["family"],
        "params": dict(problem.metadata["params"]),
        "name": problem.id,
        "test_cases": cases,
    }


def _files(origin: Origin, path: Path) -> list[tuple[Path, str | None]]:
    """(file, split given by its name, or None)."""
    patterns = _patterns(origin.task)
    only = "test" if {part.goes_to for part in origin.parts} == {"test"} else None
    if path.is_file():
        return [(path, named_split(path, patterns) or only)]
    if only:
        return [(file, named_split(file, patterns) or only) for file in row_files(path)]
    found: list[tuple[Path, str | None]] = []
    for split, names in patterns.items():
        for name in names:
            if files := row_files(path, name):
                found += [(file, split) for file in files]
                break
    return found


def _patterns(task: str) -> Patterns:
    return {"finer": finer.FILES, "formula": formula.FILES}.get(task, SPLITS)


def named_split(file: Path, patterns: Patterns = SPLITS) -> str | None:
    """The split given by a file's name, as a separate word: HumanEval is not a validation file."""
    if patterns is not SPLITS:
        return next((s for s, names in patterns.items() if any(file.match(name) for name in names)), None)
    words = set(re.findall(r"[a-z]+", file.stem.lower()))
    said = [split for split in SPLITS if words & {split, split.removesuffix("idation")}]
    return said[0] if len(said) == 1 else None


def _scenes(origin: Origin, path: Path) -> Files:
    """One file for each level; its rows say their split."""
    names = (f"multiobj_{origin.set}.*", f"*{origin.set}*")
    files = [path] if path.is_file() else [f for name in names for f in sorted(path.rglob(name))][:1]
    if not files:
        raise ResdError(f"--source {path}: has no file multiobj_{origin.set}.jsonl; give {_wanted(origin)}")
    rows = as_rows(origin.task, read_rows(files[0]), str(files[0]))
    return {f"multiobj_{origin.set}": [{**row, "split": split_of(row, None, files[0])} for row in rows]}


def _wanted(origin: Origin) -> str:
    return f"a file or folder of rows with {origin.formats} (.jsonl, .json or .parquet)"
