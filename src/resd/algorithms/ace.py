"""ACE (arXiv 2510.04618): the playbook learns, the weights do not.

The baseline for what a playbook alone is worth. It only has an effect if the student sees the playbook: set
`context.student_playbook`, `evaluation.playbook`, or both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resd.algorithms.base import training_examples
from resd.context.teacher_prompt import TeacherPrompt
from resd.context.updater import ContextUpdate
from resd.objectives.objective import Objective
from resd.records import Attempt, TrainingExample


@dataclass(frozen=True)
class ACE:
    """Playbook only: no example carries a training signal."""

    @property
    def objective(self) -> Objective:
        return Objective()

    def teacher_prompts(
        self, attempts: Sequence[Attempt], context: ContextUpdate | None
    ) -> list[TeacherPrompt | None]:
        return [None] * len(attempts)

    def examples(
        self, attempts: Sequence[Attempt], prompts: Sequence[TeacherPrompt | None]
    ) -> list[TrainingExample]:
        return training_examples(attempts, prompts)
