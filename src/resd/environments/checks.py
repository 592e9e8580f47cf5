"""Checks that an environment, its problems and its verdicts are valid.

A run gets all problems from `problems_of` and all verdicts from `judge`. Otherwise a reward that is not a
number, or text that cannot be written, would end the run far from the cause, or spread silently.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from resd.environments.base import Environment
from resd.environments.importing import describe_error
from resd.records import Problem, ResdError, Response, Verdict

_log = logging.getLogger(__name__)
_warned: set[tuple[str, str]] = set()  # names of environments, and what was said of them
_CALLS = {"problems": ("split",), "grade": ("problem", "response")}
_EMPTY = Response("", "", (), (), "stop")


def is_environment(thing: Any) -> bool:
    """Whether it is an environment object, rather than a class or function that creates one."""
    return not inspect.isclass(thing) and any(callable(getattr(thing, name, None)) for name in _CALLS)


def check_environment(place: str, environment: Any) -> Environment:
    """Returns it. Raises ResdError if it has no name, or its methods cannot be called as a run calls them."""
    if environment is None or inspect.isclass(environment):
        made = f"the class {environment.__name__}" if environment else "None"
        raise ResdError(f"environment {place}: creates {made}; return an object with problems and grade")
    where = f"environment {place}: {a_kind(environment)}"
    for method, words in _CALLS.items():
        _check_call(where, getattr(environment, method, None), f"{method}({', '.join(words)})", len(words))
    name, workers = getattr(environment, "name", None), getattr(environment, "workers", 1)
    if not isinstance(name, str) or not name.strip():
        fault = "has no name" if name is None else f"has the name {name!r}"
        raise ResdError(f'{where} {fault}; give it one, as in name = "sums"')
    if not isinstance(workers, int) or workers < 1:
        raise ResdError(f"{where} has workers {workers!r}; give it a whole number, 1 or more")
    checked: Environment = environment
    return checked


def _check_call(where: str, method: Any, call: str, arguments: int) -> None:
    if not callable(method):
        raise ResdError(f"{where} has no method {call}; give it one")
    try:
        signature = inspect.signature(method)
    except ValueError:
        return  # not known, as of what is written in C
    try:
        signature.bind(*[None] * arguments)
    except TypeError as error:
        raise ResdError(f"{where} has {method.__name__}{signature}; make it {call}") from error


def problems_of(environment: Environment, split: str) -> list[Problem]:
    """The problems of a split. Raises ResdError, naming the problem, for one that is not valid."""
    where = f"environment {environment.name}: problems({split!r})"
    try:
        given: Any = environment.problems(split)
        if (
            not hasattr(given, "__len__")
            or not hasattr(given, "__getitem__")
            or isinstance(given, Mapping | str)
        ):
            raise ResdError(f"{where} returns {a_kind(given)}; return a list of problems")
        problems = [_problem(problem, f"{where}[{place}]") for place, problem in enumerate(given)]
    except ResdError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's method raises
        raise ResdError(f"{where} fails ({describe_error(error)}); fix it") from error
    ids: set[str] = set()
    for problem in problems:
        if problem.id in ids:
            raise ResdError(f"{where} returns two problems with the id {problem.id!r}; ids must be unique")
        ids.add(problem.id)
    return problems


def _problem(problem: Any, where: str) -> Problem:
    """Returns the problem, with messages in a form that a tokenizer accepts."""
    if not isinstance(problem, Problem):
        raise ResdError(f"{where} is {a_kind(problem)}; make a resd.records.Problem of it")
    messages: Any = problem.messages
    if fault := _id_fault(problem.id) or _messages_fault(messages):
        raise ResdError(f"{where}: {fault}")
    if isinstance(messages, tuple) and all(m["content"].isascii() for m in messages):
        return problem
    return replace(problem, messages=tuple({**m, "content": writable(m["content"])} for m in messages))


def _id_fault(id_: Any) -> str:
    if not isinstance(id_, str) or not id_ or id_ != writable(id_):
        return f"its id is {id_!r}; give it a text"
    return ""


def _messages_fault(messages: Any) -> str:
    """What is wrong with the messages; "" if nothing."""
    form = 'write ({"role": "user", "content": text},)'
    if not isinstance(messages, list | tuple):
        return f"its messages are {a_kind(messages)}; {form}"
    for message in messages:
        if not isinstance(message, Mapping):
            return f"one of its messages is {a_kind(message)}; {form}"
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                return f"the {key} of a message is {a_kind(message.get(key))}, not text; {form}"
    asked = [message["content"] for message in messages if message["role"] == "user"]
    if not asked:
        return f"it has no message of the user; {form}"
    return "" if asked[-1].strip() else "its question, the last message of the user, is empty; ask something"


def judge(environment: Environment, problem: Problem, response: Response | str) -> Verdict:
    """The verdict on a reply, with Python's own numbers. Feedback on a success is dropped.

    Raises ResdError, naming environment and problem, if `grade` raises or does not return a verdict.
    """
    return _judged(environment, problem, response, "a reply", "a run then goes on with --resume")


def try_grading(environment: Environment, problem: Problem) -> None:
    """Grade an empty reply before anything is generated. Raises ResdError if that gives no verdict."""
    _judged(environment, problem, _EMPTY, "an empty reply", "a model will give one sooner or later")


def _judged(
    environment: Environment, problem: Problem, response: Response | str, reply: str, why: str
) -> Verdict:
    """`reply` is what the response is called where something is wrong, `why` the end of what is then said."""
    where = f"environment {environment.name}, problem {problem.id}: grade"
    try:
        return _checked(environment.grade(problem, response), environment.name, problem.id)
    except ResdError:
        raise
    except _NoVerdictError as error:
        raise ResdError(f"{where} gives no verdict on {reply}: {error}; {why}") from error
    except (Exception, SystemExit) as error:  # whatever a user's grader raises
        raise ResdError(f"{where} fails on {reply} ({describe_error(error)}); fix it: {why}") from error


class _NoVerdictError(Exception):
    """The returned value is not a valid verdict; the message says why."""


def _checked(said: Any, name: str, problem: str) -> Verdict:
    """A verdict with finite numbers, at least one test, and feedback only on failures."""
    if not isinstance(said, Verdict):
        raise _NoVerdictError(_returned(said))
    verdict = said if _is_plain(said) else _plain(said)
    if verdict.solved:
        return _solved(verdict, name, problem)
    if not verdict.feedback:
        _warn(
            name,
            "a failed reply to problem %s has no feedback: the teacher cannot see what was wrong",
            problem,
        )
    return verdict


def _solved(verdict: Verdict, name: str, problem: str) -> Verdict:
    """Rewards may have any scale, and lengths may be penalized: a low reward alone is not a contradiction."""
    if verdict.reward > 0:
        return replace(verdict, feedback="") if verdict.feedback else verdict
    said = f"passed {verdict.passed} of {verdict.total} tests, with reward {verdict.reward:g}"
    if verdict.feedback:
        raise _NoVerdictError(
            f"it {said} and feedback; of a reply that failed, let fewer tests pass than there are"
        )
    _warn(name, f"a reply to problem %s {said}: it counts as solved, so let fewer pass if it failed", problem)
    return verdict


def _is_plain(verdict: Verdict) -> bool:
    """Whether nothing needs converting: almost always so, which matters with millions of verdicts."""
    return (
        type(verdict.reward) is float
        and type(verdict.passed) is int
        and type(verdict.total) is int
        and math.isfinite(verdict.reward)
        and 0 <= verdict.passed <= verdict.total > 0
        and isinstance(verdict.feedback, str)
        and verdict.feedback.isascii()
    )


def _plain(verdict: Verdict) -> Verdict:
    """Convert numbers of numpy and torch to Python's, and make text writable."""
    reward = _field("reward", verdict.reward)
    passed, total = _count("passed", verdict.passed), _count("total", verdict.total)
    if not 0 <= passed <= total or total < 1:
        raise _NoVerdictError(
            f"it passed {passed} of {total} tests; let there be one or more, and at most all pass"
        )
    if not isinstance(verdict.feedback, str):
        raise _NoVerdictError(f'its feedback is {a_kind(verdict.feedback)}; give it a text, "" for a success')
    return replace(verdict, reward=reward, passed=passed, total=total, feedback=writable(verdict.feedback))


