"""Divergences between student and teacher, token by token: the loss of self-distillation.

RESD clips the teacher/student ratio (arXiv 2605.12741, Eq. 1); the truncated support with a tail bucket and
the generalised Jensen-Shannon divergence come from SDPO (arXiv 2601.20802). Plain PyTorch.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from resd.records import ResdError

Selector = Literal["student", "teacher", "union"]

# The least mass of the tail bucket; below it the tail's gradient is cut.
TAIL_FLOOR = 1e-7
# Stands for the log of no probability: exp() of it is 0, and sums and products with it stay finite.
LOG_ZERO = -1e4


def token_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    alpha: float,
    topk: int | None = None,
    add_tail: bool = True,
    selector: Selector = "student",
    min_ratio: float | None = None,
    max_ratio: float | None = None,
) -> Tensor:
    """Divergence of each token's distributions in nats, `[..., V]` and `[..., V]` to `[...]`.

    alpha 0 is KL(teacher || student), 1 is KL(student || teacher), between them is the generalised JSD, which
    is not rescaled and so does not tend to either KL. With `topk` the distributions are compared on the ids
    that `selector` ranks highest, either with the rest as one tail bucket or renormalised to those ids; None
    or `topk >= V` is the whole vocabulary. The teacher/student ratio is then clipped to
    `[min_ratio, max_ratio]` against the detached student, tail included and without renormalising.

    float64 stays float64, anything lower is computed in float32. No gradient reaches the teacher. Raises
    ResdError for unequal shapes or values out of range.
    """
    _check(student_logits, teacher_logits, alpha, topk, min_ratio, max_ratio)
    student, teacher = at_least_float32(student_logits), at_least_float32(teacher_logits.detach())
    if topk is None or topk >= student.shape[-1]:
        log_p, log_q = student.log_softmax(-1), teacher.log_softmax(-1)
    else:
        ids, repeated = _support(student.detach(), teacher, topk, selector)
        log_p = _on_support(student, ids, repeated, add_tail)
        log_q = _on_support(teacher, ids, repeated, add_tail)
    return _divergence(log_p, clip_ratio(log_q, log_p, min_ratio, max_ratio), alpha)


def sampled_token_loss(
    student_logprob: Tensor,
    teacher_logprob: Tensor,
    *,
    min_ratio: float | None = None,
    max_ratio: float | None = None,
) -> Tensor:
    """The score-function estimate of the reverse KL from the sampled tokens alone, elementwise on any shape.

    `sg(log p - log q) * log p`: the value means nothing by itself, its gradient is the estimate (SDPO).
    """
    log_p, log_q = at_least_float32(student_logprob), at_least_float32(teacher_logprob.detach())
    return (log_p.detach() - clip_ratio(log_q, log_p, min_ratio, max_ratio)) * log_p


def clip_ratio(log_q: Tensor, log_p: Tensor, min_ratio: float | None, max_ratio: float | None) -> Tensor:
    """Clamp q to `[min_ratio * p, max_ratio * p]` in log space; p is detached, None leaves a side open."""
    reference = log_p.detach()
    if min_ratio is not None:
        log_q = torch.maximum(log_q, reference + math.log(min_ratio))
    if max_ratio is not None:
        log_q = torch.minimum(log_q, reference + math.log(max_ratio))
    return log_q


def token_logprobs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability of each token, `[..., V]` and `[...]` to `[...]`, in float32 or better."""
    logits = at_least_float32(logits)
    return logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy of the softmax in nats, `[..., V]` to `[...]`, in float32 or better."""
    log_p = at_least_float32(logits).log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _support(student: Tensor, teacher: Tensor, topk: int, selector: Selector) -> tuple[Tensor, Tensor | None]:
    """Ids `[..., K or 2K]`, and for a union which of them repeat an earlier one."""
    if selector == "student":
        return student.topk(topk, sorted=False).indices, None
    if selector == "teacher":
        return teacher.topk(topk, sorted=False).indices, None
    both = [side.topk(topk, sorted=False).indices for side in (student, teacher)]
    ids = torch.cat(both, dim=-1).sort(-1).values
    repeated = torch.zeros_like(ids, dtype=torch.bool)
    repeated[..., 1:] = ids[..., 1:] == ids[..., :-1]
    return ids, repeated


def _on_support(logits: Tensor, ids: Tensor, repeated: Tensor | None, add_tail: bool) -> Tensor:
    """Log-probabilities of the ids, and either a tail bucket after them or normalised to them."""
    log_p = logits.gather(-1, ids) - logits.logsumexp(-1, keepdim=True)
    if repeated is not None:
        log_p = log_p.masked_fill(repeated, LOG_ZERO)
    log_mass = log_p.logsumexp(-1, keepdim=True)
    if not add_tail:
        return log_p - log_mass
    tail = torch.log(-torch.expm1(log_mass.clamp(max=-TAIL_FLOOR)))
    return torch.cat([log_p, tail], dim=-1)


def _divergence(log_p: Tensor, log_q: Tensor, alpha: float) -> Tensor:
    if alpha == 0.0:
        return (log_q.exp() * (log_q - log_p)).sum(-1)
    if alpha == 1.0:
        return (log_p.exp() * (log_p - log_q)).sum(-1)
    log_m = torch.logaddexp(log_p + math.log1p(-alpha), log_q + math.log(alpha))
    from_student = (log_p.exp() * (log_p - log_m)).sum(-1)
    from_teacher = (log_q.exp() * (log_q - log_m)).sum(-1)
    return (1 - alpha) * from_student + alpha * from_teacher


def _check(
    student: Tensor,
    teacher: Tensor,
    alpha: float,
    topk: int | None,
    min_ratio: float | None,
    max_ratio: float | None,
) -> None:
    if student.shape != teacher.shape:
        raise ResdError(
            f"token_divergence: student logits are {list(student.shape)} and teacher logits "
            f"{list(teacher.shape)}; score the same tokens with models of the same vocabulary"
        )
    if not 0.0 <= alpha <= 1.0:
        raise ResdError(f"token_divergence: alpha is {alpha}; give a value from 0 to 1")
    if topk is not None and topk < 1:
        raise ResdError(f"token_divergence: topk is {topk}; give 1 or more, or None for the whole vocabulary")
    low, high = min_ratio if min_ratio is not None else 1.0, max_ratio if max_ratio is not None else math.inf
    if not (0.0 < low <= 1.0 and high > 0.0 and (min_ratio is None or low <= high)):
        raise ResdError(
            f"token_divergence: ratio limits {min_ratio}, {max_ratio}; need 0 < min_ratio <= 1 and "
            "min_ratio <= max_ratio"
        )
