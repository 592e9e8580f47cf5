"""Bring your own: reward functions as TRL and verl call them, and functions of a problem and a reply.

A function that returns only a number does not say what went wrong. Feedback is then built from the number and
the required one, the row's `privileged_context` (a column of TRL's SDPO), or what the function passes to
`log_extra("feedback", [...])`, which TRL provides; verl's functions return it as `feedback` in their dict.

A function is tried with an empty reply to the first problem before a run starts. If it raises later, the run
goes on: the reply counts as failed; its feedback and `details["grader_error"]` say why.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from resd.environments.base import answer_text, reply_text
from resd.environments.checks import a_kind, finite, problems_of
from resd.environments.importing import describe_error, imported
from resd.environments.rows import SPLITS, Row, chat_of, load_rows
from resd.records import Problem, ResdError, Response, Verdict

Function = Callable[..., Any]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Score:
    """A function's judgement of a reply."""

    reward: float
    feedback: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GradedBy:
    """An environment of problems and one function.

    A reply is solved if its reward is at least `success_reward_threshold` (SDPO's name for it).
    """

    name: str
    source: Callable[[str], Sequence[Problem]]
    score: Callable[[Problem, Response | str], Score]
    success_reward_threshold: float = 1.0

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of a split. Raises ResdError for an unknown one."""
        return self.source(split)

    def grade(self, problem: Problem, response: Response | str) -> Verdict:
        """One test: whether the reward is high enough. If the function raises, the reply has failed."""
        try:
            score = self.score(problem, response)
        except (Exception, SystemExit) as error:  # whatever a user's function raises
            _log.warning("%s: fails on a reply to problem %s (%s)", self.name, problem.id, _one_line(error))
            feedback = f"This reply could not be graded: {_one_line(error)}"
            return Verdict(0.0, 0, 1, feedback, {"grader_error": _one_line(error)})
        if score.reward >= self.success_reward_threshold:
            return Verdict(score.reward, 1, 1, "", score.details)
        wanted = f"Reward {score.reward:g}; {self.success_reward_threshold:g} is wanted."
        return Verdict(score.reward, 0, 1, score.feedback.strip() or wanted, score.details)

    def tried(self, split: str = "train") -> Self:
        """Returns self after grading an empty reply to the first problem. Raises ResdError if that fails."""
        for problem in problems_of(self, split)[:1]:
            try:
                self.score(problem, "")
            except ResdError:
                raise
            except (Exception, SystemExit) as error:
                raise ResdError(
                    f"{self.name}: fails on an empty reply to problem {problem.id} "
                    f"({describe_error(error)}); a model will give one sooner or later, so fix the function"
                ) from error
        return self


@dataclass(frozen=True)
class GradedAtOnce(GradedBy):
    """For functions that wait for a server: `workers` threads may call it in parallel."""

    workers: int = 2


def from_function(
    name: str,
    problems: Mapping[str, Sequence[Problem]],
    grade: Callable[[Problem, str], Any],
    *,
    success_reward_threshold: float = 1.0,
) -> GradedBy:
    """An environment of problems by split, and of one function of a problem and the reply without its
    thinking. It returns a number, (number, feedback), or verl's dict; sync or async. Raises ResdError where
    it fails."""
    by_split: Any = problems
    if not isinstance(by_split, Mapping):
        form = '{"train": [...], "test": [...]}'
        raise ResdError(f"{name}: the problems are {a_kind(by_split)}; give lists by split, as {form}")

    def source(split: str) -> Sequence[Problem]:
        if split not in problems:
            raise ResdError(f"{name}: split {split!r} is not known; choose one of {', '.join(problems)}")
        return problems[split]

    def score(problem: Problem, response: Response | str) -> Score:
        return as_score(_settled(grade(problem, answer_text(response))))

    graded = GradedBy(name, source, score, success_reward_threshold)
    return graded.tried(next(iter(problems), "train"))


def trl(
    reward: str | Function | Sequence[str | Function],
    path: str | Path | None = None,
    *,
    weights: Sequence[float] | None = None,
    strip_thinking: bool = False,
    success_reward_threshold: float = 1.0,
    workers: int = 1,
) -> GradedBy:
    """TRL's `reward(prompts, completions, **columns) -> list[float | None]`, sync or async, one or several.

    Each is called with lists of length 1: a function that compares the replies of a batch sees one only.
    `reward` is "module:function". Rewards are added with `weights`; None counts as not applicable. Rows have
    `prompt`, a string or messages, and whatever columns the functions take; as in TRL, completions are
    messages where prompts are. `strip_thinking` hides the thinking from the functions.
    """
    functions = [_function(f) for f in ([reward] if isinstance(reward, str) or callable(reward) else reward)]
    weights = [1.0] * len(functions) if weights is None else weights
    if not functions or len(weights) != len(functions):
        raise ResdError(
            f"trl: {len(weights)} weights for {len(functions)} reward functions; give one for each"
        )
    read = answer_text if strip_thinking else reply_text

    def score(problem: Problem, response: Response | str) -> Score:
        row = problem.metadata
        said: list[str] = []
        columns = _trl_columns(row, read(response), response, said)
        rewards = {_name(f): _only(_call(f, columns)) for f in functions}
        said += [str(row["privileged_context"])] if row.get("privileged_context") else []
        total = sum(w * r for w, r in zip(weights, rewards.values(), strict=True) if r is not None)
        if len(functions) > 1 and not said:
            said = [f"Reward {total:g}: " + ", ".join(f"{k} {_shown(v)}" for k, v in rewards.items()) + "."]
        return Score(total, "\n".join(said), {"rewards": rewards})

    name = "_".join(_name(f) for f in functions)
    source = partial(_problems, "trl", path, _from_trl)
    return graded_by(name, source, score, success_reward_threshold, workers)


def _trl_columns(
    row: Mapping[str, Any], text: str, response: Response | str, said: list[str]
) -> dict[str, Any]:
    """The arguments of a TRL reward function, for a batch of one. `said` collects logged feedback."""

    def log_extra(column: str, values: Sequence[Any]) -> None:
        if column == "feedback":
            said.extend(map(str, values))

    chat = not isinstance(row["prompt"], str)
    return {key: [value] for key, value in row.items() if key not in ("prompt", "completion")} | {
        "prompts": [row["prompt"]],
        "completions": [[{"role": "assistant", "content": text}] if chat else text],
        "completion_ids": [list(response.token_ids) if isinstance(response, Response) else []],
        "trainer_state": None,
        "log_extra": log_extra,
        "log_metric": lambda name, value: None,
    }


def verl(
    reward: str | Function,
    path: str | Path | None = None,
    *,
    arguments: Mapping[str, Any] | None = None,
    strip_thinking: bool = False,
    success_reward_threshold: float = 1.0,
    workers: int = 1,
) -> GradedBy:
    """verl's, SDPO's and RESD's `compute_score(data_source, solution_str, ground_truth, extra_info)`.

    It returns a number or a dict with `score` and, of SDPO and RESD, `feedback`; sync or async. It is given
    those of the four that it takes, and `arguments` (verl's reward_kwargs). Rows have verl's columns:
    `data_source`, `prompt`, `reward_model.ground_truth`, `extra_info`, to which `truncated` is added.
    """
    function = _function(reward)
    read = answer_text if strip_thinking else reply_text

    def score(problem: Problem, response: Response | str) -> Score:
        row = problem.metadata
        truncated = isinstance(response, Response) and response.finish_reason == "length"
        return as_score(
            _call(
                function,
                {
                    "data_source": row.get("data_source", ""),
                    "solution_str": read(response),
                    "ground_truth": row["reward_model"]["ground_truth"],
                    "extra_info": {**(row.get("extra_info") or {}), "truncated": truncated},
                },
                arguments or {},
            )
        )

    source = partial(_problems, "verl", path, _from_verl)
    return graded_by(_name(function), source, score, success_reward_threshold, workers)


def graded_by(
    name: str,
    source: Callable[[str], Sequence[Problem]],
    score: Callable[[Problem, Response | str], Score],
    threshold: float,
    workers: int,
) -> GradedBy:
    """The environment, tried. One worker stays in the caller's thread: some graders keep time by signals."""
    if workers == 1:
        return GradedBy(name, source, score, threshold).tried()
    if workers < 1:
        raise ResdError(f"{name}: workers {workers}: at least one is needed")
    return GradedAtOnce(name, source, score, threshold, workers).tried()


def as_score(said: Any) -> Score:
    """A number, (number, feedback) or a dict with `score` and `feedback`, as a score."""
    if isinstance(said, Mapping):
        if "score" not in said:
            raise ValueError(f"it returned a dict without score ({', '.join(map(str, said))}); add one")
        details = {key: value for key, value in said.items() if key not in ("score", "feedback")}
        return Score(_number(said["score"]), str(said.get("feedback") or ""), details)
    if isinstance(said, tuple):
        if len(said) != 2:
            raise ValueError(f"it returned {len(said)} values; return a number, or (number, feedback)")
        number, feedback = said
        return Score(_number(number), str(feedback or ""))
    return Score(_number(said))


def _problems(
    task: str, path: str | Path | None, convert: Callable[[str, Row], Problem], split: str
) -> list[Problem]:
    if path is None:
        raise ResdError(f"{task}: give the file or folder of its rows as environment.options.path")
    return [convert(id_, row) for id_, row in load_rows(task, split, path, SPLITS)]


def _from_trl(id_: str, row: Row) -> Problem:
    if "prompt" not in row:
        raise ResdError(f"{id_}: has no column prompt (it has {', '.join(row)})")
    return Problem(id_, chat_of(row["prompt"], id_), row)


def _from_verl(id_: str, row: Row) -> Problem:
    model = row.get("reward_model")
    if not isinstance(model, Mapping) or "ground_truth" not in model:
        raise ResdError(f"{id_}: has no reward_model.ground_truth (its columns: {', '.join(row)})")
    return Problem(id_, chat_of(row.get("prompt"), id_), row)


def _function(place: str | Function) -> Function:
    if not isinstance(place, str):
        return place
    module, colon, attribute = place.partition(":")
    if not colon:
        raise ResdError(f"reward {place!r}: write module:function, as in my_rewards:accuracy")
    function: Function = imported(module, attribute)
    return function


def _call(function: Function, columns: Mapping[str, Any], arguments: Mapping[str, Any] | None = None) -> Any:
    """Call it with all arguments and the columns that it accepts; await the result if it is async."""
    arguments = arguments or {}
    parameters = inspect.signature(function).parameters.values()
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        names = {p.name for p in parameters}
        columns = {key: value for key, value in columns.items() if key in names}
        if unknown := [key for key in arguments if key not in names]:
            raise ResdError(
                f"{_name(function)}: takes no argument {', '.join(unknown)}; see the option arguments"
            )
    given = {**columns, **arguments}
    if lacking := [p.name for p in parameters if p.name not in given and _is_required(p)]:
        raise ResdError(f"{_name(function)}: takes {', '.join(lacking)}, which is not a column of the rows")
    return _settled(function(**given))


def _is_required(parameter: inspect.Parameter) -> bool:
    named = parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return named and parameter.default is inspect.Parameter.empty


def _settled(said: Any) -> Any:
    """What a function returned, awaited if it is async."""

    async def awaited() -> Any:
        return await said

    return asyncio.run(awaited()) if inspect.isawaitable(said) else said


def _only(rewards: Any) -> float | None:
    """The one reward of a batch of one."""
    if not hasattr(rewards, "__len__") or isinstance(rewards, str | Mapping):
        raise ValueError(f"it returned {a_kind(rewards)}; return a list, with a reward for each completion")
    if len(rewards) != 1:
        raise ValueError(f"it returned {len(rewards)} rewards for 1 completion; return one for each")
    (reward,) = rewards
    return None if reward is None else _number(reward)


def _number(value: Any) -> float:
    try:
        return finite(value)
    except ValueError as error:
        raise ValueError(f"the reward is {error}; return a finite number") from error


def _shown(reward: float | None) -> str:
    return "not applicable" if reward is None else f"{reward:g}"


def _name(function: Function) -> str:
    return getattr(function, "__name__", None) or type(function).__name__


def _one_line(error: BaseException) -> str:
    """The exception without its location: a model reads it as feedback."""
    return f"{type(error).__name__}: {error}".split("\n")[0]
