"""Limiting prompts so that replies fit into the engine's and the model's maximum length."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from resd.chat import encode_prompt
from resd.config import ContextConfig, RunConfig
from resd.context import prompts
from resd.context.fitting import PromptBuilder
from resd.context.teacher_prompt import TeacherPrompt
from resd.generation.forward import max_positions
from resd.generation.vllm_runtime import max_length
from resd.records import Attempt, Problem, ResdError


def fit_prompts(config: RunConfig, model: Any) -> RunConfig:
    """Limit prompts that grow with the playbook so that replies fit into the model's positions.

    Otherwise a run would end at the first playbook or attempt that is too long. Raises ResdError if no room
    is left.
    """
    context, positions = config.context, longest_sequence(config, model)
    shown = context.student_playbook or config.evaluation.playbook
    rollout = config.rollout.max_tokens if shown else 0
    reply = max(context.max_reflection_tokens, context.max_curation_tokens, rollout)
    if not config.keeps_playbook or context.max_prompt_tokens + reply <= positions:
        return config
    if positions <= reply:
        raise ResdError(
            f"context: replies of {reply} tokens leave no room for a prompt in the model's {positions} "
            "positions; lower max_reflection_tokens and max_curation_tokens"
            + (", and rollout.max_tokens" if rollout else "")
        )
    return _with_prompts_of(config, positions - reply)


def fit_teacher_prompts(config: RunConfig, model: Any) -> RunConfig:
    """Limit teacher prompts so that scored responses fit into the model's positions.

    Raises ResdError if no room is left.
    """
    positions, response = max_positions(model), config.rollout.max_tokens
    if not config.has_teacher or config.context.max_prompt_tokens + response <= positions:
        return config
    if positions <= response:
        raise ResdError(
            f"rollout.max_tokens: responses of {response} tokens leave no room for a teacher prompt in the "
            f"model's {positions} positions; lower it"
        )
    return _with_prompts_of(config, positions - response)


def check_teacher_prompts(problems: Sequence[Problem], config: RunConfig, model: Any, tokenizer: Any) -> None:
    """Raises ResdError if no question leaves room for anything else in its teacher prompt."""
    budget = fit_teacher_prompts(config, model).context.max_prompt_tokens
    if not (config.has_teacher and problems):
        return
    style = prompts.configured(config.context)
    builder = PromptBuilder(style, tokenizer, config.rollout.thinking, budget)

    def tokens(problem: Problem) -> int:
        return len(builder.build("solve", {"problem": problem.question}, (), problem.messages).ids)

    if any(tokens(problem) < budget for problem in problems):
        return
    asked = (
        f"no teacher prompt fits, for the shortest question alone takes {min(map(tokens, problems))} tokens"
    )
    if budget < config.context.max_prompt_tokens:
        raise ResdError(
            f"rollout.max_tokens {config.rollout.max_tokens}: leaves {budget} of the model's positions for "
            f"teacher prompts, and {asked}; lower it"
        )
    raise ResdError(f"context.max_prompt_tokens {budget}: {asked}; raise it")


def crowded_out(
    attempts: Sequence[Attempt], shown: Sequence[TeacherPrompt | None], context: ContextConfig
) -> float:
    """The share of attempts with feedback for their teacher of which nothing fits into its prompt."""
    if not context.use_feedback:
        return 0.0
    return fmean(
        prompt is None and bool(attempt.verdict.feedback)
        for attempt, prompt in zip(attempts, shown, strict=True)
    )


def check_lengths(problems: Sequence[Problem], config: RunConfig, model: Any, tokenizer: Any) -> None:
    """Raises ResdError for problems that leave no room for a response, which would end the run midway.

    Only problems whose byte length could exceed the limit are tokenized. A chat template adds the same number
    of tokens to each.
    """

    def tokens(problem: Problem) -> int:
        return len(encode_prompt(tokenizer, problem.messages, thinking=config.rollout.thinking))

    positions, response = longest_sequence(config, model), config.rollout.max_tokens
    margin = tokens(problems[0]) if problems else 0
    suspects = (problem for problem in problems if _bytes(problem) + margin + response > positions)
    found = {problem.id: count for problem in suspects if (count := tokens(problem)) + response > positions}
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise ResdError(
            f"problem {', '.join(list(found)[:3])}{more}: prompts of up to {max(found.values())} tokens and "
            f"responses of {response} do not fit into {positions} positions; lower rollout.max_tokens, or "
            "leave these problems out"
        )


def _bytes(problem: Problem) -> int:
    return sum(len(message["content"].encode("utf-8", "replace")) for message in problem.messages)


def longest_sequence(config: RunConfig, model: Any) -> int:
    """The maximum tokens of prompt and reply that the engine accepts."""
    if config.generation.engine == "vllm":
        return max_length(model, config.generation)
    return max_positions(model)


def _with_prompts_of(config: RunConfig, tokens: int) -> RunConfig:
    return config.model_copy(
        update={"context": config.context.model_copy(update={"max_prompt_tokens": tokens})}
    )
