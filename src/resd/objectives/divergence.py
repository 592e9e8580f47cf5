"""Per-token divergences between student and teacher: the loss of self-distillation.

RESD clips the teacher/student ratio (arXiv 2605.12741, Eq. 1); the truncated support with a tail bucket and
the generalised Jensen-Shannon divergence come from SDPO (arXiv 2601.20802). Gradients are analytic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from resd.objectives import kernels
from resd.objectives.rows import RowSums, Split, row_sums, split, top_ids, write_split_gradient
from resd.records import ResdError

Selector = Literal["student", "teacher", "union"]


@dataclass(frozen=True, slots=True)
class Divergence:
    """A divergence and its support. `alpha` 0 is KL(teacher || student), 1 is KL(student || teacher).

    Values between are the generalised JSD, which is not rescaled and so does not tend to either KL. With
    `topk` the distributions are compared on the ids that `selector` ranks highest, either with the rest as
    one tail bucket or renormalised to those ids; None or `topk >= V` is the whole vocabulary. The
    teacher/student ratio is then clipped to `[min_ratio, max_ratio]` against the detached student, including
    the tail and without renormalising. Raises ResdError for values out of range.
    """

    alpha: float
    topk: int | None = None
    add_tail: bool = True
    selector: Selector = "student"
    min_ratio: float | None = None
    max_ratio: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha <= 1.0:
            raise ResdError(f"divergence: alpha is {self.alpha}; give a value from 0 to 1")
        if self.topk is not None and self.topk < 1:
            raise ResdError(
                f"divergence: topk is {self.topk}; give 1 or more, or None for the whole vocabulary"
            )
        low, high = self.min_ratio, self.max_ratio
        bounded = (low is None or 0.0 < low <= 1.0) and (high is None or high > 0.0)
        if not bounded or (low is not None and high is not None and low > high):
            raise ResdError(
                f"divergence: ratio limits {low}, {high}; need 0 < min_ratio <= 1 and min_ratio <= max_ratio"
            )


class RowDivergence(NamedTuple):
    """Results of one tile, `[rows]` each: the loss, both sides' sums, and shares of the student's mass."""

    loss: Tensor
    student: RowSums
    teacher: RowSums
    clipped: Tensor  # mass whose ratio was clipped
    outside: Tensor  # mass outside the support
    # Writes factor * (gradient of the loss w.r.t. the student's logits) from out `[rows, V]`, which may have
    # a lower dtype, and factor `[rows]`. Call it immediately: it uses the logits.
    write_gradient: Callable[[Tensor, Tensor], None]


def row_divergence(student: Tensor, teacher: Tensor, spec: Divergence) -> RowDivergence:
    """Divergences of two tiles of logits `[rows, V]`, which may be overwritten."""
    if spec.topk is None or spec.topk >= student.shape[-1]:
        return _on_vocabulary(student, teacher, spec)
    return _on_support(student, teacher, spec)


def divergence_terms(log_p: Tensor, log_q: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Each id's part of the loss, and its derivative d w.r.t. log p, of the same shape; q is constant.

    A multiple of p is left out of d. It does not matter: with p normalised, the gradient w.r.t. the logits is
    `d - p * d.sum()`. Leaving it out avoids cancellation of large terms where p and q are close.
    `triton_rows._terms` is the same formula for the whole vocabulary on a GPU.
    """
    p, q = log_p.exp(), log_q.exp()
    if alpha == 0.0:
        return q * (log_q - log_p), -q
    if alpha == 1.0:
        loss = p * (log_p - log_q)
        return loss, loss
    log_m = torch.logaddexp(log_p + math.log1p(-alpha), log_q + math.log(alpha))
    derivative = (1 - alpha) * p * (log_p - log_m)
    return derivative + alpha * q * (log_q - log_m), derivative


def clip_ratio(log_q: Tensor, log_p: Tensor, min_ratio: float | None, max_ratio: float | None) -> Tensor:
    """Clamp q to `[min_ratio * p, max_ratio * p]` in log space; p is detached, None leaves a side open."""
    reference = log_p.detach()
    if min_ratio is not None:
        log_q = torch.maximum(log_q, reference + math.log(min_ratio))
    if max_ratio is not None:
        log_q = torch.minimum(log_q, reference + math.log(max_ratio))
    return log_q


def sampled_token_loss(
    student_logprob: Tensor,
    teacher_logprob: Tensor,
    *,
    min_ratio: float | None = None,
    max_ratio: float | None = None,
) -> Tensor:
    """The score-function estimate of the reverse KL from sampled tokens only, elementwise on any shape.

    `sg(log p - log q) * log p`: the value itself is meaningless, its gradient is the estimate (SDPO).
    """
    log_q = clip_ratio(teacher_logprob.detach(), student_logprob, min_ratio, max_ratio)
    return (student_logprob.detach() - log_q) * student_logprob


