"""SRPO (arXiv 2604.02288): failures are distilled as in SDPO; other attempts use GRPO's advantages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resd.algorithms.base import advantages, sample_weights, training_examples
from resd.algorithms.sdpo import peer_prompt
from resd.config import DistillationConfig, PolicyConfig, SRPOConfig
from resd.context.teacher_prompt import TeacherPrompt, TeacherPromptComposer
from resd.context.updater import ContextUpdate
from resd.objectives.objective import Objective
from resd.records import Attempt, TrainingExample


@dataclass(frozen=True)
class SRPO:
    """A failure without a teacher prompt keeps its advantage. `seed` draws the peers."""

    composer: TeacherPromptComposer
    distillation: DistillationConfig
    policy: PolicyConfig
    srpo: SRPOConfig
    seed: int

    @property
    def objective(self) -> Objective:
        return Objective(distillation=self.distillation, policy=self.policy, srpo=self.srpo)

    def teacher_prompts(
        self, attempts: Sequence[Attempt], context: ContextUpdate | None = None
    ) -> list[TeacherPrompt | None]:
        return [
            None if attempt.verdict.solved else peer_prompt(self.composer, attempt, attempts, self.seed)
            for attempt in attempts
        ]

    def examples(
        self, attempts: Sequence[Attempt], prompts: Sequence[TeacherPrompt | None]
    ) -> list[TrainingExample]:
        """Distilled failures get advantage 0, but still count in the baseline of the others."""
        compared = advantages(attempts, self.policy)
        routed = [0.0 if prompt else value for prompt, value in zip(prompts, compared, strict=True)]
        weights = sample_weights(attempts, self.distillation, rebalance=False)
        return training_examples(attempts, prompts, weights=weights, advantages=routed)
