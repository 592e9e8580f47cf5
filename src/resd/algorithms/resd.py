"""RESD (arXiv 2605.12741, Algorithm 1): the teacher sees the playbook, the failed trial, the feedback and a
reflection on it, and, if there is one, a solution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from resd.algorithms.base import sample_weights, training_examples
from resd.config import DistillationConfig
from resd.context.entries import Entry
from resd.context.teacher_prompt import TeacherPrompt, TeacherPromptComposer
from resd.context.updater import ContextUpdate
from resd.objectives.objective import Objective
from resd.records import Attempt, TrainingExample


@dataclass(frozen=True)
class RESD:
    """Distils failures and, unless `distill_successes` is off, successes against their own text.

    `taught` returns the playbook entries for a problem id, after this step's curation.
    """

    composer: TeacherPromptComposer
    taught: Callable[[str], Sequence[Entry]]
    distillation: DistillationConfig
    distill_successes: bool = True

    @property
    def objective(self) -> Objective:
        return Objective(distillation=self.distillation)

    def teacher_prompts(
        self, attempts: Sequence[Attempt], context: ContextUpdate | None
    ) -> list[TeacherPrompt | None]:
        assert context is not None, "RESD needs the context engine"
        return [
            self._success(attempt) if attempt.verdict.solved else self._failure(attempt, context)
            for attempt in attempts
        ]

    def examples(
        self, attempts: Sequence[Attempt], prompts: Sequence[TeacherPrompt | None]
    ) -> list[TrainingExample]:
        weights = sample_weights(attempts, self.distillation, rebalance=True)
        return training_examples(attempts, prompts, weights=weights)

    def _failure(self, attempt: Attempt, context: ContextUpdate) -> TeacherPrompt | None:
        """Show a peer's solution from this step, or one kept from an earlier step, if there is any."""
        return self.composer.compose(
            attempt.problem,
            entries=self.taught(attempt.problem.id),
            trial=attempt.response.text,
            feedback=attempt.verdict.feedback,
            reflection=context.reflections.get(attempt.key),
            solution=context.solutions.get(attempt.key, ""),
        )

    def _success(self, attempt: Attempt) -> TeacherPrompt | None:
        if not (self.distill_successes and self.composer.config.use_solution):
            return None
        return self.composer.compose(
            attempt.problem,
            entries=self.taught(attempt.problem.id),
            solution=attempt.response.text,
        )
