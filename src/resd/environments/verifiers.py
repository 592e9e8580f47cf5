"""Environments written for the library `verifiers`, as problems and a grader.

Both of its interfaces are understood: a `Taskset` whose tasks have `@vf.reward` methods (0.4), and
a `SingleTurnEnv` with a rubric (0.1). One reply is one episode: what needs tools, a container, further turns
or a whole group of replies to be scored is refused.

Feedback is made of the rewards and metrics, by name, unless the task writes one: as `trace.info["feedback"]`,
or as `state["feedback"]` in 0.1.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any

from resd.chat import split_thinking
from resd.environments.adapters import GradedBy, Score, graded_by
from resd.environments.base import reply_text
from resd.environments.importing import imported
from resd.environments.rows import chat_of
from resd.records import Problem, ResdError, Response

_SEED = 42


def verifiers(
    id: str,
    args: Mapping[str, Any] | None = None,
    *,
    test_args: Mapping[str, Any] | None = None,
    test_share: float = 0.1,
    success_reward_threshold: float = 1.0,
    workers: int = 1,
) -> GradedBy:
    """The environment `id`: of an installed package, or "module:factory" for a class or function of your own.

    It is made with `args`. The test split is made with `test_args` where they are given, or is the eval
    dataset of a 0.1 environment, or else a share of the problems, drawn with a fixed seed. Raises ResdError
    for what a single reply cannot be judged by.
    """
    made = _made(id, args or {})
    tested = made if test_args is None else _made(id, test_args)
    parts = {"train": _episodes(id, made, "train"), "test": _episodes(id, tested, "test")}
    if test_args is None and parts["train"].keys() == parts["test"].keys():
        parts = _split(parts["train"], test_share)
    problems = {split: [p for p, _ in part.values()] for split, part in parts.items()}
    scorers = {key: scorer for part in parts.values() for key, (_, scorer) in part.items()}

    def source(split: str) -> Sequence[Problem]:
        if split not in problems:
            raise ResdError(f"verifiers {id}: split {split!r} is not known; choose train or test")
        return problems[split]

    def score(problem: Problem, response: Response | str) -> Score:
        return asyncio.run(scorers[problem.id].score(reply_text(response)))

    name = id.replace("/", "_").replace(":", "_").replace("-", "_")
    return graded_by(name, source, score, success_reward_threshold, workers)


class _TaskScorer:
    """Scores a reply as the only turn of a trace of a task."""

    def __init__(self, task: Any) -> None:
        self._task = task

    async def score(self, reply: str) -> Score:
        trace = _trace(self._task, reply)
        await self._task.score(trace)
        rewards = {name: reward.score for name, reward in trace.rewards.items() if reward is not None}
        return _score(trace.reward, {**trace.metrics, **rewards}, trace.info.get("feedback"))


class _RowScorer:
    """Scores a reply with the rubric of a 0.1 environment."""

    def __init__(self, rubric: Any, row: Mapping[str, Any]) -> None:
        self._rubric = rubric
        self._row = dict(row)

    async def score(self, reply: str) -> Score:
        state = _state(self._row, reply)
        await self._rubric.score_rollout(state)
        return _score(state["reward"], state["metrics"], state.get("feedback"))


Episodes = dict[str, tuple[Problem, _TaskScorer | _RowScorer]]


def _made(id: str, args: Mapping[str, Any]) -> Any:
    """The taskset or environment."""
    try:
        importlib.import_module("verifiers")
    except ImportError as error:
        raise ResdError(f"verifiers {id}: the library is not installed; pip install verifiers") from error
    try:
        return _own(id, args) if ":" in id else _installed(id, args)
    except ResdError:
        raise
    except Exception as error:  # whatever its loader raises
        raise ResdError(f"verifiers {id}: cannot be made with args {dict(args)} ({error})") from error


def _own(id: str, args: Mapping[str, Any]) -> Any:
    factory = imported(*id.split(":", 1))
    if not inspect.isclass(factory) or not _is_taskset(factory):
        return factory(**args)
    taskset: Any = factory
    return taskset(_config_type(taskset)(**args))


def _installed(id: str, args: Mapping[str, Any]) -> Any:
    try:
        loaders: Any = importlib.import_module("verifiers.v1.utils.loaders")
    except ImportError:  # 0.1
        return imported("verifiers", "load_environment")(id, **args)
    return loaders.load_taskset(loaders.taskset_config_type(id)(id=id, **args))


def _config_type(taskset: type) -> Any:
    generic: Any = importlib.import_module("verifiers.v1.utils.generic")
    base: Any = importlib.import_module("verifiers.v1.configs.taskset").TasksetConfig
    return generic.concrete_type(taskset, base) or base


def _is_taskset(thing: Any) -> bool:
    return hasattr(thing, "load") and hasattr(thing, "task_type")


def _episodes(id: str, made: Any, split: str) -> Episodes:
    if _is_taskset(made):
        return _of_tasks(id, made)
    if hasattr(made, "rubric") and hasattr(made, "get_dataset"):
        return _of_rows(id, made, split)
    raise ResdError(f"verifiers {id}: is neither a Taskset nor an environment with rubric and dataset")


def _of_tasks(id: str, taskset: Any) -> Episodes:
    if not taskset.bounded:
        raise ResdError(f"verifiers {id}: has no last task; give args that bound it")
    return {task.key: (_problem(id, task), _TaskScorer(task)) for task in _scorable(id, taskset)}


def _scorable(id: str, taskset: Any) -> Iterable[Any]:
    for task in taskset:
        hooks = [hook for kind in ("reward", "metric") for hook in task.hooks(kind)]
        needs = [hook.__name__ for hook in hooks if _needs_runtime(hook)]
        needs += ["its tools"] if type(task).toolsets(task.config) else []
        needs += ["a container"] if type(task).NEEDS_CONTAINER else []
        if needs:
            raise ResdError(f"verifiers {id}: task {task.data.idx} needs a runtime for {', '.join(needs)}")
        yield task


def _needs_runtime(hook: Any) -> bool:
    parameter = inspect.signature(hook).parameters.get("runtime")
    return parameter is not None and parameter.default is inspect.Parameter.empty


def _problem(id: str, task: Any) -> Problem:
    data = task.data
    where = f"verifiers {id}, task {data.idx}"
    prompt = data.prompt if isinstance(data.prompt, str) else [m.model_dump() for m in data.prompt or []]
    system = ({"role": "system", "content": data.system_prompt},) if data.system_prompt else ()
    messages = (*system, *chat_of(prompt, where))
    return Problem(task.key, messages, data.model_dump(mode="json", exclude_defaults=True))


def _of_rows(id: str, environment: Any, split: str) -> Episodes:
    single: Any = imported("verifiers", "SingleTurnEnv")
    if not isinstance(environment, single):
        raise ResdError(
            f"verifiers {id}: a {type(environment).__name__} takes several turns; only one is played"
        )
    if environment.rubric.has_group_rewards:
        raise ResdError(f"verifiers {id}: its rubric compares replies of a group; each is judged alone here")
    rows = environment.get_eval_dataset() if split == "test" else environment.get_dataset()
    found: Episodes = {}
    for row in rows:
        told = json.dumps([row["prompt"], row.get("answer"), row.get("info")], sort_keys=True, default=str)
        key = hashlib.sha256(told.encode()).hexdigest()
        problem = Problem(key, chat_of(row["prompt"], f"verifiers {id}"), dict(row))
        found[problem.id] = problem, _RowScorer(environment.rubric, row)
    return found


def _split(all_: Episodes, share: float) -> dict[str, Episodes]:
    """Hold a share out. Raises ResdError where that leaves a part empty."""
    held = Random(_SEED).sample(sorted(all_), round(len(all_) * share))
    test = set(held)  # not the order in which they were drawn
    if not 0 < len(test) < len(all_):
        raise ResdError(f"verifiers: test_share {share} of {len(all_)} problems leaves one part empty")
    return {
        "train": {key: pair for key, pair in all_.items() if key not in test},
        "test": {key: pair for key, pair in all_.items() if key in test},
    }


def _trace(task: Any, reply: str) -> Any:
    vf: Any = importlib.import_module("verifiers.v1")
    thinking, answer = split_thinking(reply)
    said = vf.AssistantMessage(content=answer, reasoning_content=thinking or None)
    data = task.data
    asked = [vf.SystemMessage(content=data.system_prompt)] if data.system_prompt else []
    asked += [vf.UserMessage(content=data.prompt)] if isinstance(data.prompt, str) else data.prompt
    nodes = [vf.MessageNode(parent=i - 1 if i else None, message=m) for i, m in enumerate(asked)]
    return vf.Trace(
        task=vf.TraceTask(type=type(task).__name__, data=data),
        agent=vf.AgentInfo(config=vf.AgentConfig()),
        nodes=[*nodes, vf.MessageNode(parent=len(nodes) - 1, message=said, sampled=True)],
        is_completed=True,
        ok=True,
    )


def _state(row: dict[str, Any], reply: str) -> Any:
    """As a rollout of one turn leaves it in 0.1."""
    info = row.get("info")
    row = {**row, "info": json.loads(info)} if isinstance(info, str) else row
    state: Any = imported("verifiers", "State")(input=row)
    completion = [{"role": "assistant", "content": reply}]
    turn = {"prompt": row["prompt"], "completion": completion}
    state.update(task=row, completion=completion, trajectory=[turn], is_completed=True, is_truncated=False)
    return state


def _score(reward: float, parts: Mapping[str, Any], feedback: Any) -> Score:
    shown = ", ".join(f"{name} {value:g}" for name, value in parts.items() if value is not None)
    return Score(float(reward), str(feedback or f"Reward {reward:g}: {shown}."), dict(parts))
