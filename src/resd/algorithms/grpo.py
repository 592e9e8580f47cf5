"""GRPO (arXiv 2402.03300): attempts at one problem are compared with each other. There is no teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resd.algorithms.base import advantages, training_examples
from resd.config import PolicyConfig
from resd.context.teacher_prompt import TeacherPrompt
from resd.context.updater import ContextUpdate
from resd.objectives.objective import Objective
from resd.records import Attempt, TrainingExample


@dataclass(frozen=True)
class GRPO:
    policy: PolicyConfig

    @property
    def objective(self) -> Objective:
        return Objective(policy=self.policy)

    def teacher_prompts(
        self, attempts: Sequence[Attempt], context: ContextUpdate | None = None
    ) -> list[TeacherPrompt | None]:
        return [None] * len(attempts)

    def examples(
        self, attempts: Sequence[Attempt], prompts: Sequence[TeacherPrompt | None]
    ) -> list[TrainingExample]:
        return training_examples(attempts, prompts, advantages=advantages(attempts, self.policy))
