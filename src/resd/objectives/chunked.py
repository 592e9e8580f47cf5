"""Losses from hidden states, in tiles of tokens, without materialising `[T, V]` or extra matrix products.

The gradient is computed together with the loss. While a tile of logits is in memory, its rows are reduced,
the gradient w.r.t. the logits is written, and two matrix products propagate it to hidden states and head.
With the logits of student and teacher these are four products, and the backward pass only returns stored
gradients. This requires each token's weight in advance, or from the token's own row. A weight that depends on
other tokens (SRPO's, a sequence's importance ratio) takes a statistics pass first: one extra product for the
side it needs, where two separate gradients would take a second backward pass through the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from resd.records import ResdError

Stats = dict[str, Tensor]

# Bytes of logits per side and tile: enough rows for the matrix units of a GPU, few enough for a CPU's caches.
TILE_BYTES = {"cuda": 320 << 20, "cpu": 2 << 20}
ROW_UNIT = 128  # row granularity of matrix products on a GPU
# Tiles whose gradients are collected before the products that use them: on a GPU each such product reads and
# writes the head's whole float32 gradient, which takes as long as the arithmetic of about 1,000 rows.
TILES_PER_PRODUCT = {"cuda": 4, "cpu": 1}


@dataclass(frozen=True, slots=True)
class Projection:
    """Logits `scale * (hidden @ weight.T + bias)`: hidden `[T, H]`, weight `[V, H]`, bias `[V]` or None."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0


class TileLoss(Protocol):
    """A loss on one tile of the student's logits."""

    def __call__(self, logits: Tensor, rows: slice, gradient: Tensor | None) -> Stats:
        """Values `[rows]`, including `loss`, each token's contribution to the sum.

        `logits` `[rows, V]` may be overwritten. The gradient of the sum w.r.t. them is written to `gradient`,
        which may have a lower dtype.
        """
        ...


class LogitTiles:
    """Tiles of one side's logits: the sum of its projections divided by the temperature, without gradients.

    Operands are rounded to `compute_dtype`, as by autocast; products are accumulated in float32. Rounding
    logits to bfloat16 would add an error of up to 0.1 to each log-probability.
    """

    def __init__(
        self,
        projections: Sequence[Projection],
        *,
        temperature: float = 1.0,
        compute_dtype: torch.dtype | None = None,
    ) -> None:
        self.temperature = temperature
        self.parts = [_operands(projection, compute_dtype) for projection in projections]
        hidden, weight = self.parts[0].hidden, self.parts[0].weight
        self.shape = len(hidden), len(weight)
        self.dtype, self.device = torch.promote_types(hidden.dtype, torch.float32), hidden.device
        self.buffer = hidden.new_empty(0)

    @property
    def rows_per_tile(self) -> int:
        budget = TILE_BYTES.get(self.device.type, TILE_BYTES["cpu"])
        rows = budget // (self.shape[1] * self.dtype.itemsize)
        return max(rows - rows % ROW_UNIT, ROW_UNIT)

    def __call__(self, rows: slice) -> Tensor:
        """Logits `[rows, V]`, which the next call overwrites."""
        count = rows.stop - rows.start
        if len(self.buffer) < count:
            self.buffer = torch.empty(count, self.shape[1], dtype=self.dtype, device=self.device)
        out = self.buffer[:count]
        for index, part in enumerate(self.parts):
            factor = part.scale / self.temperature
            add_product(out, part.hidden[rows], part.weight.T, scale=factor, keep=index > 0)
            if part.bias is not None:
                out.add_(part.bias, alpha=factor)
        return out

    def release(self) -> None:
        """Free the memory of the last tile."""
        self.buffer = self.buffer.new_empty(0)


def fused_loss(
    student: Projection,
    loss: TileLoss,
    *,
    temperature: float = 1.0,
    compute_dtype: torch.dtype | None = None,
    tile_rows: int | None = None,
) -> tuple[Tensor, Stats]:
    """The sum of `loss` over all tokens, a scalar, and its per-token statistics, `[T]`, detached.

    The sum carries gradients to the student's hidden states, weight and bias, where they require them; its
    backward pass can run once. `tile_rows` only affects memory and speed. An empty batch gives 0.
    """
    tiles = LogitTiles([student], temperature=temperature, compute_dtype=compute_dtype)
    plan = _Plan(tiles, loss, tile_rows or tiles.rows_per_tile, torch.is_grad_enabled())
    total, *values = _FusedLoss.apply(  # type: ignore[no-untyped-call]
        student.hidden, student.weight, student.bias, plan
    )
    return total, dict(zip(plan.names, values, strict=True))


def slices(start: int, stop: int, size: int) -> Iterator[slice]:
    """Split `[start, stop)` into pieces of `size`, the last one shorter; nothing gives one empty piece."""
    for first in range(start, stop, size):
        yield slice(first, min(first + size, stop))
    if start == stop:
        yield slice(start, stop)


