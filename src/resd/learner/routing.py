"""The work of one update: which examples are forwarded, how, and in which micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from resd.config import RunConfig
from resd.learner.layout import MicroBatch, build_micro_batches
from resd.learner.parallel import Ranks, partition
from resd.learner.prefix import teacher_prefix
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
class WorkItem:
    """One micro-batch of a route. `teacher` is the teacher's projections, if already computed.

    If `idle`, it only keeps ranks in step: its loss and gradients are 0, and it counts in no metric.
    """

    route: Route
    batch: MicroBatch
    tokens: SampledTokens
    teacher: Sequence[Projection] = ()
    idle: bool = False


def route(examples: Sequence[TrainingExample], objective: Objective) -> list[Route]:
    """Which examples are forwarded, and how: each at most once, and only those with a gradient."""
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


def make_work_items(
    examples: Sequence[TrainingExample],
    one: Route,
    objective: Objective,
    config: RunConfig,
    *,
    packed: bool,
    prefixed: bool,
    device: torch.device,
    ranks: Ranks,
) -> list[WorkItem]:
    """This rank's micro-batches of a route, with token losses weighted for the global batch.

    All ranks get the same number, since each forward gathers weights from all ranks. With `prefixed`, the
    common prefix of the teacher's prompts is computed once if that pays off; this requires packing.
    """
    settings = objective.distillation if one.distilled else objective.policy
    assert settings is not None
    # The prefix of all ranks' examples, so that each rank computes it equally often.
    prefix = teacher_prefix([examples[i] for i in one.indices]) if prefixed and one.with_teacher else None
    build = partial(
        build_micro_batches,
        with_teacher=one.with_teacher,
        micro_batch_tokens=config.optimizer.micro_batch_tokens,
        packed=packed,
        prefix=prefix,
        device=device,
    )
    scales = _scales(examples, objective, config, device)
    own = partition([_length(examples[index], one) for index in one.indices], ranks.size)[ranks.rank]
    items = [
        WorkItem(one, batch, _tokens(batch, scales, settings.is_clip, config))
        for batch in build(examples, [one.indices[position] for position in own])
    ]
    missing = ranks.largest(len(items)) - len(items)
    if not missing:
        return items
    (batch,) = build([_shortened(examples[one.indices[0]], 0 if prefix is None else len(prefix))], [0])
    tokens = _tokens(batch, torch.zeros_like(scales), settings.is_clip, config)
    return items + [WorkItem(one, batch, tokens, idle=True)] * missing


def weighted(item: WorkItem, factors: Tensor) -> WorkItem:
    """The item with its token losses multiplied by `factors` `[tokens]`."""
    return replace(item, tokens=replace(item.tokens, weights=item.tokens.weights * factors))


def prompted(prompt: Sequence[int], response: Sequence[int]) -> TrainingExample:
    """An example for the teacher only; the student's side is as short as possible."""
    unknown = (0.0,) * len(response)
    return TrainingExample(tuple(prompt[:1]), tuple(response), unknown, teacher_prompt_ids=tuple(prompt))


def _length(example: TrainingExample, one: Route) -> int:
    """The number of tokens forwarded by student and teacher."""
    taught = len(example.teacher_prompt_ids or ()) + len(example.response_ids) if one.with_teacher else 0
    return len(example.prompt_ids) + len(example.response_ids) + taught


def _shortened(example: TrainingExample, prefix: int) -> TrainingExample:
    """The shortest example of the same route, after a prefix of `prefix` tokens."""
    return replace(
        example,
        prompt_ids=example.prompt_ids[:1],
        response_ids=example.response_ids[:1],
        rollout_logprobs=example.rollout_logprobs[:1],
        teacher_prompt_ids=example.teacher_prompt_ids and example.teacher_prompt_ids[: prefix + 1],
    )


def _scales(
    examples: Sequence[TrainingExample], objective: Objective, config: RunConfig, device: torch.device
) -> Tensor:
    """The factor of each example's token losses, `[B]`, normalised over the global batch.

    For a policy gradient every attempt counts as having a signal, even with zero advantage.
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
