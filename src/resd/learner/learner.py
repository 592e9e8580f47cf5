"""One optimizer step per global batch of examples, whatever the objective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from resd.config import DistillationConfig, PolicyConfig, RunConfig
from resd.learner.layout import Layout, MicroBatch, build_micro_batches
from resd.learner.model import autocast, resolve_dtype
from resd.learner.optimizer import Optimizer, StepResult
from resd.learner.scoring import LOGITS_DIFFER, Sampling, TokenScores, distillation_scores, policy_scores
from resd.learner.teacher import Teacher, response_logits
from resd.objectives.weighting import token_weights
from resd.records import TrainingExample

Objective = DistillationConfig | PolicyConfig
Metrics = dict[str, float]


class Learner:
    """Owns the student's optimizer and the teacher. `version` counts the optimizer steps taken.

    `total_updates` is how many the run can have at most: what the learning rate's schedule is spread over.
    """

    def __init__(self, model: Any, teacher: Teacher, config: RunConfig, *, total_updates: int) -> None:
        self.model, self.teacher, self.config = model, teacher, config
        self.optimizer = Optimizer(model.parameters(), config.optimizer, total_steps=total_updates)
        self.device: torch.device = next(model.parameters()).device
        self.compute_dtype = resolve_dtype(config.compute_dtype, self.device)
        self.sampling = Sampling(config.rollout.temperature, config.rollout.top_p)

    @property
    def version(self) -> int:
        return self.optimizer.steps

    def update(self, examples: Sequence[TrainingExample], objective: Objective) -> Metrics:
        """One step over the whole global batch, in micro-batches that do not change the numbers.

        Examples without teacher prompt (distillation) or advantage (policy) are not forwarded; they count in
        the normaliser as `loss_aggregation` says. With nothing to learn from, or with a gradient that is not
        finite, neither student nor teacher changes, and `actor/skipped` is 1.
        """
        distilling = isinstance(objective, DistillationConfig)
        indices = [i for i, example in enumerate(examples) if _to_forward(example, distilling)]
        batches = build_micro_batches(
            examples,
            indices,
            with_teacher=distilling,
            micro_batch_tokens=self.config.optimizer.micro_batch_tokens,
            device=self.device,
        )
        totals = Totals()
        scales = self._scales(examples, distilling)
        advantages = torch.tensor([example.advantage for example in examples], device=self.device)
        for batch in batches:
            scores = self._forward(batch, advantages, objective)
            loss = (scales[batch.student.example] * scores.loss).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            totals.add(loss, scores)
        result = self.optimizer.step() if batches else StepResult(False, 0.0, self.optimizer.learning_rate())
        if result.taken:
            self.teacher.update()
        metrics = totals.metrics() | _step_metrics(result, len(indices), len(examples))
        return metrics | _teacher_metrics(examples, indices, totals) if distilling else metrics

    def state_dict(self) -> dict[str, Any]:
        """Optimizer, schedule, counters and teacher, not copied. Save the student as a model."""
        return {"optimizer": self.optimizer.state_dict(), "teacher": self.teacher.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.teacher.load_state_dict(state["teacher"])

    def _scales(self, examples: Sequence[TrainingExample], distilling: bool) -> Tensor:
        """What each token loss of an example is multiplied by, `[B]`, normalised over the global batch."""
        return token_weights(
            self.config.loss_aggregation,
            torch.tensor([len(example.response_ids) for example in examples], device=self.device),
            torch.tensor(
                [not distilling or example.teacher_prompt_ids is not None for example in examples],
                device=self.device,
            ),
            torch.tensor([example.weight for example in examples], device=self.device),
        )

    def _forward(self, batch: MicroBatch, advantages: Tensor, objective: Objective) -> TokenScores:
        layout = batch.student
        if isinstance(objective, PolicyConfig):
            logits = self._student_logits(layout)
            return policy_scores(
                logits,
                layout.targets,
                batch.rollout_logprobs,
                advantages[layout.example],
                objective,
                self.sampling,
            )
        assert batch.teacher is not None
        with autocast(self.device, self.compute_dtype):
            teacher_logits = self.teacher.logits(batch.teacher)
        return distillation_scores(
            self._student_logits(layout),
            teacher_logits,
            layout.targets,
            batch.rollout_logprobs,
            objective,
            self.sampling,
        )

    def _student_logits(self, layout: Layout) -> Tensor:
        with autocast(self.device, self.compute_dtype):
            return response_logits(self.model, layout)


class Totals:
    """Sums over all tokens of a step, on the device: nothing is read back before the last micro-batch."""

    def __init__(self) -> None:
        self.loss: Tensor | float = 0.0
        self.tokens = 0
        self.sums: dict[str, Tensor] = {}

    def add(self, loss: Tensor, scores: TokenScores) -> None:
        self.loss = self.loss + loss.detach().double()
        self.tokens += scores.loss.numel()
        for name, values in scores.stats.items():
            total = values.sum(dtype=torch.float64)
            self.sums[name] = self.sums[name] + total if name in self.sums else total

    def metrics(self) -> Metrics:
        """The loss, and means over the trained tokens."""
        means = {name: float(total) / self.tokens for name, total in self.sums.items()}
        return {"actor/loss": float(self.loss), "actor/trained_tokens": float(self.tokens), **means}


def _to_forward(example: TrainingExample, distilling: bool) -> bool:
    signal = example.teacher_prompt_ids is not None if distilling else example.advantage != 0.0
    return signal and len(example.response_ids) > 0


def _step_metrics(result: StepResult, forwarded: int, total: int) -> Metrics:
    return {
        "actor/grad_norm": result.grad_norm,
        "actor/lr": result.learning_rate,
        "actor/skipped": float(not result.taken),
        "actor/trained_fraction": forwarded / max(total, 1),
    }


def _teacher_metrics(examples: Sequence[TrainingExample], indices: Sequence[int], totals: Totals) -> Metrics:
    """How many examples have a teacher prompt, and the alarm for a teacher whom its prompts do not move."""
    prompted = sum(example.teacher_prompt_ids is not None for example in examples)
    informed = any(examples[i].teacher_prompt_ids != examples[i].prompt_ids for i in indices)
    moved = float(totals.sums.get(LOGITS_DIFFER, torch.zeros(()))) > 0
    return {
        "self_distillation/reprompt_sample_fraction": prompted / max(len(examples), 1),
        "self_distillation/teacher_equals_student": float(informed and not moved),
    }
