"""From problems to graded attempts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from resd.chat import encode_prompt, opens_thinking, reopen_thinking
from resd.environments.base import Environment, ParallelEnvironment
from resd.environments.checks import judge
from resd.generation.engine import GenerationEngine
from resd.records import Attempt, Problem, Request, ResdError, Response, Verdict
from resd.training.clock import Clock

PromptIds = Callable[[Problem], tuple[int, ...]]
# Submits a reply to its grader; the returned function waits for the verdict.
Grade = Callable[[Problem, Response | str], Callable[[], Verdict]]


@dataclass(frozen=True)
class Sampling:
    """The number of attempts per problem, and how to sample them. `max_tokens` limits the response alone."""

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

    The randomness depends on `seed(problem, sample)` alone, whatever else is in the batch.
    `prompt_ids(problem)` gives the prompt, by default the problem's own messages. Grading starts while other
    responses are still being decoded.
    """
    clock = clock or Clock()
    opened = opens_thinking(tokenizer, thinking=sampling.thinking)
    plain = partial(_plain, tokenizer=tokenizer, thinking=sampling.thinking)
    tries = _tries(problems, prompt_ids or plain, sampling, seed)
    requests = [request for _, _, request in tries.values()]
    replies: dict[str, tuple[Response, Callable[[], Verdict]]] = {}
    with grading(environment) as grade:
        for response in clock.iterate("generate", engine.submit(requests)):
            # Graders must not mistake a draft inside unfinished thinking for the answer.
            read = replace(response, text=reopen_thinking(response.text)) if opened else response
            with clock.measure("grade"):
                replies[response.request_id] = response, grade(tries[response.request_id][0], read)
        with clock.measure("grade"):
            verdicts = {id_: verdict() for id_, (_, verdict) in replies.items()}
    return [
        Attempt(problem, sample, request.prompt_ids, replies[id_][0], verdicts[id_])
        for id_, (problem, sample, request) in tries.items()
    ]


@contextmanager
def grading(environment: Environment) -> Iterator[Grade]:
    """Run graders that wait for other processes in the background during decoding, others inline."""
    if not isinstance(environment, ParallelEnvironment):
        yield partial(_grade_now, environment)
        return
    with ThreadPoolExecutor(environment.workers, thread_name_prefix="grade") as pool:
        try:
            yield lambda problem, response: pool.submit(judge, environment, problem, response).result
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _grade_now(environment: Environment, problem: Problem, response: Response | str) -> Callable[[], Verdict]:
    verdict = judge(environment, problem, response)
    return lambda: verdict


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
