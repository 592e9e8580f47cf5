"""RLSD (arXiv 2604.03128): GRPO's advantages give the direction, a teacher the magnitude per token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resd.algorithms.base import advantages, training_examples
from resd.algorithms.sdpo import peer_prompt
from resd.config import PolicyConfig, RLSDConfig
from resd.context.teacher_prompt import TeacherPrompt, TeacherPromptComposer
from resd.context.updater import ContextUpdate
from resd.objectives.objective import Objective
from resd.records import Attempt, TrainingExample


@dataclass(frozen=True)
class RLSD:
    """An attempt without a teacher prompt uses GRPO's advantage alone. `seed` draws the peers."""

    composer: TeacherPromptComposer
    policy: PolicyConfig
    rlsd: RLSDConfig
    seed: int

    @property
    def objective(self) -> Objective:
        return Objective(policy=self.policy, rlsd=self.rlsd)

    def teacher_prompts(
        self, attempts: Sequence[Attempt], context: ContextUpdate | None = None
    ) -> list[TeacherPrompt | None]:
        return [peer_prompt(self.composer, attempt, attempts, self.seed) for attempt in attempts]

    def examples(
        self, attempts: Sequence[Attempt], prompts: Sequence[TeacherPrompt | None]
    ) -> list[TrainingExample]:
        return training_examples(attempts, prompts, advantages=advantages(attempts, self.policy))
