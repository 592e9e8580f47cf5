"""Instructions as the data states them: an id and its parameters, checked before anything is graded."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resd.environments.ifeval.checks import CHECKS
from resd.records import ResdError

RELATIONS = ("at least", "less than")


@dataclass(frozen=True, slots=True)
class Instruction:
    """Something a reply must do. `parameters` are exactly those that its check takes."""

    id: str
    parameters: Mapping[str, Any]

    def wrong(self, reply: str) -> str:
        """What is wrong with the reply, in one sentence; "" where it follows the instruction.

        As published, a blank reply follows nothing.
        """
        if not reply.strip():
            return f"{self.id}: the reply is empty."
        return CHECKS[self.id](reply, **self.parameters)


def parse_instruction(id_: str, parameters: Any, where: str = "ifeval") -> Instruction:
    """An instruction from the data: `parameters` may be a mapping or JSON, with nulls for those not meant.

    Parameters that the check does not take are left out. Raises ResdError for an unknown id, and for a
    parameter that is missing or of the wrong kind.
    """
    if id_ not in CHECKS:
        raise ResdError(f"{where}: instruction {id_!r} is not known; known: {', '.join(sorted(CHECKS))}")
    given = {} if parameters is None else plain(parameters)
    if not isinstance(given, dict):
        raise ResdError(f"{where}: the kwargs of {id_} are not an object with named values: {given!r}")
    return Instruction(id_, {name: _parameter(id_, name, given, where) for name in _names(id_)})


def parse_instructions(truth: Any, where: str) -> tuple[Instruction, ...]:
    """All instructions of a row: `instruction_id_list` and `kwargs`, one for each. Raises ResdError."""
    truth = plain(truth)
    if not isinstance(truth, dict):
        raise ResdError(f"{where}: has no ground truth with instruction_id_list and kwargs")
    ids, parameters = plain(truth.get("instruction_id_list")), plain(truth.get("kwargs"))
    if not isinstance(ids, list) or not isinstance(parameters, list) or len(ids) != len(parameters):
        raise ResdError(f"{where}: instruction_id_list and kwargs must be lists of equal length")
    if not ids:
        raise ResdError(f"{where}: has no instructions; leave such rows out")
    return tuple(parse_instruction(id_, given, where) for id_, given in zip(ids, parameters, strict=True))


def plain(value: Any) -> Any:
    """Arrays as lists, and JSON text of an object or list as what it says."""
    to_list: Any = getattr(value, "tolist", None)
    if to_list is not None:
        return to_list()
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _names(id_: str) -> list[str]:
    return list(inspect.signature(CHECKS[id_]).parameters)[1:]


def _parameter(id_: str, name: str, given: Mapping[str, Any], where: str) -> Any:
    value = given.get(name)
    if value is None:
        raise ResdError(f"{where}: {id_} needs {name} in its kwargs")
    read: Callable[[Any], Any] = _KINDS.get(name, _count)
    try:
        return read(value)
    except (TypeError, ValueError) as error:
        raise ResdError(f"{where}: {name} of {id_} cannot be {value!r}; {error}") from error


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ValueError("give a whole number")
    return int(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("give a text")
    return value


def _texts(value: Any) -> list[str]:
    value = plain(value)
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ValueError("give a list of words")
    return [_text(item) for item in value]


def _relation(value: Any) -> str:
    if value not in RELATIONS:
        raise ValueError(f"give one of {', '.join(RELATIONS)}")
    return str(value)


# How parameters are read; those not named here are counts.
_KINDS: Mapping[str, Callable[[Any], Any]] = {
    "keywords": _texts,
    "forbidden_words": _texts,
    **dict.fromkeys(("relation", "let_relation", "capital_relation"), _relation),
    **dict.fromkeys(("keyword", "letter", "language", "first_word", "end_phrase"), _text),
    **dict.fromkeys(("postscript_marker", "section_spliter", "prompt_to_repeat"), _text),
}
