"""SDPO (arXiv 2601.20802): the teacher sees a peer's solution, or else the feedback.

There is no reflection and no playbook, and nothing is kept between steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resd.algorithms.base import peer_solution, sample_weights, training_examples
from resd.config import DistillationConfig
from resd.context.teacher_prompt import TeacherPrompt, TeacherPromptComposer
from resd.context.updater import ContextUpdate
from resd.objectives.objective import Objective
from resd.records import Attempt, TrainingExample


@dataclass(frozen=True)
class SDPO:
    """With `distill_successes`, successes are distilled against their own text. `seed` draws the peers."""

    composer: TeacherPromptComposer
    distillation: DistillationConfig
    seed: int
    distill_successes: bool = False

    @property
    def objective(self) -> Objective:
        return Objective(distillation=self.distillation)

    def teacher_prompts(
        self, attempts: Sequence[Attempt], context: ContextUpdate | None = None
    ) -> list[TeacherPrompt | None]:
        return [
            self.composer.compose(attempt.problem, solution=attempt.response.text)
            if attempt.verdict.solved and self.distill_successes
            else peer_prompt(self.composer, attempt, attempts, self.seed)
            for attempt in attempts
        ]

    def examples(
        self, attempts: Sequence[Attempt], prompts: Sequence[TeacherPrompt | None]
    ) -> list[TrainingExample]:
        weights = sample_weights(attempts, self.distillation, rebalance=False)
        return training_examples(attempts, prompts, weights=weights)


def peer_prompt(
    composer: TeacherPromptComposer, attempt: Attempt, attempts: Sequence[Attempt], seed: int
) -> TeacherPrompt | None:
    """The teacher prompt of a failure, or of a success that has a peer; None for a lone success."""
    solution = peer_solution(attempt, attempts, seed)
    if attempt.verdict.solved:
        return composer.compose(attempt.problem, solution=solution) if solution else None
    return composer.compose(
        attempt.problem,
        trial=attempt.response.text,
        feedback=attempt.verdict.feedback,
        solution=solution,
    )
