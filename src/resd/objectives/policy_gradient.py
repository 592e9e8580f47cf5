"""GRPO: advantages within groups, the clipped token loss. RLSD: advantages scaled by a teacher."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from resd.objectives.weighting import LOG_RATIO_LIMIT
from resd.records import ResdError

STD_FLOOR = 1e-6


def group_advantages(
    rewards: Tensor | Sequence[float], groups: Sequence[Hashable], *, normalize_by_std: bool
) -> Tensor:
    """Reward minus its group's mean `[B]`, optionally over the sample standard deviation (arXiv 2402.03300).

    `groups` names each reward's group. A group of one keeps its reward: it has nothing to compare with.
    """
    scores = torch.as_tensor(rewards)
    scores = scores if scores.is_floating_point() else scores.float()
    if len(groups) != scores.numel():
        raise ResdError(
            f"group_advantages: {scores.numel()} rewards but {len(groups)} groups; give one for each"
        )
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    advantages = scores.clone()
    for indices in members.values():
        if len(indices) > 1:
            advantages[indices] = _centre(scores[indices], normalize_by_std)
    return advantages


def clipped_token_loss(
    logprob: Tensor,
    old_logprob: Tensor,
    advantage: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> Tensor:
    """PPO's clipped loss per token, elementwise on tensors that broadcast (arXiv 1707.06347, Eq. 7).

    The ratio is clipped to `[1 - clip_low, 1 + clip_high]`. `dual_clip` c bounds the loss of a negative
    advantage by `c * |advantage|` (arXiv 1912.09729).
    """
    ratio = (logprob - old_logprob.detach()).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = torch.maximum(-advantage * ratio, -advantage * clipped)
    if dual_clip is None:
        return loss
    return torch.where(advantage < 0, torch.minimum(loss, -dual_clip * advantage), loss)


def self_distilled_advantage(
    advantage: Tensor, logprob: Tensor, teacher_logprob: Tensor, *, mixing: float, max_change: float
) -> Tensor:
    """Per-token advantages whose magnitude is adjusted by a teacher, detached (RLSD, arXiv 2604.03128).

    Elementwise on tensors that broadcast; log-probs are of the sampled tokens. With A > 0, a token more
    likely under the teacher than under the student counts more; with A < 0, a token less likely:
    `w = exp(sign(A) (log q - log p))`, clipped to `1 +- max_change`, and `A' = A ((1 - mixing) + mixing w)`.
    Signs never change if `max_change` is at most 1.
    """
    preference = (teacher_logprob - logprob).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    factor = (advantage.sign() * preference).exp().clamp(1 - max_change, 1 + max_change)
    return (advantage * ((1 - mixing) + mixing * factor)).detach()


def rlsd_mixing(step: int, initial: float, final: float, decay_steps: int) -> float:
    """`mixing` of the update after `step` updates: linear from `initial` to `final`, constant afterwards."""
    share = min(step / decay_steps, 1.0)
    return (1 - share) * initial + share * final


def _centre(scores: Tensor, normalize_by_std: bool) -> Tensor:
    if bool((scores == scores[0]).all()):  # a rounded mean over a tiny deviation would be a spurious signal
        return torch.zeros_like(scores)
    centred = scores - scores.mean()
    return centred / (scores.std() + STD_FLOOR) if normalize_by_std else centred
