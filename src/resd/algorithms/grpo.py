"""GRPO (arXiv 2402.03300): tries at one problem are compared with each other. There is no teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resd.config import PolicyConfig
from resd.context.teacher_prompt import TeacherPrompt
from resd.context.updater import ContextUpdate
from resd.objectives.policy_gradient import group_advantages
from resd.records import Attempt, TrainingExample


@dataclass(frozen=True)
class GRPO:
    objective: PolicyConfig

    def teacher_prompts(
        self, attempts: Sequence[Attempt], context: ContextUpdate | None = None
    ) -> list[TeacherPrompt | None]:
        return [None] * len(attempts)

    def examples(
        self, attempts: Sequence[Attempt], prompts: Sequence[TeacherPrompt | None]
    ) -> list[TrainingExample]:
        advantages = group_advantages(
            [attempt.verdict.reward for attempt in attempts],
            [attempt.problem.id for attempt in attempts],
            normalize_by_std=self.objective.normalize_by_std,
        )
        return [
            TrainingExample(
                prompt_ids=attempt.prompt_ids,
                response_ids=attempt.response.token_ids,
                rollout_logprobs=attempt.response.logprobs,
                advantage=float(advantage),
            )
            for attempt, advantage in zip(attempts, advantages, strict=True)
        ]
