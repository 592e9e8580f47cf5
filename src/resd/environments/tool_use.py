"""Tool use: the calls that answer a question, written as lines (ToolAlpaca; the rows of SDPO).

A call is a line `Action: tool` and `Action Input: {...}` below it. Inputs are read by a JSON decoder, so that
nested objects count, and calls are compared one by one: the published grader merges the inputs of all calls.
A call that a row marks as [Optional] may be left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resd.environments.answers import check_choice, clip, details, text_of, unanswered, wanted
from resd.environments.base import answer_text
from resd.environments.rows import Row, load_rows
from resd.records import Problem, ResdError, Response, Verdict

REWARDS = ("all_or_nothing", "pass_rate")
MAX_FEEDBACK = 3000
_TASK = "tool_use"
_OPTIONAL = "[Optional]"
_MAX_CALLS = 64  # read of one reply
_MAX_BRACKETS = 300  # of one input: keeps nesting far from the recursion limit
_SHOWN = 5  # calls and arguments that feedback describes
_ACTION = re.compile(r"^[ \t*]*Action:(?P<tool>[^\n]*)$", re.MULTILINE)
_INPUT = re.compile(r"[\s*]*Action Input:[\s*`]*(?:json\b\s*)?")
_TOO_DEEP = "its input is nested too deeply"
_AROUND_NAMES = " \t\r*`\"'"
_FORM = (
    "Write each call as two lines, `Action: ` with the name of a tool and `Action Input: ` with a JSON "
    "object."
)
_REQUEST = f"{_FORM} Write all calls that the question needs in one reply, without waiting for results."


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool. `error` says why its input cannot be read, and is "" where it can."""

    tool: str
    arguments: Mapping[str, Any]
    error: str = ""
    optional: bool = False

    def same(self, other: Call) -> bool:
        """Whether both say the same, in JSON: true is not 1."""
        return not self.error and self.tool == other.tool and _json(self.arguments) == _json(other.arguments)


@dataclass(frozen=True)
class ToolUse:
    """The right calls, in any order, and no others. The tests of a problem are its calls.

    Beside the calls wanted, each call too many counts as a test that failed. `reward` "pass_rate" pays for
    the fraction of tests passed; published is "all_or_nothing". Numbers are equal by value (5 and 5.0), and
    the order of arguments does not matter. `reveal_answer` lets the feedback name tools and values that are
    missing; without it, it says which calls and arguments are wrong. A problem's metadata hold its target:
    a tuple of {"tool", "arguments", "optional"}.
    """

    path: str | Path | None = None
    reward: str = "all_or_nothing"
    reveal_answer: bool = True
    name = _TASK

    def __post_init__(self) -> None:
        check_choice(self.name, "reward", self.reward, REWARDS)

    def problems(self, split: str) -> list[Problem]:
        """The rows of a split. Raises ResdError, naming it, for a row that cannot be read."""
        return [_problem(id_, row) for id_, row in load_rows(self.name, split, self.path)]

    def grade(self, problem: Problem, response: Response | str) -> Verdict:
        """Pair the reply's calls with those wanted, and name the differences."""
        target = _target(problem)
        text = answer_text(response)
        calls = read_calls(text)
        if not calls:
            needed = sum(not call.optional for call in target)
            return unanswered(response, max(needed, 1), _FORM, what="`Action:` line")
        right, wrong, missing = paired(calls, target)
        total = right + len(wrong) + len(missing)
        failed = total - right
        feedback = _feedback(calls, wrong, missing, right, self.reveal_answer) if failed else ""
        read = "\n".join(_shown(call) for call in calls)
        reward = right / total if self.reward == "pass_rate" else float(not failed)
        return Verdict(reward, right, total, feedback, details(response, read))

    def solution(self, problem: Problem) -> str:
        """The right calls, optional ones as well."""
        return "\n".join(
            f"Action: {call.tool}\nAction Input: {json.dumps(call.arguments)}" for call in _target(problem)
        )


def read_calls(text: str) -> list[Call]:
    """The calls of a reply, in order; those beyond the first 64 are left unread."""
    calls: list[Call] = []
    at = 0
    while len(calls) < _MAX_CALLS and (action := _ACTION.search(text, at)):
        call, at = _read_call(_tool(action["tool"]), text, action.end())
        calls.append(call)
    return calls


def paired(
    calls: Sequence[Call], target: Sequence[Call]
) -> tuple[int, list[tuple[int, Call | None]], list[Call]]:
    """(how many calls are right, the others' places with what is wanted instead, calls missing altogether).

    Of the calls left over, those of the same tool are paired, most like first; then the others, in order.
    """
    left = list(target)
    others: list[int] = []
    for i, call in enumerate(calls):
        match = next((j for j, one in enumerate(left) if call.same(one)), None)
        if match is None:
            others.append(i)
        else:
            del left[match]
    right = len(calls) - len(others)
    wanted_instead: dict[int, Call] = {}
    for i in others:
        if alike := [one for one in left if one.tool == calls[i].tool]:
            wanted_instead[i] = max(alike, key=lambda one: _agreement(calls[i], one))
            left.remove(wanted_instead[i])
    left = [one for one in left if not one.optional]
    for i in others:
        if i not in wanted_instead and left:
            wanted_instead[i] = left.pop(0)
    return right, [(i, wanted_instead.get(i)) for i in others], left