def add_product(out: Tensor, a: Tensor, b: Tensor, *, scale: float = 1.0, keep: bool = True) -> None:
    """`out += scale * a @ b`, or without `keep` `out = scale * a @ b`. `out` may have a higher dtype."""
    beta = 1.0 if keep else 0.0
    if a.dtype == out.dtype:
        torch.addmm(out, a, b, beta=beta, alpha=scale, out=out)
    else:
        torch.addmm(out, a, b, out.dtype, beta=beta, alpha=scale, out=out)


@dataclass(frozen=True, slots=True)
class _Plan:
    tiles: LogitTiles
    loss: TileLoss
    tile_rows: int
    differentiate: bool
    names: list[str] = field(default_factory=list)  # names of the reported values; filled by the forward pass


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, plan: _Plan
    ) -> tuple[Tensor, ...]:
        needed = [plan.differentiate and need for need in ctx.needs_input_grad[:3]]
        gradients = _Gradients(plan.tiles, hidden.dtype, needed)
        stats = _run_tiles(plan, gradients)
        plan.tiles.release()
        ctx.gradients = gradients.cast(hidden.dtype, weight.dtype)
        plan.names.extend(stats)
        ctx.mark_non_differentiable(*stats.values())
        return stats["loss"].sum(), *stats.values()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("fused_loss: backward can run only once; compute the loss again")
        gradients, ctx.gradients = ctx.gradients, None
        scaled = (None if g is None else g.mul_(upstream.to(g.dtype)) for g in gradients)
        return *scaled, None


class _Gradients:
    """Gradients w.r.t. hidden states, weight and bias, as needed, summed over tiles in float32 or better."""

    def __init__(self, tiles: LogitTiles, hidden_dtype: torch.dtype, needed: Sequence[bool]) -> None:
        part = tiles.parts[0]
        self.operands, self.factor = part, part.scale / tiles.temperature
        # Each row is written only once, so it can be rounded immediately if the product supports that.
        row_dtype = hidden_dtype if part.hidden.dtype != tiles.dtype else tiles.dtype
        self.hidden = torch.empty_like(part.hidden, dtype=row_dtype) if needed[0] else None
        self.weight = torch.zeros_like(part.weight, dtype=tiles.dtype) if needed[1] else None
        self.bias = part.weight.new_zeros(len(part.weight), dtype=tiles.dtype) if needed[2] else None

    @property
    def needed(self) -> bool:
        return any(gradient is not None for gradient in (self.hidden, self.weight, self.bias))

    def add(self, rows: slice, by_logits: Tensor) -> None:
        """Propagate the gradient w.r.t. the logits of `rows`, `[rows, V]`, to their operands."""
        if self.hidden is not None:
            add_product(self.hidden[rows], by_logits, self.operands.weight, scale=self.factor, keep=False)
        if self.weight is not None:
            add_product(self.weight, by_logits.T, self.operands.hidden[rows], scale=self.factor)
        if self.bias is not None:
            self.bias.add_(by_logits.sum(0, dtype=self.bias.dtype), alpha=self.factor)

    def cast(self, hidden_dtype: torch.dtype, weight_dtype: torch.dtype) -> tuple[Tensor | None, ...]:
        dtypes = hidden_dtype, weight_dtype, weight_dtype
        sums = zip((self.hidden, self.weight, self.bias), dtypes, strict=True)
        return tuple(None if total is None else total.to(dtype) for total, dtype in sums)


def _run_tiles(plan: _Plan, gradients: _Gradients) -> Stats:
    """Run all tiles, with gradient products after every few of them; return the statistics, `[T]`."""
    tokens, columns = plan.tiles.shape
    group = plan.tile_rows * TILES_PER_PRODUCT.get(plan.tiles.device.type, 1)
    by_logits = None
    if gradients.needed:
        by_logits = plan.tiles.parts[0].hidden.new_empty(min(group, tokens), columns)
    reported: list[Stats] = []
    for part in slices(0, tokens, group):
        for rows in slices(part.start, part.stop, plan.tile_rows):
            within = (
                None if by_logits is None else by_logits[rows.start - part.start : rows.stop - part.start]
            )
            reported.append(plan.loss(plan.tiles(rows), rows, within))
        if by_logits is not None:
            gradients.add(part, by_logits[: part.stop - part.start])
    return {name: torch.cat([stats[name] for stats in reported]) for name in reported[0]}


def _operands(projection: Projection, compute_dtype: torch.dtype | None) -> Projection:
    """Round to the compute dtype, in a dtype whose products this device can accumulate in float32."""
    compute = compute_dtype or projection.hidden.dtype
    mixed = projection.hidden.is_cuda and compute in (torch.bfloat16, torch.float16)
    held = compute if mixed else torch.promote_types(compute, torch.float32)
    hidden, weight = (x.detach().to(compute).to(held) for x in (projection.hidden, projection.weight))
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1]:
        raise ResdError(
            f"projection: hidden states are {list(hidden.shape)} and the head's weight {list(weight.shape)}; "
            "give [tokens, H] and [V, H]"
        )
    bias = (
        None
        if projection.bias is None
        else projection.bias.detach().to(torch.promote_types(held, torch.float32))
    )
    return Projection(hidden, weight, bias, projection.scale)
