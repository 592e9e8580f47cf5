"""From problems to graded attempts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from resd.chat import encode_prompt, opens_thinking, reopen_thinking
from resd.environments.base import Environment
from resd.generation.engine import GenerationEngine
from resd.records import Attempt, Problem, Request, ResdError
from resd.training.clock import Clock

PromptIds = Callable[[Problem], tuple[int, ...]]


@dataclass(frozen=True)
class Sampling:
    """How many tries at each problem, and how they are drawn. `max_tokens` is the response alone."""

    n: int
    max_tokens: int
    temperature: float
    top_p: float
    thinking: bool


def roll_out(
    problems: Sequence[Problem],
    engine: GenerationEngine,
    environment: Environment,
    tokenizer: Any,
    sampling: Sampling,
    seed: Callable[[Problem, int], int],
    clock: Clock | None = None,
    prompt_ids: PromptIds | None = None,
) -> list[Attempt]:
    """`sampling.n` graded attempts at each problem, problem by problem.

    `seed(problem, sample)` decides what is drawn, whatever else shares the batch. `prompt_ids(problem)` is
    what is asked; by default the problem's own messages. Grading starts while other responses are still being
    decoded.
    """
    clock = clock or Clock()
    opened = opens_thinking(tokenizer, thinking=sampling.thinking)
    plain = partial(_plain, tokenizer=tokenizer, thinking=sampling.thinking)
    tries = _tries(problems, prompt_ids or plain, sampling, seed)
    requests = [request for _, _, request in tries.values()]
    graded: dict[str, Attempt] = {}
    for response in clock.iterate("generate", engine.submit(requests)):
        problem, sample, request = tries[response.request_id]
        with clock.measure("grade"):
            # Graders must not take a draft in a thought that never ended for the answer.
            read = replace(response, text=reopen_thinking(response.text)) if opened else response
            verdict = environment.grade(problem, read)
        graded[request.id] = Attempt(problem, sample, request.prompt_ids, response, verdict)
    return [graded[request.id] for request in requests]


def group_by_problem(attempts: Sequence[Attempt]) -> dict[str, list[Attempt]]:
    """Attempts per problem id, in order of first appearance."""
    groups: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        groups[attempt.problem.id].append(attempt)
    return dict(groups)


def _plain(problem: Problem, tokenizer: Any, thinking: bool) -> tuple[int, ...]:
    return encode_prompt(tokenizer, problem.messages, thinking=thinking)


def _tries(
    problems: Sequence[Problem],
    prompt_ids: PromptIds,
    sampling: Sampling,
    seed: Callable[[Problem, int], int],
) -> dict[str, tuple[Problem, int, Request]]:
    tries: dict[str, tuple[Problem, int, Request]] = {}
    for problem in problems:
        prompt = prompt_ids(problem)
        for sample in range(sampling.n):
            request = Request(
                id=f"{problem.id}#{sample}",
                prompt_ids=prompt,
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=seed(problem, sample),
            )
            if request.id in tries:
                raise ResdError(f"problem {problem.id}: two problems have this id; give each its own")
            tries[request.id] = (problem, sample, request)
    return tries