def _read_call(tool: str, text: str, at: int) -> tuple[Call, int]:
    """The call whose input begins at `at` or after, and where to read on."""
    opening = _INPUT.match(text, at)
    if opening is None:
        return Call(tool, {}, "no Action Input follows it"), at
    try:
        value, end = _DECODER.raw_decode(text, opening.end())
    except json.JSONDecodeError as error:
        return Call(tool, {}, f"its input is not JSON ({error.msg})"), opening.end()
    except ValueError:
        return Call(tool, {}, "its input holds a number that cannot be read"), opening.end()
    except RecursionError:
        return Call(tool, {}, _TOO_DEEP), opening.end()
    if text.count("[", opening.end(), end) + text.count("{", opening.end(), end) > _MAX_BRACKETS:
        return Call(tool, {}, _TOO_DEEP), end
    if not isinstance(value, dict):
        return Call(tool, {}, "its input is not a JSON object"), end
    return Call(tool, value), end


def _number(text: str) -> int | float:
    """Equal numbers are to look equal."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _refused(constant: str) -> Any:
    raise ValueError(constant)


_DECODER = json.JSONDecoder(parse_float=_number, parse_constant=_refused)


def _json(value: Any) -> str:
    # ASCII: texts may hold halves of characters, which cannot be shown.
    return json.dumps(value, sort_keys=True)


def _tool(name: str) -> str:
    return name.strip(_AROUND_NAMES).removeprefix(_OPTIONAL).strip(_AROUND_NAMES)


def _agreement(call: Call, other: Call) -> int:
    """How many arguments agree, less those that only one has."""
    return -len(list(_differences(call.arguments, other.arguments, reveal=False)))


def _problem(where: str, row: Row) -> Problem:
    question, system = text_of(row, "prompt", where), row.get("system")
    messages = [{"role": "user", "content": f"{question.strip()}\n\n{_REQUEST}"}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": text_of(row, "system", where)})
    target = tuple(
        {"tool": call.tool, "arguments": call.arguments, "optional": call.optional}
        for call in _gold(where, text_of(row, "answer", where))
    )
    return Problem(where, tuple(messages), {"task": _TASK, "target": target})


def _gold(where: str, answer: str) -> list[Call]:
    try:
        listed = json.loads(answer)
        calls = [(one["Action"], _DECODER.decode(one["Action_Input"])) for one in listed]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ResdError(
            f"row {where}: 'answer' is not a JSON list of {{Action, Action_Input}} with JSON texts as inputs"
        ) from error
    if not calls or not all(isinstance(name, str) and isinstance(value, dict) for name, value in calls):
        raise ResdError(f"row {where}: 'answer' names no calls, or inputs that are not JSON objects")
    return [Call(_tool(name), value, optional=name.startswith(_OPTIONAL)) for name, value in calls]


def _target(problem: Problem) -> list[Call]:
    return [
        Call(one["tool"], one["arguments"], optional=one["optional"])
        for one in wanted(problem, _TASK)["target"]
    ]


def _feedback(
    calls: Sequence[Call],
    wrong: Sequence[tuple[int, Call | None]],
    missing: Sequence[Call],
    right: int,
    reveal: bool,
) -> str:
    total = right + len(wrong) + len(missing)
    lines = [f"{right} of {total} calls {'is' if right == 1 else 'are'} right."]
    for i, instead in wrong[:_SHOWN]:
        lines.append(f"Call {i + 1} ({clip(calls[i].tool, 60)}) {_fault(calls[i], instead, reveal)}.")
    if reveal:
        lines += [f"Missing: {_shown(call)}." for call in missing[:_SHOWN]]
    elif missing:
        lines.append(f"Calls missing: {len(missing)}.")
    return clip("\n".join(lines), MAX_FEEDBACK)


def _fault(call: Call, instead: Call | None, reveal: bool) -> str:
    right = f"; wanted is {_shown(instead)}" if reveal and instead is not None else ""
    if call.error:
        return f"cannot be read: {call.error}{right}"
    if instead is None:
        return "is one too many"
    if call.tool != instead.tool:
        return f"does not use the right tool{right}"
    differences = list(_differences(call.arguments, instead.arguments, reveal))
    return f"has wrong arguments: {'; '.join(differences[:_SHOWN])}"


def _differences(given: Mapping[str, Any], wanted_: Mapping[str, Any], reveal: bool) -> Iterator[str]:
    """One phrase for each argument that is wrong, missing or one too many."""
    for name, value in wanted_.items():
        right, shown = clip(_json(value), 120), clip(_json(name), 60)
        if name not in given:
            yield f"{shown} is missing (wanted {right})" if reveal else f"{shown} is missing"
        elif (said := _json(given[name])) != _json(value):
            yield f"{shown} is {clip(said, 120)} (wanted {right})" if reveal else f"{shown} is wrong"
    for name in given:
        if name not in wanted_:
            yield f"{clip(_json(name), 60)} is one too many"


def _shown(call: Call) -> str:
    return f"{call.tool} with {clip(_json(call.arguments), 300)}"
