"""Train and test: by task, or by the tests of each task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from resd.data.convert import as_rows
from resd.environments.rows import SUFFIXES, Row, read_rows, row_files
from resd.records import ResdError

# Fields that contain the question, in the tasks' formats and the hub's.
_QUESTIONS = ("prompt", "question", "Question", "problem", "context", "question_content", "name")


def split_tasks(path: Path, test_ratio: float, seed: int) -> tuple[list[Row], list[Row]]:
    """(train, test) of all rows of a file or folder. Raises ResdError if one would be empty."""
    rows = [{k: v for k, v in row.items() if k != "split"} for row in all_rows(path)]
    if not 0 < test_ratio < 1:
        raise ResdError(f"--test-ratio {test_ratio:g}: must lie between 0 and 1")
    train, test = by_question(rows, test_ratio, seed)
    if not train or not test:
        raise ResdError(
            f"{path}: of {len(rows)} rows, --test-ratio {test_ratio:g} leaves {len(train)} to train and "
            f"{len(test)} to test on; both are needed"
        )
    return train, test


def by_question(rows: Sequence[Row], test_ratio: float, seed: int) -> tuple[list[Row], list[Row]]:
    """(train, test), in the order of `rows`: rows with the same question stay on the same side."""
    questions = sorted({asked(row) for row in rows})
    held = set(Random(seed).sample(questions, round(len(questions) * test_ratio)))
    return [row for row in rows if asked(row) not in held], [row for row in rows if asked(row) in held]


def asked(row: Row) -> str:
    """A row's question as text; the whole row if no known field contains it."""
    known = [row[field] for field in _QUESTIONS if row.get(field)]
    return json.dumps(known or row, sort_keys=True, default=str)


def split_tests(path: Path, seed: int, *, as_released: bool = False) -> tuple[list[Row], list[Row]]:
    """(train, test) of programming tasks: half of each task's tests, at least one, are for training.

    The other half is for testing; `as_released` keeps all tests for testing, which then includes what was
    trained on. Tasks with one test, or whose tests are one text, are for testing only. Raises ResdError for
    rows without tests, and if no task can be split.
    """
    train, test = [], []
    for number, row in enumerate(as_rows("code", all_rows(path), str(path))):
        tests = tests_of(row, f"{path}, row {number}")
        count = len(tests["inputs"])
        if count < 2:
            test.append(row)
            continue
        kept = sorted(Random(f"{seed} {asked(row)}").sample(range(count), count // 2))
        rest = [i for i in range(count) if i not in kept]
        train.append(_with_tests(row, tests, kept))
        test.append(row if as_released else _with_tests(row, tests, rest))
    if not train:
        raise ResdError(f"{path}: no task has two tests or more, so none can be divided; use split-tasks")
    return train, test


def tests_of(row: Row, where: str) -> dict[str, Any]:
    """`inputs`, `outputs` and a row's other fields on its tests; empty if the tests are a program."""
    if "private_test_cases" in row:
        from resd.environments.code.private import decode_private

        cases = decode_private(row["private_test_cases"], where)
        return {"inputs": cases, "outputs": cases}
    tests = row.get("tests")
    if isinstance(tests, str) and tests.lstrip().startswith("{"):
        tests = json.loads(tests)
    if isinstance(tests, dict) and isinstance(tests.get("inputs"), list):
        return tests
    return {"inputs": [], "outputs": []}


def _with_tests(row: Row, tests: dict[str, Any], kept: Sequence[int]) -> Row:
    if "private_test_cases" in row:
        return {**row, "private_test_cases": json.dumps([tests["inputs"][i] for i in kept])}
    chosen = {key: [tests[key][i] for i in kept] for key in ("inputs", "outputs")}
    if "public" in row:  # the first so many may be shown
        row = {**row, "public": sum(i < row["public"] for i in kept)}
    return {**row, "tests": json.dumps({**tests, **chosen}, ensure_ascii=False)}


def write_split(out: Path, train: Sequence[Row], test: Sequence[Row]) -> None:
    """Write train.jsonl and test.jsonl to a folder. Raises ResdError if they already exist."""
    files = {out / "train.jsonl": train, out / "test.jsonl": test}
    if standing := [file for file in files if file.exists()]:
        raise ResdError(f"--out {out}: {standing[0].name} is already there; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    for file, rows in files.items():
        lines = [json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows]
        file.write_text("".join(lines), encoding="utf-8")


def all_rows(path: Path) -> list[Row]:
    """The rows of a file, or of all files of a folder. Raises ResdError if there are none."""
    if not path.exists():
        raise ResdError(f"{path}: does not exist; give a file or folder of rows")
    rows = [row for file in ([path] if path.is_file() else row_files(path)) for row in read_rows(file)]
    if not rows:
        raise ResdError(f"{path}: contains no rows ({', '.join(SUFFIXES)})")
    return rows
