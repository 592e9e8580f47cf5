"""One optimizer step per global batch of examples, whatever the objective."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from resd.config import RunConfig, SRPOConfig
from resd.learner.attention import packable, packing
from resd.learner.layout import MicroBatch, build_micro_batches
from resd.learner.model import autocast, body, recomputing, resolve_dtype
from resd.learner.optimizer import Optimizer, StepResult
from resd.learner.scoring import LOGITS_DIFFER, Distillation, PolicyGradient
from resd.learner.student import Score, Student
from resd.learner.teacher import Teacher
from resd.objectives.chunked import Projection, Stats
from resd.objectives.losses import SampledTokens, token_statistics
from resd.objectives.objective import Objective
from resd.objectives.weighting import entropy_weights, token_weights
from resd.records import TrainingExample

Metrics = dict[str, float]

# Parameters from which on what a forward keeps is a matter of gigabytes.
LARGE = 200_000_000


@dataclass(frozen=True, slots=True)
class Route:
    """Examples, by index, that take the same path: with or without a teacher, distilled or not."""

    indices: list[int]
    with_teacher: bool
    distilled: bool


@dataclass(frozen=True, slots=True)
class Work:
    """One micro-batch of a route. `teacher` is what its teacher makes of it, where that is known already."""

    route: Route
    batch: MicroBatch
    tokens: SampledTokens
    teacher: Sequence[Projection] = ()


class Learner:
    """Owns the student's optimizer and the teacher. `version` counts the optimizer steps taken.

    `total_updates` is how many the run can have at most: what the learning rate's schedule is spread over.
    """

    def __init__(self, model: Any, teacher: Teacher, config: RunConfig, *, total_updates: int) -> None:
        self.model, self.teacher, self.config = model, teacher, config
        self.student = Student(model)
        self.optimizer = Optimizer(model.parameters(), config.optimizer, total_steps=total_updates)
        self.device: torch.device = next(model.parameters()).device
        self.compute_dtype = resolve_dtype(config.compute_dtype, self.device)
        self.packed = _default(config.optimizer.packing, packable(self.device, self.compute_dtype))
        large = self.device.type == "cuda" and model.num_parameters() > LARGE
        self.checkpointing = _default(config.optimizer.activation_checkpointing, large)

    @property
    def version(self) -> int:
        return self.optimizer.steps

    def update(self, examples: Sequence[TrainingExample], objective: Objective) -> Metrics:
        """One step over the whole global batch, in micro-batches that do not change the numbers.

        Examples that the objective has no use for (`route`) are not forwarded; they count in the normaliser
        as `loss_aggregation` says. With nothing to learn from, or with a gradient that is not finite, neither
        student nor teacher changes, and `actor/skipped` is 1.
        """
        routes = route(examples, objective)
        advantages = torch.tensor([example.advantage for example in examples], device=self.device)
        totals = Totals()
        with self._forwards():
            for work in [work for one in routes for work in self._works(examples, one, objective)]:
                loss, stats = self._backward(work, advantages, objective)
                totals.add(loss, stats, len(work.tokens.targets))
        idle = StepResult(False, 0.0, self.optimizer.learning_rate())
        result = self.optimizer.step() if routes else idle
        if result.taken:
            self.teacher.update()
        trained = [index for one in routes for index in one.indices]
        metrics = totals.metrics() | _step_metrics(result, len(trained), len(examples))
        return metrics | _teacher_metrics(examples, routes, totals, objective)

    def state_dict(self) -> dict[str, Any]:
        """Optimizer, schedule, counters and teacher, not copied. Save the student as a model."""
        return {"optimizer": self.optimizer.state_dict(), "teacher": self.teacher.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.teacher.load_state_dict(state["teacher"])

    @contextmanager
    def _forwards(self) -> Iterator[None]:
        """How the bodies attend, and what they keep for the backward pass."""
        with ExitStack() as stack:
            if self.packed:
                stack.enter_context(packing([self.student.body, body(self.teacher.model)]))
            if self.checkpointing:
                stack.enter_context(recomputing(self.student.body))
            yield

    def _backward(self, work: Work, advantages: Tensor, objective: Objective) -> tuple[Tensor, Stats]:
        """Add one micro-batch's gradients to those of the parameters; its loss and statistics."""
        with autocast(self.device, self.compute_dtype):
            teacher = work.teacher or self._teach(work)
        score = self._score(replace(work, teacher=teacher), advantages, objective)
        with autocast(self.device, self.compute_dtype):
            loss, stats = self.student(work.batch.student, score)
        loss.backward()
        return loss.detach(), stats

    def _works(self, examples: Sequence[TrainingExample], one: Route, objective: Objective) -> list[Work]:
        batches = build_micro_batches(
            examples,
            one.indices,
            with_teacher=one.with_teacher,
            micro_batch_tokens=self.config.optimizer.micro_batch_tokens,
            packed=self.packed,
            device=self.device,
        )
        settings = objective.distillation if one.distilled else objective.policy
        assert settings is not None
        scales = self._scales(examples, objective)
        works = [Work(one, batch, self._tokens(batch, scales, settings.is_clip)) for batch in batches]
        return self._by_certainty(works, objective.srpo) if one.distilled and objective.srpo else works

    def _scales(self, examples: Sequence[TrainingExample], objective: Objective) -> Tensor:
        """What each token loss of an example is multiplied by, `[B]`, normalised over the global batch.

        To a policy gradient every try is a signal, also one that is no better or worse than its group.
        """
        signal = [objective.policy is not None or e.teacher_prompt_ids is not None for e in examples]
        return token_weights(
            self.config.loss_aggregation,
            torch.tensor([len(example.response_ids) for example in examples], device=self.device),
            torch.tensor(signal, device=self.device),
            torch.tensor([example.weight for example in examples], device=self.device),
            max_length=self.config.rollout.max_tokens,
        )

    def _tokens(self, batch: MicroBatch, scales: Tensor, is_cap: float | None) -> SampledTokens:
        return SampledTokens(
            targets=batch.student.targets,
            weights=scales[batch.student.example],
            rollout_logprobs=batch.rollout_logprobs,
            is_cap=is_cap,
            temperature=self.config.rollout.temperature,
            top_p=self.config.rollout.top_p,
        )

    def _by_certainty(self, works: Sequence[Work], config: SRPOConfig) -> list[Work]:
        """SRPO's weights. Their mean is one of all distilled tokens: hence a pass over the teacher first.

        What the teacher made is kept for the loss, hidden states and not logits, so that its body runs once.
        """
        with autocast(self.device, self.compute_dtype):
            taught = [replace(work, teacher=self._teach(work)) for work in works]
        entropies = [self._entropy(work) for work in taught]
        weights = entropy_weights(torch.cat(entropies), beta=config.entropy_beta)
        return [
            replace(work, tokens=replace(work.tokens, weights=work.tokens.weights * own))
            for work, own in zip(taught, torch.split(weights, list(map(len, entropies))), strict=True)
        ]

    def _entropy(self, work: Work) -> Tensor:
        stats = token_statistics(work.teacher, work.tokens, compute_dtype=self._rounded)
        return stats["entropy"]

    def _teach(self, work: Work) -> Sequence[Projection]:
        """What the teacher makes of a micro-batch, just in time; nothing where it has no say."""
        return () if work.batch.teacher is None else self.teacher.projections(work.batch.teacher)

    def _score(self, work: Work, advantages: Tensor, objective: Objective) -> Score:
        if work.route.distilled:
            assert objective.distillation is not None
            return Distillation(objective.distillation, work.teacher, work.tokens, self._rounded)
        assert objective.policy is not None
        example = work.batch.student.example
        return PolicyGradient(
            config=objective.policy,
            advantages=advantages[example],
            sequence=example,
            tokens=work.tokens,
            teacher=work.teacher,
            rlsd=objective.rlsd,
            updates=self.version,
            compute_dtype=self._rounded,
        )

    @property
    def _rounded(self) -> torch.dtype | None:
        """What operands of the head are rounded to; None leaves them as they are."""
        return None if self.compute_dtype == torch.float32 else self.compute_dtype


