"""SDPO (arXiv 2601.20802): the teacher sees a peer's solution, or else the trial and its feedback.

No reflection, no playbook, and nothing is kept from one step to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resd.algorithms.base import distillation_examples, peer_solution, sample_weights
from resd.config import DistillationConfig
from resd.context.teacher_prompt import TeacherPrompt, TeacherPromptComposer
from resd.context.updater import ContextUpdate
from resd.records import Attempt, TrainingExample


@dataclass(frozen=True)
class SDPO:
    """With `distill_successes`, successes are distilled against their own text. `seed` draws the peers."""

    composer: TeacherPromptComposer
    objective: DistillationConfig
    seed: int
    distill_successes: bool = False

    def teacher_prompts(
        self, attempts: Sequence[Attempt], context: ContextUpdate | None = None
    ) -> list[TeacherPrompt | None]:
        return [self._prompt(attempt, attempts) for attempt in attempts]

    def examples(
        self, attempts: Sequence[Attempt], prompts: Sequence[TeacherPrompt | None]
    ) -> list[TrainingExample]:
        return distillation_examples(
            attempts, prompts, sample_weights(attempts, self.objective, rebalance=False)
        )

    def _prompt(self, attempt: Attempt, attempts: Sequence[Attempt]) -> TeacherPrompt | None:
        solution = peer_solution(attempt, attempts, self.seed)
        if not attempt.verdict.solved:
            return self.composer.compose(
                attempt.problem,
                trial=attempt.response.text,
                feedback=attempt.verdict.feedback,
                solution=solution,
            )
        if self.distill_successes:
            solution = attempt.response.text
        return self.composer.compose(attempt.problem, solution=solution) if solution else None