def _count(name: str, value: Any) -> int:
    number = _field(name, value)
    if not number.is_integer():
        raise _NoVerdictError(f"its {name} is {number:g}; give it a whole number of tests")
    return int(number)


def _field(name: str, value: Any) -> float:
    try:
        return finite(value)
    except ValueError as error:
        raise _NoVerdictError(f"its {name} is {error}; give it a finite number") from error


def finite(value: Any) -> float:
    """A number, including those of numpy and torch, as Python's. Raises ValueError for anything else."""
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        raise ValueError(a_kind(value))
    try:
        number = float(value)
    except Exception as error:  # arrays of several numbers, integers beyond all floats
        raise ValueError(f"{a_kind(value)} ({error})") from error
    if not math.isfinite(number):
        raise ValueError(f"{number}")
    return number


def writable(text: str) -> str:
    """Text that UTF-8 can encode: surrogate pairs are joined, and lone surrogates become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def a_kind(thing: Any) -> str:
    """The kind of a value, such as "a dict"."""
    if thing is None:
        return "None"
    kind = type(thing).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def _returned(said: Any) -> str:
    if inspect.iscoroutine(said):
        said.close()  # or Python complains that it was never awaited
        return "it is async; write def grade, and wait inside it"
    return f"it returned {a_kind(said)}; return Verdict(reward, passed, total, feedback) of resd.records"


def _warn(name: str, said: str, problem: str) -> None:
    """Warn once per environment: there are millions of replies."""
    if (name, said) not in _warned:
        _warned.add((name, said))
        _log.warning(f"environment %s: {said}", name, problem)