class Totals:
    """Sums over all tokens of a step, on the device: nothing is read back before the last micro-batch."""

    def __init__(self) -> None:
        self.loss: Tensor | float = 0.0
        self.tokens = 0
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, loss: Tensor, stats: Stats, tokens: int) -> None:
        self.loss = self.loss + loss.detach().double()
        self.tokens += tokens
        for name, values in stats.items():
            total = values.sum(dtype=torch.float64)
            self.sums[name] = self.sums[name] + total if name in self.sums else total
            self.counts[name] = self.counts.get(name, 0) + tokens

    def metrics(self) -> Metrics:
        """The loss, and means over the tokens that have the statistic."""
        means = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        return {"actor/loss": float(self.loss), "actor/trained_tokens": float(self.tokens), **means}


def route(examples: Sequence[TrainingExample], objective: Objective) -> list[Route]:
    """Which examples are forwarded, and how: each once at most, and none without a gradient."""
    distilled: list[int] = []
    guided: list[int] = []
    alone: list[int] = []
    for index, example in enumerate(examples):
        prompted = example.teacher_prompt_ids is not None
        if not example.response_ids:
            continue
        if objective.distillation and prompted:
            distilled.append(index)
        elif objective.policy and example.advantage != 0.0:
            (guided if objective.rlsd and prompted else alone).append(index)
    routes = [
        Route(distilled, with_teacher=True, distilled=True),
        Route(guided, with_teacher=True, distilled=False),
        Route(alone, with_teacher=False, distilled=False),
    ]
    return [one for one in routes if one.indices]


def _default(chosen: bool | None, otherwise: bool) -> bool:
    return otherwise if chosen is None else chosen


def _step_metrics(result: StepResult, forwarded: int, total: int) -> Metrics:
    return {
        "actor/grad_norm": result.grad_norm,
        "actor/lr": result.learning_rate,
        "actor/skipped": float(not result.taken),
        "actor/trained_fraction": forwarded / max(total, 1),
    }


def _teacher_metrics(
    examples: Sequence[TrainingExample], routes: Sequence[Route], totals: Totals, objective: Objective
) -> Metrics:
    """How many examples have a teacher prompt, and the alarm for a teacher whom its prompts do not move."""
    if not (objective.distillation or objective.rlsd):
        return {}
    prompted = sum(example.teacher_prompt_ids is not None for example in examples)
    taught = [examples[index] for one in routes if one.with_teacher for index in one.indices]
    informed = any(example.teacher_prompt_ids != example.prompt_ids for example in taught)
    moved = float(totals.sums.get(LOGITS_DIFFER, torch.zeros(()))) > 0
    return {
        "self_distillation/reprompt_sample_fraction": prompted / max(len(examples), 1),
        "self_distillation/teacher_equals_student": float(informed and not moved),
    }
