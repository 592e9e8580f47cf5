"""Three ways to make the next attempt better than the last, behind one protocol."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Protocol

from resd.algorithms.make import make_algorithm
from resd.context import prompts
from resd.context.fitting import PromptBuilder
from resd.records import Attempt, Problem
from resd.solve.bench import Bench
from resd.solve.effort import Effort
from resd.solve.memory import Memory, Turn
from resd.training import lengths, setup


class Method(Protocol):
    """Works on one problem. It alone keeps the state needed between calls."""

    def attempt(self, count: int) -> list[Attempt]:
        """The next `count` attempts, graded."""
        ...

    def learn(self, attempts: Sequence[Attempt]) -> None:
        """Learn from the feedback on these attempts, none of which solved the problem."""
        ...


def make_method(bench: Bench, effort: Effort, problem: Problem, seed: int) -> Method:
    """A fresh method, with the initial weights and empty memory."""
    bench.reset(effort.updates)
    match effort.method:
        case "self_distill":
            return SelfDistill(bench, problem, seed)
        case "best_of":
            return BestOf(bench, problem, seed)
        case "multi_turn":
            return MultiTurn(bench, problem, seed, make_memory(bench, effort))


def make_memory(bench: Bench, effort: Effort) -> Memory:
    """A memory limited to `context.max_prompt_tokens` that leaves room for the reply."""
    context = bench.config.context
    style, thinking = prompts.configured(context), bench.config.rollout.thinking
    builder = PromptBuilder(style, bench.tokenizer, thinking, bench.prompt_tokens)
    return Memory(effort.memory or "feedback", builder, context.remove_thinking)


class BestOf:
    """Independent samples."""

    def __init__(self, bench: Bench, problem: Problem, seed: int) -> None:
        self.bench, self.problem, self.seed = bench, problem, seed
        self.done = 0

    def attempt(self, count: int) -> list[Attempt]:
        attempts = self.bench.attempt([self.problem], self.seed, self.done, count)
        self.done += count
        return attempts

    def learn(self, attempts: Sequence[Attempt]) -> None:
        """Nothing is kept."""


class MultiTurn:
    """One conversation, in which each attempt sees the feedback on the previous ones."""

    def __init__(self, bench: Bench, problem: Problem, seed: int, memory: Memory) -> None:
        self.bench, self.problem, self.seed, self.memory = bench, problem, seed, memory
        self.done = 0
        self.turns: Sequence[Turn] = ()

    def attempt(self, count: int) -> list[Attempt]:
        prompt, self.turns = self.memory.fit(self.problem, self.turns)
        attempts = self.bench.attempt([self.problem], self.seed, self.done, count, lambda _: prompt)
        self.done += count
        return attempts

    def learn(self, attempts: Sequence[Attempt]) -> None:
        self.turns = (*self.turns, *map(self.memory.turn, attempts))


class SelfDistill:
    """Test-time training (SDPO, arXiv 2601.20802): a stream of one problem, with an update after each round.

    The teacher's context and the loss are those of the run's algorithm, including the context engine.
    """

    def __init__(self, bench: Bench, problem: Problem, seed: int) -> None:
        assert bench.learner is not None, "self_distill needs a learner"
        self.bench, self.learner, self.problem, self.seed = bench, bench.learner, problem, seed
        config = bench.config.model_copy(update={"seed": seed})
        lengths.check_teacher_prompts([problem], config, bench.model, bench.tokenizer)
        fitted, taught = (
            fit(config, bench.model) for fit in (lengths.fit_prompts, lengths.fit_teacher_prompts)
        )
        self.context = setup.make_context(
            fitted, bench.author or bench.engine, bench.tokenizer, self.learner.score
        )
        self.algorithm = make_algorithm(taught, bench.tokenizer, self.context)
        self.done = self.rounds = 0

    def attempt(self, count: int) -> list[Attempt]:
        prompt_ids = self.context.rollout_prompt if self.context else None
        attempts = self.bench.attempt([self.problem], self.seed, self.done, count, prompt_ids)
        self.done += count
        return attempts

    def learn(self, attempts: Sequence[Attempt]) -> None:
        self.rounds += 1
        context = None
        if self.context:
            author = self.bench.author
            with self.bench.engine.awake(), author.awake() if author else nullcontext():
                context = self.context.update(attempts, self.rounds)
        shown = self.algorithm.teacher_prompts(attempts, context)
        self.learner.update(self.algorithm.examples(attempts, shown), self.algorithm.objective)
        self.bench.load_weights()
