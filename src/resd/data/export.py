"""Export of problems for other trainers: parquet with verl's or TRL's columns.

The prompts are complete: the environment's own, as messages. The ground truth is the target if a problem has
one in words, else everything that the grader knows, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resd.environments.base import Environment, KnowsSolutions
from resd.environments.rows import Row, load_rows
from resd.records import Problem, ResdError

if TYPE_CHECKING:
    from resd.environments.code.rows import Task

FORMATS = ("verl", "trl")


def write_parquet(
    folder: Path,
    task: str,
    environment: Environment,
    problems: Mapping[str, Sequence[Problem]],
    truths: Mapping[str, str],
    format_: str,
) -> None:
    """Write `<split>.parquet` for each split. `truths` by problem id: see `ground_truths`.

    Raises ResdError if pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ResdError(f"--format {format_}: needs pyarrow; pip install 'resd[tasks]'") from error
    for split, found in problems.items():
        rows = [
            verl_row(environment.name, task, split, problem, truths[problem.id])
            if format_ == "verl"
            else trl_row(environment, task, problem)
            for problem in found
        ]
        table = pyarrow.Table.from_pylist(rows, schema=_schema(format_))
        pyarrow.parquet.write_table(table, folder / f"{split}.parquet")


def _schema(format_: str) -> Any:
    """An explicit schema, because it cannot be inferred from columns without values."""
    import pyarrow as pa

    text = pa.string()
    chat = pa.list_(pa.struct([("role", text), ("content", text)]))
    if format_ == "trl":
        return pa.schema(
            [("prompt", chat), ("id", text), ("task", text), ("solution", text), ("metadata", text)]
        )
    return pa.schema(
        [
            ("data_source", text),
            ("prompt", chat),
            ("ability", text),
            ("reward_model", pa.struct([("style", text), ("ground_truth", text)])),
            ("extra_info", pa.struct([("split", text), ("index", text)])),
        ]
    )


def verl_row(name: str, task: str, split: str, problem: Problem, truth: str) -> Row:
    """The columns of verl, SDPO and RESD."""
    return {
        "data_source": name,
        "prompt": [dict(message) for message in problem.messages],
        "ability": task,
        "reward_model": {"style": "rule", "ground_truth": truth},
        "extra_info": {"split": split, "index": problem.id},
    }


def trl_row(environment: Environment, task: str, problem: Problem) -> Row:
    """A conversational prompt, a reply that earns the full reward if one is known, and the metadata."""
    solution = environment.solution(problem) if isinstance(environment, KnowsSolutions) else None
    return {
        "prompt": [dict(message) for message in problem.messages],
        "id": problem.id,
        "task": task,
        "solution": solution,
        "metadata": _json(problem.metadata),
    }


def ground_truths(task: str, folder: Path, problems: Mapping[str, Sequence[Problem]]) -> dict[str, str]:
    """What graders compare with, by problem id. `folder` has the rows, the only place with tests of code."""
    if task != "code":
        return {problem.id: ground_truth(problem) for found in problems.values() for problem in found}
    from resd.environments.code.rows import read_task

    rows = {id_: row for split in problems for id_, row in load_rows(task, split, folder)}
    return {id_: tests_of(read_task(id_, row)) for id_, row in rows.items()}


def tests_of(task: Task) -> str:
    """All tests of a programming task, in the form of SDPO."""
    cases = task.tests("all")
    return _json(
        {
            "inputs": [case.input for case in cases],
            "outputs": [case.output for case in cases],
            "testtype": task.kind,
            "fn_name": task.entry,
            "time_limit": task.time_limit,
        }
    )


def ground_truth(problem: Problem) -> str:
    """The target in words, several with commas between them, as published; else the metadata as JSON."""
    target = problem.metadata.get("target")
    if isinstance(target, str):
        return target
    if isinstance(target, list | tuple) and all(isinstance(part, str) for part in target):
        return ",".join(target)
    return _json(problem.metadata)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return dict(value) if isinstance(value, Mapping) else str(value)