def token_divergence(student_logits: Tensor, teacher_logits: Tensor, **settings: Any) -> Tensor:
    """Per-token divergence in nats, `[..., V]` and `[..., V]` to `[...]`.

    `settings` are the fields of `Divergence`. Use this for logits you already have; for training, let
    `chunked.fused_loss` compute them from hidden states. float64 stays float64; lower dtypes are computed in
    float32. No gradient reaches the teacher. Raises ResdError for unequal shapes or values out of range.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ResdError(
            f"token_divergence: student logits are {list(student_logits.shape)} and teacher logits "
            f"{list(teacher_logits.shape)}; score the same tokens with models of the same vocabulary"
        )
    result: Tensor = _TokenDivergence.apply(  # type: ignore[no-untyped-call]
        student_logits, teacher_logits, Divergence(**settings)
    )
    return result


class _TokenDivergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, spec: Divergence) -> Tensor:
        rows = [_rows(side) for side in (student, teacher)]
        result = row_divergence(rows[0], rows[1], spec)
        gradient = torch.empty_like(rows[0])
        result.write_gradient(gradient, torch.ones_like(result.loss))
        ctx.save_for_backward(gradient.view(student.shape))
        return result.loss.view(student.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream.unsqueeze(-1), None, None


def _rows(logits: Tensor) -> Tensor:
    """A working copy, `[rows, V]`."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.detach().reshape(-1, logits.shape[-1]).to(dtype, copy=True)


def _on_vocabulary(student: Tensor, teacher: Tensor, spec: Divergence) -> RowDivergence:
    ours, theirs = row_sums(student), row_sums(teacher)
    if kernels.usable(student):
        loss, clipped, write = kernels.divergence(student, teacher, ours, theirs, spec)
        return RowDivergence(loss, ours, theirs, clipped, torch.zeros_like(loss), write)
    log_p = ours.logprob(student)
    loss, derivative, clipped = _clipped_terms(log_p, theirs.logprob(teacher), spec)

    def write_gradient(out: Tensor, factor: Tensor) -> None:
        out.copy_(_by_logits(log_p, derivative).mul_(factor.unsqueeze(-1)))

    return RowDivergence(loss, ours, theirs, clipped, torch.zeros_like(loss), write_gradient)


def _on_support(student: Tensor, teacher: Tensor, spec: Divergence) -> RowDivergence:
    ids, repeated = _support(student, teacher, spec)
    ours, theirs = split(student, ids, repeated), split(teacher, ids, repeated)
    log_p, log_q = (_buckets(side, spec.add_tail) for side in (ours, theirs))
    loss, derivative, clipped = _clipped_terms(log_p, log_q, spec)

    def write_gradient(out: Tensor, factor: Tensor) -> None:
        buckets = _by_logits(log_p, derivative).mul_(factor.unsqueeze(-1))
        outside = buckets[:, -1] if spec.add_tail else None
        write_split_gradient(out, student, ours, ids, buckets[:, : ids.shape[-1]], outside)

    return RowDivergence(loss, ours.whole, theirs.whole, clipped, ours.outside.exp(), write_gradient)


def _support(student: Tensor, teacher: Tensor, spec: Divergence) -> tuple[Tensor, Tensor | None]:
    """Ids `[rows, K or 2K]`, and for a union a mask of ids that repeat an earlier one."""
    assert spec.topk is not None
    if spec.selector != "union":
        return top_ids(student if spec.selector == "student" else teacher, spec.topk), None
    both = [top_ids(side, spec.topk) for side in (student, teacher)]
    ids = torch.cat(both, dim=-1).sort(-1).values
    repeated = torch.zeros_like(ids, dtype=torch.bool)
    repeated[:, 1:] = ids[:, 1:] == ids[:, :-1]
    return ids, repeated


def _buckets(side: Split, add_tail: bool) -> Tensor:
    """Normalised log-probabilities: of the ids and the tail, or renormalised to the ids."""
    if add_tail:
        return torch.cat([side.inside, side.outside.unsqueeze(-1)], dim=-1)
    return side.inside.log_softmax(-1)


def _clipped_terms(log_p: Tensor, log_q: Tensor, spec: Divergence) -> tuple[Tensor, Tensor, Tensor]:
    """The loss `[rows]`, its derivative w.r.t. log p `[rows, ids]` and the clipped mass `[rows]`."""
    bounded = clip_ratio(log_q, log_p, spec.min_ratio, spec.max_ratio)
    terms, derivative = divergence_terms(log_p, bounded, spec.alpha)
    loss = terms.sum(-1)
    if bounded is log_q:
        return loss, derivative, torch.zeros_like(loss)
    return loss, derivative, log_p.exp().masked_fill_(bounded == log_q, 0.0).sum(-1)


def _by_logits(log_p: Tensor, derivative: Tensor) -> Tensor:
    """Convert derivatives w.r.t. normalised log-probs to derivatives w.r.t. logits."""
    return derivative - log_p.exp().mul_(derivative.sum(-1, keepdim=True))
