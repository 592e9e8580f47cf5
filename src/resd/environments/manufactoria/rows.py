"""Rows of files: the published problems, with the tapes that they were published with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from resd.environments.manufactoria.families import FAMILIES
from resd.environments.manufactoria.family import FOUR_COLOURS, Case, Params
from resd.records import ResdError

_REQUIRED = re.compile(rf"([1-9]) ([{FOUR_COLOURS}])s?")
_BEFORE = re.compile(r"Need |At least ")
_SEQUENCE = re.compile(rf"Contains '?([{FOUR_COLOURS}]+)'?")


def read_row(row: Mapping[str, Any], id_: str) -> tuple[str, Params, tuple[Case, ...]]:
    """(family name, params, cases). The published HAS rows have their parameters only in `name`.

    Raises ResdError, naming the row, for an invalid family, parameters or tapes.
    """
    name = row.get("problem_family")
    if not isinstance(name, str) or name not in FAMILIES:
        raise ResdError(f"manufactoria: row {id_}: problem_family {name!r} is not known")
    return name, _params(row, id_), _cases(row, id_)


def _params(row: Mapping[str, Any], id_: str) -> Params:
    if isinstance(params := row.get("params"), dict):
        return params
    name = str(row.get("name"))
    if found := _SEQUENCE.fullmatch(name):
        return {"sequence": found[1]}
    required = [_REQUIRED.fullmatch(part) for part in _BEFORE.sub("", name).split(" and ")]
    if row["problem_family"] == "contains_count" and all(required):
        return {"requirements": [[part[2], int(part[1])] for part in required if part]}
    raise ResdError(
        f"manufactoria: row {id_}: has no params, and its name {name!r:.60} does not contain them"
    )


def _cases(row: Mapping[str, Any], id_: str) -> tuple[Case, ...]:
    try:
        cases = tuple(
            Case(
                tape=case["input"],
                accept=case["expected_accepted"],
                output=case["expected_output"] if case.get("check_output") else None,
            )
            for case in row["test_cases"]
        )
    except (KeyError, TypeError) as error:
        raise ResdError(f"manufactoria: row {id_}: test_cases cannot be read ({error!r:.80})") from error
    if not cases or not all(isinstance(case.tape, str) and isinstance(case.accept, bool) for case in cases):
        raise ResdError(
            f"manufactoria: row {id_}: test_cases want input as text and expected_accepted as bool"
        )
    return cases
