"""Rows of `rollouts/<step>.jsonl`: attempts with their teacher prompts, and the context engine's requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from resd.context.teacher_prompt import TeacherPrompt
from resd.context.updater import ContextUpdate
from resd.records import Attempt, TrainingExample


def step_rows(
    attempts: Sequence[Attempt],
    prompts: Sequence[TeacherPrompt | None],
    examples: Sequence[TrainingExample],
    context: ContextUpdate | None,
) -> list[Mapping[str, Any]]:
    """One row per attempt (kind "attempt"), then one per reflection, tag or curation (kind "context")."""
    rows = [_attempt_row(*parts) for parts in zip(attempts, prompts, examples, strict=True)]
    said = context.records if context else []
    return [*rows, *({"kind": "context", **record} for record in said)]


def token_rows(
    attempts: Sequence[Attempt], divergences: Sequence[Sequence[float]], tokenizer: Any
) -> list[Mapping[str, Any]]:
    """Rows of `tokens/<step>.jsonl`: responses token by token, with the teacher's divergence at each."""
    return [
        {
            "key": attempt.key,
            "text": attempt.response.text,
            "tokens": [tokenizer.decode([token]) for token in attempt.response.token_ids],
            "divergence": list(values),
        }
        for attempt, values in zip(attempts, divergences, strict=True)
        if values
    ]


def _attempt_row(
    attempt: Attempt, prompt: TeacherPrompt | None, example: TrainingExample
) -> Mapping[str, Any]:
    return {
        "kind": "attempt",
        "key": attempt.key,
        "problem": attempt.problem.id,
        "sample": attempt.sample,
        "question": attempt.problem.question,
        "response": attempt.response.text,
        "tokens": len(attempt.response.token_ids),
        "finish_reason": attempt.response.finish_reason,
        "reward": attempt.verdict.reward,
        "passed": attempt.verdict.passed,
        "total": attempt.verdict.total,
        "feedback": attempt.verdict.feedback,
        "teacher_prompt": prompt.text if prompt else None,
        "teacher_sections": list(prompt.sections) if prompt else [],
        "weight": example.weight,
        "advantage": example.advantage,
    }
