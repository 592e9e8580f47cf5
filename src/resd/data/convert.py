"""Rows of verl's and TRL's columns, as rows of a task.

verl, SDPO and RESD: `prompt` (messages), `reward_model.ground_truth`, `extra_info`. TRL: `prompt` (text or
messages) beside a column with the answer. What a task's own environment reads is left as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from resd.environments.rows import Row
from resd.records import ResdError

# The fields for question and answer in tasks whose rows need only these two.
_FIELDS = {
    "finer": ("context", "target"),
    "formula": ("context", "target"),
    "multiple_choice": ("prompt", "answer"),
    "math": ("problem", "answer"),
    "tool_use": ("prompt", "answer"),
    "code": ("prompt", "tests"),
}
# One of these fields, as text or list, marks a row of the task's own format.
_OWN = {
    "manufactoria": ("problem_family",),
    "bouncingsim": ("positions",),
    "finer": ("context",),
    "formula": ("context",),
    "multiple_choice": ("Correct Answer", "options"),
    "math": ("problem", "question"),
    "ifeval": ("instruction_id_list",),
    "code": ("tests", "test", "private_test_cases"),
}
_ANSWERS = ("answer", "solution", "target", "ground_truth", "completion")


def as_rows(task: str, rows: Sequence[Row], where: str) -> list[Row]:
    """Every row in the task's own format. Raises ResdError, naming the row, if one cannot be converted."""
    return [as_row(task, row, f"{where}, row {i}") for i, row in enumerate(rows)]


def as_row(task: str, row: Row, where: str) -> Row:
    """One row in the task's own format."""
    if "reward_model" in row:
        return row if task == "ifeval" else _from_verl(task, row, where)
    if any(row.get(field) for field in _OWN.get(task, ())):
        return row
    if isinstance(row.get("prompt"), str) and task in ("multiple_choice", "tool_use") and "answer" in row:
        return row
    if "prompt" in row and task in _FIELDS:
        return _from_trl(task, row, where)
    raise ResdError(
        f"{where}: its columns ({', '.join(row) or 'none'}) are neither those of {task} nor can be converted "
        f"to them; `resd data list {task}` says what it reads"
    )


def _from_verl(task: str, row: Row, where: str) -> Row:
    truth = _mapping(row, "reward_model", where).get("ground_truth")
    if truth is None:
        raise ResdError(f"{where}: has no reward_model.ground_truth")
    extra = _mapping(row, "extra_info", where)
    if task == "manufactoria":
        named = {key: extra[key] for key in ("problem_family", "name", "difficulty") if key in extra}
        return {**named, "test_cases": _loaded(truth, where) if isinstance(truth, str) else truth}
    if task not in _FIELDS:
        raise ResdError(f"{where}: verl's columns do not hold what {task} needs; give rows of its own format")
    question, answer = _FIELDS[task]
    others = _mapping(row, "others", where)
    asked = others.get("original_context") or extra.get("problem") or extra.get("question")
    return {question: asked or _last_user(row, where), answer: _text(truth)}


def _from_trl(task: str, row: Row, where: str) -> Row:
    question, answer = _FIELDS[task]
    given = next((row[key] for key in _ANSWERS if row.get(key) is not None), None)
    if given is None:
        raise ResdError(f"{where}: has no answer (a column called {', '.join(_ANSWERS)})")
    said = given[-1]["content"] if _is_chat(given) else _text(given)
    return {question: _last_user(row, where), answer: said}


def _mapping(row: Row, column: str, where: str) -> Mapping[str, Any]:
    value = row.get(column) or {}
    if not isinstance(value, Mapping):
        raise ResdError(f"{where}: {column} is not an object with fields")
    return value


def _loaded(truth: str, where: str) -> Any:
    try:
        return json.loads(truth)
    except (ValueError, RecursionError) as error:
        raise ResdError(f"{where}: reward_model.ground_truth is not JSON ({error})") from error


def _last_user(row: Row, where: str) -> str:
    prompt = row.get("prompt")
    if isinstance(prompt, str):
        return prompt
    chat = prompt if isinstance(prompt, list) and _is_chat(prompt) else []
    said = [message["content"] for message in chat if message.get("role") == "user"]
    if not said or not isinstance(said[-1], str):
        raise ResdError(f"{where}: prompt is neither text nor messages with one of the user")
    return said[-1]


def _is_chat(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(m, Mapping) and "content" in m for m in value)
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
