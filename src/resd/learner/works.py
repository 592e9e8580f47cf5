"""Which examples are forwarded, how, and in which micro-batches: the work of one update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from resd.config import RunConfig
from resd.learner.layout import MicroBatch, build_micro_batches
from resd.objectives.chunked import Projection
from resd.objectives.losses import SampledTokens
from resd.objectives.objective import Objective
from resd.objectives.weighting import token_weights
from resd.records import TrainingExample


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


def make_works(
    examples: Sequence[TrainingExample],
    one: Route,
    objective: Objective,
    config: RunConfig,
    *,
    packed: bool,
    device: torch.device,
) -> list[Work]:
    """The micro-batches of a route, their token losses weighed for the global batch."""
    batches = build_micro_batches(
        examples,
        one.indices,
        with_teacher=one.with_teacher,
        micro_batch_tokens=config.optimizer.micro_batch_tokens,
        packed=packed,
        device=device,
    )
    settings = objective.distillation if one.distilled else objective.policy
    assert settings is not None
    scales = _scales(examples, objective, config, device)
    return [Work(one, batch, _tokens(batch, scales, settings.is_clip, config)) for batch in batches]


def _scales(
    examples: Sequence[TrainingExample], objective: Objective, config: RunConfig, device: torch.device
) -> Tensor:
    """What each token loss of an example is multiplied by, `[B]`, normalised over the global batch.

    To a policy gradient every try is a signal, also one that is no better or worse than its group.
    """
    signal = [objective.policy is not None or e.teacher_prompt_ids is not None for e in examples]
    return token_weights(
        config.loss_aggregation,
        torch.tensor([len(example.response_ids) for example in examples], device=device),
        torch.tensor(signal, device=device),
        torch.tensor([example.weight for example in examples], device=device),
        max_length=config.rollout.max_tokens,
    )


def _tokens(batch: MicroBatch, scales: Tensor, is_cap: float | None, config: RunConfig) -> SampledTokens:
    return SampledTokens(
        targets=batch.student.targets,
        weights=scales[batch.student.example],
        rollout_logprobs=batch.rollout_logprobs,
        is_cap=is_cap,
        temperature=config.rollout.temperature,
        top_p=config.rollout.top_p,
    )
