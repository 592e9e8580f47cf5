"""Rounds of attempts until the first full reward, or until the budget is spent."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from resd.records import Attempt, Problem
from resd.solve.bench import Bench
from resd.solve.effort import Effort
from resd.solve.methods import make_method


@dataclass(frozen=True)
class Round:
    """A batch of attempts generated together, numbered from `first` (counted from 1).

    `tokens` are all tokens generated before them, including reflections and curations. `seconds` are from the
    start of the work on the problem until the attempts were graded.
    """

    number: int
    first: int
    attempts: Sequence[Attempt]
    tokens: int
    seconds: float

    @property
    def last(self) -> int:
        return self.first + len(self.attempts) - 1

    @property
    def total_tokens(self) -> int:
        """`tokens` plus those of its own attempts."""
        return self.tokens + sum(len(attempt.response.token_ids) for attempt in self.attempts)

    @property
    def solved(self) -> int | None:
        """The number of the first attempt with the full reward."""
        solved = (self.first + i for i, attempt in enumerate(self.attempts) if attempt.verdict.solved)
        return next(solved, None)


@dataclass(frozen=True)
class Result:
    """The result of the work on one problem with one seed.

    `first` is the number of the first attempt with the full reward, None for none; `attempts` counts all
    attempts, including the rest of the last round. `best` is the largest share of tests passed, and `text` is
    the attempt that reached it: the solution, if there is one.
    """

    problem: str
    seed: int
    effort: Effort
    first: int | None
    attempts: int
    rounds: int
    tokens: int
    seconds: float
    best: float
    text: str

    @property
    def solved(self) -> bool:
        return self.first is not None


def work(bench: Bench, effort: Effort, problem: Problem, seed: int) -> Iterator[Round]:
    """Yield rounds as they complete. A round is learned from when the next one is requested."""
    start, tokens, done, number = time.perf_counter(), bench.tokens, 0, 0
    method = make_method(bench, effort, problem, seed)
    while done < effort.budget:
        before = bench.tokens - tokens
        attempts = method.attempt(min(effort.width, effort.budget - done))
        number += 1
        made = Round(number, done + 1, attempts, before, time.perf_counter() - start)
        done = made.last
        yield made
        if made.solved:
            return
        if done < effort.budget:
            method.learn(attempts)


def summarize(rounds: Sequence[Round], effort: Effort, seed: int) -> Result:
    """The result of all rounds of one problem."""
    last = rounds[-1]
    best = max((a for made in rounds for a in made.attempts), key=lambda a: a.verdict.pass_rate)
    return Result(
        problem=best.problem.id,
        seed=seed,
        effort=effort,
        first=last.solved,
        attempts=last.last,
        rounds=last.number,
        tokens=last.total_tokens,
        seconds=last.seconds,
        best=best.verdict.pass_rate,
        text=best.response.text,
    )


def attempt_rows(made: Round, effort: Effort, seed: int) -> list[dict[str, Any]]:
    """One row per attempt, for the trace."""
    rows, total = [], made.tokens
    for number, attempt in enumerate(made.attempts, start=made.first):
        tokens = len(attempt.response.token_ids)
        total += tokens
        rows.append(
            {
                "kind": "attempt",
                "problem": attempt.problem.id,
                "method": effort.method,
                "seed": seed,
                "attempt": number,
                "round": made.number,
                "reward": attempt.verdict.reward,
                "passed": attempt.verdict.passed,
                "total": attempt.verdict.total,
                "feedback": attempt.verdict.feedback,
                "text": attempt.response.text,
                "finish_reason": attempt.response.finish_reason,
                "tokens": tokens,
                "total_tokens": total,
                "seconds": round(made.seconds, 3),
            }
        )
    return rows


def summary_row(result: Result) -> dict[str, Any]:
    """The last row of a problem's trace."""
    return {
        "kind": "summary",
        "problem": result.problem,
        "method": result.effort.method,
        "seed": result.seed,
        "solved": result.solved,
        "first": result.first,
        "attempts": result.attempts,
        "rounds": result.rounds,
        "tokens": result.tokens,
        "seconds": round(result.seconds, 3),
    }
