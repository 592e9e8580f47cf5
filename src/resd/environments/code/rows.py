"""Rows of programming tasks, as what is asked and what is tested.

Three kinds: LiveCodeBench (`question_content`, `public_test_cases`, `private_test_cases`, `metadata`);
HumanEval (`prompt`, `entry_point`, `test`); and prepared ones: `prompt`, `starter_code`, and `tests`, a dict
or JSON text of {inputs, outputs, testtype, fn_name, time_limit}, also as `reward_model.ground_truth` of the
trainer's rows. `tests` may also hold `public`, the number of tests, counted from the first, that may be shown
(without it all may), and `context`, Python that the statement promises to be defined.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from resd.environments.answers import text_of
from resd.environments.code.assertions import called_name, check_source, helpers_of
from resd.environments.code.private import decode_private
from resd.environments.rows import Row
from resd.records import Message, ResdError

Kind = Literal["stdin", "functional", "code"]
KINDS = ("stdin", "functional", "code")
TIME_LIMIT = 1.0  # seconds, where a row has none
_LIVECODEBENCH_TIME_LIMIT = 6.0
_HUMANEVAL_TIME_LIMIT = 5.0


@dataclass(frozen=True, slots=True)
class Case:
    """One test: standard input, arguments, or a test source; and the output, or the value."""

    input: Any
    output: Any = None
    public: bool = True


@dataclass(frozen=True, slots=True)
class Task:
    """What a row says.

    `entry` is the function to define, "" for programs on standard input; `starter` its signature; `helpers`
    what the prompt promises to be defined; `chat` the prompt, where it is to be put as it is; `packed`
    private tests that are read when needed.
    """

    id: str
    prompt: str
    kind: Kind
    cases: tuple[Case, ...]
    time_limit: float
    entry: str = ""
    starter: str = ""
    helpers: str = ""
    solution: str | None = None
    chat: tuple[Message, ...] = ()
    packed: str = field(default="", repr=False)

    def tests(self, which: str) -> tuple[Case, ...]:
        """ "public", "all", or "half": every second one. Raises ResdError where there are none."""
        cases = self.cases
        if self.packed and which != "public":
            cases += _private(self.packed, self.id, self.kind)
        if which == "public":
            cases = tuple(case for case in cases if case.public)
        elif which == "half":
            cases = cases[::2]
        if not cases:
            raise ResdError(f"{self.id}: has no {which} tests; choose others, or leave that row out")
        return cases


def read_task(id_: str, row: Row) -> Task:
    """Raises ResdError, naming the row, for one that cannot be understood."""
    if "question_content" in row:
        return _livecodebench(id_, row)
    if "entry_point" in row:
        return _humaneval(id_, row)
    return _prepared(id_, row)


def _livecodebench(id_: str, row: Row) -> Task:
    listed = _listed(_json(row.get("public_test_cases", "[]"), f"{id_}: public_test_cases"), id_)
    kind: Kind = "functional" if listed and listed[0].get("testtype") == "functional" else "stdin"
    metadata = _json(row.get("metadata") or "{}", f"{id_}: metadata")
    entry = metadata.get("func_name") or "" if isinstance(metadata, dict) else ""
    packed = row.get("private_test_cases") or ""
    return _checked(Task(
        id=id_,
        prompt=text_of(row, "question_content", id_),
        kind=kind,
        cases=tuple(_case(case.get("input"), case.get("output"), kind, id_, True) for case in listed),
        time_limit=_LIVECODEBENCH_TIME_LIMIT,
        entry=entry if kind == "functional" else "",
        starter=row.get("starter_code") or "",
        packed=packed if isinstance(packed, str) else json.dumps(packed),
    ))  # fmt: skip


def _humaneval(id_: str, row: Row) -> Task:
    prompt, entry, source = (text_of(row, key, id_) for key in ("prompt", "entry_point", "test"))
    check_source(source, id_)
    solution = row.get("canonical_solution")
    return Task(
        id=id_,
        prompt=prompt,
        kind="code",
        cases=(Case(source),),
        time_limit=_HUMANEVAL_TIME_LIMIT,
        entry=entry,
        helpers=helpers_of(prompt, entry),
        solution=prompt + solution if isinstance(solution, str) and solution else None,
    )


def _prepared(id_: str, row: Row) -> Task:
    model = row.get("reward_model")
    truth = row.get("tests") or (model.get("ground_truth") if isinstance(model, dict) else None)
    tests = _json(truth, f"{id_}: tests") if truth else None
    if not isinstance(tests, dict):
        raise ResdError(f"{id_}: is not a row of LiveCodeBench or HumanEval, and has no tests")
    kind: Kind = tests.get("testtype", "")
    if kind not in KINDS:
        raise ResdError(f"{id_}: testtype {kind!r} is not known; give one of {', '.join(KINDS)}")
    chat = _chat(id_, row)
    prompt = chat[-1]["content"]
    entry = tests.get("fn_name") or ""
    pairs = _pairs(tests, kind, id_)
    if kind == "code":
        for source, _ in pairs:
            check_source(source, id_)
        entry = entry or called_name(pairs[0][0], id_)
    shown = tests.get("public", len(pairs))
    return _checked(Task(
        id=id_,
        prompt=prompt,
        kind=kind,
        cases=tuple(_case(i, o, kind, id_, number < shown) for number, (i, o) in enumerate(pairs)),
        time_limit=_seconds(tests.get("time_limit"), id_),
        entry=entry if kind != "stdin" else "",
        starter=row.get("starter_code") or "",
        helpers=_context(tests.get("context"), id_) or helpers_of(prompt, entry),
        chat=chat if isinstance(row["prompt"], list) else (),
    ))  # fmt: skip


def _pairs(tests: Mapping[str, Any], kind: Kind, where: str) -> list[tuple[Any, Any]]:
    inputs, outputs = tests.get("inputs"), tests.get("outputs")
    if kind == "code" and isinstance(inputs, list):
        outputs = [None] * len(inputs)
    if not isinstance(inputs, list) or not isinstance(outputs, list) or not inputs:
        raise ResdError(f"{where}: inputs and outputs of its tests must be lists, with one item a test")
    if len(inputs) != len(outputs):
        raise ResdError(f"{where}: has {len(inputs)} inputs and {len(outputs)} outputs; give as many of each")
    return list(zip(inputs, outputs, strict=True))


def _case(given: Any, wanted: Any, kind: Kind, where: str, public: bool) -> Case:
    if kind == "functional":
        arguments = _values(given, where) if isinstance(given, str) else given
        if not isinstance(arguments, list):
            raise ResdError(f"{where}: an input of its tests is not a list of arguments: {given!r}")
        return Case(arguments, _value(wanted), public)
    if not isinstance(given, str) or not isinstance(wanted, str | None):
        raise ResdError(f"{where}: inputs and outputs of {kind} tests must be texts")
    return Case(given, wanted, public)


def _values(text: str, where: str) -> list[Any]:
    """One JSON value after the other, as LiveCodeBench writes arguments."""
    found, position = [], 0
    try:
        while rest := text[position:].lstrip():
            value, used = json.JSONDecoder().raw_decode(rest)
            found.append(value)
            position = len(text) - len(rest) + used
    except (ValueError, RecursionError) as error:
        raise ResdError(f"{where}: the arguments of a test are not JSON ({error})") from error
    return found


def _value(wanted: Any) -> Any:
    try:
        return json.loads(wanted) if isinstance(wanted, str) else wanted
    except (ValueError, RecursionError):
        return wanted


@lru_cache(maxsize=16)  # unpacked tests can be many megabytes
def _private(packed: str, where: str, kind: Kind) -> tuple[Case, ...]:
    listed = _listed(decode_private(packed, where), where)
    return tuple(_case(case.get("input"), case.get("output"), kind, where, False) for case in listed)


def _checked(task: Task) -> Task:
    if task.kind != "stdin" and not task.entry.isidentifier():
        raise ResdError(f"{task.id}: {task.entry!r} is not a function name; a {task.kind} test needs one")
    return task


def _chat(id_: str, row: Row) -> tuple[Message, ...]:
    prompt = row.get("prompt")
    if isinstance(prompt, list) and prompt and all(isinstance(m, dict) and "content" in m for m in prompt):
        return tuple({"role": m["role"], "content": m["content"]} for m in prompt)
    return ({"role": "user", "content": text_of(row, "prompt", id_)},)


def _context(context: Any, where: str) -> str:
    if not context:
        return ""
    if not isinstance(context, str):
        raise ResdError(f"{where}: the context of its tests must be Python source")
    check_source(context, where)
    return context


def _seconds(limit: Any, where: str) -> float:
    if limit is None:
        return TIME_LIMIT
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 < limit < 3600:
        raise ResdError(f"{where}: time_limit {limit!r}: give seconds, more than 0")
    return float(limit)


def _json(value: Any, where: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ResdError(f"{where}: is not JSON ({error})") from error


def _listed(cases: Any, where: str) -> Sequence[Mapping[str, Any]]:
    if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases):
        raise ResdError(f"{where}: its tests are not a list of objects with input and output")
    return cases
