"""From logits of one micro-batch to a loss per token and what is worth logging about it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from resd.config import DistillationConfig, PolicyConfig
from resd.objectives.divergence import entropy, sampled_token_loss, token_divergence, token_logprobs
from resd.objectives.policy_gradient import clipped_token_loss
from resd.objectives.weighting import importance_ratio, nucleus_log_mass

LOGITS_DIFFER = "self_distillation/logits_differ_fraction"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the responses were drawn: what the student's distribution is compared with."""

    temperature: float
    top_p: float


@dataclass(frozen=True, slots=True)
class TokenScores:
    """`loss` `[tokens]` carries the gradient; `stats`, detached `[tokens]`, are to be averaged."""

    loss: Tensor
    stats: dict[str, Tensor]


def distillation_scores(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor,
    rollout_logprobs: Tensor,
    config: DistillationConfig,
    sampling: Sampling,
) -> TokenScores:
    """Divergence from the teacher times the capped importance weight, both models at rollout temperature."""
    student, teacher = student_logits / sampling.temperature, teacher_logits / sampling.temperature
    logprobs = token_logprobs(student, targets)
    gap = _gap(student, teacher, logprobs, targets, config)
    ratio, stats = _correction(
        student.detach(), logprobs.detach(), rollout_logprobs, config.is_clip, sampling
    )
    stats |= {
        "self_distillation/teacher_student_gap": gap.detach(),
        "self_distillation/teacher_entropy": entropy(teacher),
        LOGITS_DIFFER: (student_logits.detach() != teacher_logits).any(-1),
    }
    return TokenScores(gap * ratio, stats)


def policy_scores(
    logits: Tensor,
    targets: Tensor,
    rollout_logprobs: Tensor,
    advantages: Tensor,
    config: PolicyConfig,
    sampling: Sampling,
) -> TokenScores:
    """The clipped policy-gradient loss times the capped importance weight.

    With one optimizer step per rollout batch the policy before the step is the current one: the ratio is 1
    and only its gradient is felt.
    """
    student = logits / sampling.temperature
    logprobs = token_logprobs(student, targets)
    loss = clipped_token_loss(
        logprobs,
        logprobs.detach(),
        advantages,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        dual_clip=config.dual_clip,
    )
    ratio, stats = _correction(
        student.detach(), logprobs.detach(), rollout_logprobs, config.is_clip, sampling
    )
    return TokenScores(loss * ratio, stats)


def _gap(
    student: Tensor, teacher: Tensor, logprobs: Tensor, targets: Tensor, config: DistillationConfig
) -> Tensor:
    if config.token_level:
        return sampled_token_loss(
            logprobs,
            token_logprobs(teacher, targets),
            min_ratio=config.min_ratio,
            max_ratio=config.max_ratio,
        )
    return token_divergence(
        student,
        teacher,
        alpha=config.alpha,
        topk=config.topk,
        add_tail=config.add_tail,
        selector=config.selector,
        min_ratio=config.min_ratio,
        max_ratio=config.max_ratio,
    )


@torch.no_grad()
def _correction(
    logits: Tensor, logprobs: Tensor, rollout_logprobs: Tensor, cap: float | None, sampling: Sampling
) -> tuple[Tensor, dict[str, Tensor]]:
    """Importance weights `[tokens]` of trainer over engine, on the support that was sampled, and stats."""
    if sampling.top_p < 1.0:
        logprobs = logprobs - nucleus_log_mass(logits, sampling.top_p)
    ratio = importance_ratio(logprobs, rollout_logprobs, cap=cap)
    capped = ratio == cap if cap is not None else torch.zeros_like(ratio)
    return ratio, {
        "actor/entropy": entropy(logits),
        "actor/is_ratio_mean": ratio,
        "actor/is_ratio_capped_fraction": capped,
        "actor/rollout_logprob_gap": (logprobs - rollout_logprobs).abs(),
    }
