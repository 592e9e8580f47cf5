"""The metrics of one update, accumulated over its micro-batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from resd.learner.optimizer import StepResult
from resd.learner.parallel import Ranks
from resd.learner.routing import Route, WorkItem
from resd.learner.scoring import LOGITS_DIFFER
from resd.objectives.chunked import Stats
from resd.objectives.objective import Objective
from resd.records import TrainingExample

Metrics = dict[str, float]


class Totals:
    """Sums over all tokens of a step, kept on the device until the last micro-batch."""

    def __init__(self) -> None:
        self.loss: Tensor | float = 0.0
        self.tokens = 0
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, item: WorkItem, loss: Tensor, stats: Stats) -> None:
        tokens = len(item.tokens.targets)
        if item.idle:
            loss, tokens = torch.zeros_like(loss), 0
        self.loss = self.loss + loss.detach().double()
        self.tokens += tokens
        for name, values in stats.items():
            total = values[:tokens].sum(dtype=torch.float64)
            self.sums[name] = self.sums[name] + total if name in self.sums else total
            self.counts[name] = self.counts.get(name, 0) + tokens

    def over(self, ranks: Ranks) -> Totals:
        """The totals over all ranks, which must have the same statistics."""
        if not (ranks.shared and self.sums):
            return self
        names, sums = sorted(self.sums), Totals()
        device = self.sums[names[0]].device
        counts = torch.tensor([self.tokens, *(self.counts[name] for name in names)], device=device)
        values = torch.stack([torch.as_tensor(self.loss), *(self.sums[name] for name in names)])
        totals = ranks.total(torch.cat([values, counts.double()]))
        sums.loss, *added = totals[: len(values)].unbind()
        sums.tokens, *counted = totals[len(values) :].long().tolist()
        sums.sums = dict(zip(names, added, strict=True))
        sums.counts = dict(zip(names, counted, strict=True))
        return sums

    def metrics(self) -> Metrics:
        """The loss, and means over the tokens that have the statistic."""
        means = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        return {"actor/loss": float(self.loss), "actor/trained_tokens": float(self.tokens), **means}


def step_metrics(result: StepResult, forwarded: int, total: int) -> Metrics:
    return {
        "actor/grad_norm": result.grad_norm,
        "actor/lr": result.learning_rate,
        "actor/skipped": float(not result.taken),
        "actor/trained_fraction": forwarded / max(total, 1),
    }


def teacher_metrics(
    examples: Sequence[TrainingExample], routes: Sequence[Route], totals: Totals, objective: Objective
) -> Metrics:
    """Metrics that reveal a teacher unaffected by its prompts."""
    if not (objective.distillation or objective.rlsd):
        return {}
    taught = [examples[index] for one in routes if one.with_teacher for index in one.indices]
    informed = any(example.teacher_prompt_ids != example.prompt_ids for example in taught)
    moved = float(totals.sums.get(LOGITS_DIFFER, torch.zeros(()))) > 0
    return {"self_distillation/teacher_equals_student": float(informed and not moved)}
