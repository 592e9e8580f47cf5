"""Training losses from hidden states: distillation from a teacher, and any loss on sampled tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from resd.objectives.chunked import LogitTiles, Projection, Stats, TileLoss, fused_loss, slices
from resd.objectives.divergence import Divergence, row_divergence
from resd.objectives.rows import nucleus_log_mass, row_sums, split, write_split_gradient
from resd.objectives.weighting import importance_ratio
from resd.records import ResdError


@dataclass(frozen=True, slots=True)
class SampledTokens:
    """T tokens, how they were sampled, and the weights of their losses.

    The weights include the normalisers of the whole global batch; tokens of weight 0 are not computed. Each
    loss is also multiplied by `min(p / p_rollout, is_cap)`, detached, with p restricted to the nucleus
    `top_p` that was sampled from; with `is_cap` None there is no such factor. Raises ResdError for lengths
    that differ, and for `is_cap` without `rollout_logprobs`.
    """

    targets: Tensor  # [T]
    weights: Tensor  # [T]
    rollout_logprobs: Tensor | None = None  # [T]
    is_cap: float | None = None
    temperature: float = 1.0  # of the student's and the teacher's logits
    top_p: float = 1.0

    def __post_init__(self) -> None:
        rollout = self.rollout_logprobs
        given = self.targets, self.weights, *(() if rollout is None else (rollout,))
        if self.targets.ndim != 1 or any(values.shape != self.targets.shape for values in given):
            shapes = ", ".join(str(list(values.shape)) for values in given)
            raise ResdError(
                f"sampled tokens: the shapes of targets, weights and rollout_logprobs are {shapes}; give one "
                "value for each token"
            )
        if self.is_cap is not None and rollout is None:
            raise ResdError(
                f"sampled tokens: is_cap {self.is_cap} without rollout_logprobs; give both or neither"
            )

    def __getitem__(self, index: Tensor | slice) -> SampledTokens:
        rollout = None if self.rollout_logprobs is None else self.rollout_logprobs[index]
        return replace(
            self, targets=self.targets[index], weights=self.weights[index], rollout_logprobs=rollout
        )


class TokenLoss(Protocol):
    """A differentiable loss on log-probs of sampled tokens."""

    def __call__(self, logprob: Tensor, teacher_logprob: Tensor | None, index: Tensor | slice) -> Tensor:
        """Losses `[n]` of the tokens `index` of all T, from their log-probs `[n]`."""
        ...


def distillation_loss(
    student: Projection,
    teacher: Sequence[Projection],
    tokens: SampledTokens,
    divergence: Divergence,
    *,
    compute_dtype: torch.dtype | None = None,
    tile_rows: int | None = None,
) -> tuple[Tensor, Stats]:
    """The weighted sum of the divergences from the teacher, a scalar, and per-token statistics, `[T]` each.

    The sum carries gradients to `student`, as in `fused_loss`. The teacher's logits are the sum of its
    projections: one, or two for a trust region. Raises ResdError if the sides differ in tokens or vocabulary.
    The statistics are `divergence`, `loss` (weighted), `logprob` and `teacher_logprob` (of the targets),
    `entropy`, `teacher_entropy`, `ratio` (importance), `log_mass` (of the nucleus), `clipped` and `outside`
    (the student's mass whose ratio is clipped, and in the tail). All are 0 for tokens of weight 0.
    """
    _check([student, *teacher], tokens)
    index, kept = _kept(tokens)
    teacher_tiles = _tiles([_rows(side, index) for side in teacher], kept, compute_dtype)
    loss = _Distillation(teacher_tiles, kept, divergence)
    return _fused(student, index, tokens, loss, compute_dtype, tile_rows)


def sampled_loss(
    student: Projection,
    tokens: SampledTokens,
    loss: TokenLoss,
    *,
    teacher: Sequence[Projection] = (),
    compute_dtype: torch.dtype | None = None,
    tile_rows: int | None = None,
) -> tuple[Tensor, Stats]:
    """Like `distillation_loss`, for any `loss`: policy gradients and token-level distillation.

    The statistics are `token_loss`, `loss` (weighted), `logprob`, `entropy`, `ratio`, `log_mass`, and with a
    teacher `teacher_logprob` and `teacher_entropy`.
    """
    _check([student, *teacher], tokens)
    index, kept = _kept(tokens)
    sides = [_rows(side, index) for side in teacher]
    tile_loss = _Sampled(_tiles(sides, kept, compute_dtype) if sides else None, kept, index, loss)
    return _fused(student, index, tokens, tile_loss, compute_dtype, tile_rows)


@torch.no_grad()
def token_statistics(
    projections: Sequence[Projection],
    tokens: SampledTokens,
    *,
    compute_dtype: torch.dtype | None = None,
) -> Stats:
    """`logprob`, `entropy` and `log_mass` of all tokens `[T]`, for weights that depend on other tokens."""
    _check(projections, tokens)
    tiles = _tiles(projections, tokens, compute_dtype)
    parts = []
    for rows in slices(0, tiles.shape[0], tiles.rows_per_tile):
        logits = tiles(rows)
        sums = row_sums(logits)
        logprob = sums.logprob(_picked(logits, tokens.targets[rows]))
        parts.append((logprob, sums.entropy(), nucleus_log_mass(logits, tokens.top_p)))
    columns = (torch.cat(column) for column in zip(*parts, strict=True))
    return dict(zip(("logprob", "entropy", "log_mass"), columns, strict=True))


@dataclass(frozen=True, slots=True)
class _Distillation:
    """The tile loss of `distillation_loss`."""

    teacher: LogitTiles
    tokens: SampledTokens
    divergence: Divergence

    def __call__(self, logits: Tensor, rows: slice, gradient: Tensor | None) -> Stats:
        tokens, teacher = self.tokens[rows], self.teacher(rows)
        log_mass = nucleus_log_mass(logits, tokens.top_p)
        picked, teacher_picked = (_picked(side, tokens.targets) for side in (logits, teacher))
        result = row_divergence(logits, teacher, self.divergence)
        logprob = result.student.logprob(picked)
        ratio = _importance(logprob - log_mass, tokens)
        weights = tokens.weights * ratio
        if gradient is not None:
            result.write_gradient(gradient, weights)
        return {
            "loss": weights * result.loss,
            "divergence": result.loss,
            "logprob": logprob,
            "teacher_logprob": result.teacher.logprob(teacher_picked),
            "entropy": result.student.entropy(),
            "teacher_entropy": result.teacher.entropy(),
            "ratio": ratio,
            "log_mass": log_mass,
            "clipped": result.clipped,
            "outside": result.outside,
        }


@dataclass(frozen=True, slots=True)
class _Sampled:
    """The tile loss of `sampled_loss`. `index` gives the positions of the kept tokens among all."""

    teacher: LogitTiles | None
    tokens: SampledTokens
    index: Tensor | None
    loss: TokenLoss

    def __call__(self, logits: Tensor, rows: slice, gradient: Tensor | None) -> Stats:
        tokens = self.tokens[rows]
        log_mass = nucleus_log_mass(logits, tokens.top_p)
        teacher = {} if self.teacher is None else _teacher_stats(self.teacher(rows), tokens.targets)
        ids = tokens.targets.unsqueeze(-1)
        parts = split(logits, ids)
        logprob = parts.inside.squeeze(-1)
        loss, slope = self._loss(logprob, teacher.get("teacher_logprob"), rows)
        ratio = _importance(logprob - log_mass, tokens)
        weights = tokens.weights * ratio
        if gradient is not None:
            moved = weights * slope * parts.outside.exp()  # 1 - p(y), without the subtraction
            write_split_gradient(gradient, logits, parts, ids, moved.unsqueeze(-1), -moved)
        return teacher | {
            "loss": weights * loss,
            "token_loss": loss,
            "logprob": logprob,
            "entropy": parts.whole.entropy(),
            "ratio": ratio,
            "log_mass": log_mass,
        }

    def _loss(self, logprob: Tensor, teacher_logprob: Tensor | None, rows: slice) -> tuple[Tensor, Tensor]:
        """The losses of a tile and their derivatives w.r.t. the log-probs, `[rows]` each."""
        with torch.enable_grad():
            leaf = logprob.detach().requires_grad_()
            loss = self.loss(leaf, teacher_logprob, rows if self.index is None else self.index[rows])
            (slope,) = torch.autograd.grad(loss.sum(), leaf)
        return loss.detach(), slope


def _teacher_stats(logits: Tensor, targets: Tensor) -> Stats:
    """Teacher statistics, computed like the student's so that equal logits give equal numbers."""
    parts = split(logits, targets.unsqueeze(-1))
    return {"teacher_logprob": parts.inside.squeeze(-1), "teacher_entropy": parts.whole.entropy()}


def _importance(logprob: Tensor, tokens: SampledTokens) -> Tensor:
    if tokens.rollout_logprobs is None:
        return torch.ones_like(logprob)
    return importance_ratio(logprob, tokens.rollout_logprobs, cap=tokens.is_cap)


def _picked(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def _tiles(
    projections: Sequence[Projection], tokens: SampledTokens, compute_dtype: torch.dtype | None
) -> LogitTiles:
    return LogitTiles(projections, temperature=tokens.temperature, compute_dtype=compute_dtype)


def _check(sides: Sequence[Projection], tokens: SampledTokens) -> None:
    """Reject shape mismatches, which would be silently ignored or make a kernel read out of bounds."""
    expected = len(tokens.targets), len(sides[0].weight)
    for side in sides:
        found = len(side.hidden), len(side.weight)
        if found != expected:
            raise ResdError(
                f"losses from hidden states: one side has {found[0]} tokens and a vocabulary of {found[1]}, "
                f"but {expected[0]} and {expected[1]} are expected; score the same tokens with models of the "
                "same vocabulary"
            )


def _kept(tokens: SampledTokens) -> tuple[Tensor | None, SampledTokens]:
    """The indices of tokens with nonzero weight (None for all), and these tokens."""
    index = tokens.weights.nonzero().squeeze(-1)
    return (None, tokens) if len(index) == len(tokens.weights) else (index, tokens[index])


def _rows(projection: Projection, index: Tensor | None) -> Projection:
    return projection if index is None else replace(projection, hidden=projection.hidden[index])


def _fused(
    student: Projection,
    index: Tensor | None,
    tokens: SampledTokens,
    loss: TileLoss,
    compute_dtype: torch.dtype | None,
    tile_rows: int | None,
) -> tuple[Tensor, Stats]:
    """`fused_loss` over the kept tokens; the statistics of the others are 0."""
    total, stats = fused_loss(
        _rows(student, index),
        loss,
        temperature=tokens.temperature,
        compute_dtype=compute_dtype,
        tile_rows=tile_rows,
    )
    if index is None:
        return total, stats
    count = len(tokens.weights)
    return total, {name: v.new_zeros(count).index_copy_(0, index, v) for name, v in stats.items()}
