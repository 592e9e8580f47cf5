"""The row operations of a tile on a GPU, in Triton: each reads its logits once, or writes once.

They match the PyTorch code in `rows.py` and `divergence.py`, which runs elsewhere; both are tested against
the same float64 reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

try:
    import triton

    from resd.objectives import triton_rows as device
except ImportError:  # PyTorch builds without GPU support lack Triton
    triton = None

if TYPE_CHECKING:
    from resd.objectives.divergence import Divergence
    from resd.objectives.rows import RowSums

BLOCK, WARPS = 8192, 8  # for a reduction over one row
PAIR_BLOCK, PAIR_WARPS = 4096, 4  # for one over two rows with a log and some exponentials each
SEARCHED = 32  # logits per block in the top-k search
FORWARD, BETWEEN, REVERSE = 0, 1, 2  # alpha 0, in (0, 1), 1


def usable(logits: Tensor) -> bool:
    """Whether the kernels support these logits: float32 on a GPU that Triton compiles for."""
    return triton is not None and logits.is_cuda and logits.dtype == torch.float32


def row_sums(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three sums of `rows.RowSums` over each row of `[rows, V]`, in one pass."""
    sums = logits.new_empty(3, len(logits))
    if len(logits):
        device.row_sums[(len(logits),)](
            logits, logits.stride(0), logits.shape[1], sums, len(logits), BLOCK=BLOCK, num_warps=WARPS
        )
    return sums[0], sums[1], sums[2]


def write_exponentials(out: Tensor, logits: Tensor, shift: Tensor, factor: Tensor) -> None:
    """`out = factor * exp(logits - shift)`, `[rows, V]`."""
    rows, columns = logits.shape
    if rows:
        device.write_exponentials[(rows, triton.cdiv(columns, BLOCK))](
            out,
            out.stride(0),
            logits,
            logits.stride(0),
            columns,
            shift.contiguous(),
            factor.contiguous(),
            BLOCK=BLOCK,
            num_warps=WARPS,
        )


def top_ids(logits: Tensor, k: int) -> Tensor:
    """`rows.top_ids` by blocks; among equal logits the lowest id ranks highest."""
    rows, columns = logits.shape
    blocks = triton.cdiv(columns, SEARCHED)
    maxima = logits.new_empty(rows, blocks)
    best, ids = (torch.empty(rows, k, dtype=torch.int64, device=logits.device) for _ in range(2))
    if rows:
        grid = (rows, triton.cdiv(columns, BLOCK))
        device.block_maxima[grid](
            logits, logits.stride(0), columns, maxima, blocks, SEARCHED=SEARCHED, BLOCK=BLOCK, num_warps=WARPS
        )
        device.top_ids[(rows,)](
            logits,
            logits.stride(0),
            columns,
            maxima,
            blocks,
            best,
            ids,
            k,
            BLOCKS=triton.next_power_of_2(blocks),
            CHOSEN=triton.next_power_of_2(k),
            SEARCHED=SEARCHED,
            num_warps=WARPS,
        )
    return ids


def divergence(
    student: Tensor, teacher: Tensor, ours: RowSums, theirs: RowSums, spec: Divergence
) -> tuple[Tensor, Tensor, Callable[[Tensor, Tensor], None]]:
    """Over the whole vocabulary: loss, clipped mass and `write_gradient` of `divergence.RowDivergence`."""
    rows, columns = student.shape
    shifts = torch.stack([ours.maximum, ours.total.log(), theirs.maximum, theirs.total.log()])
    sums = student.new_empty(3, rows)  # loss, derivative, clipped mass
    inputs = student, student.stride(0), teacher, teacher.stride(0), columns, shifts, rows
    settings = _settings(spec)
    if rows:
        device.divergence_sums[(rows,)](*inputs, sums, **settings)

    def write_gradient(out: Tensor, factor: Tensor) -> None:
        if rows:
            grid = (rows, triton.cdiv(columns, PAIR_BLOCK))
            device.divergence_gradient[grid](
                *inputs, sums, factor.contiguous(), out, out.stride(0), **settings
            )

    return sums[0], sums[2], write_gradient


def _settings(spec: Divergence) -> dict[str, Any]:
    alpha = spec.alpha
    between = 0.0 < alpha < 1.0
    return {
        "alpha": alpha,
        "log_alpha": math.log(alpha) if between else 0.0,
        "log_rest": math.log1p(-alpha) if between else 0.0,
        "log_low": math.log(spec.min_ratio) if spec.min_ratio is not None else 0.0,
        "log_high": math.log(spec.max_ratio) if spec.max_ratio is not None else 0.0,
        "KIND": BETWEEN if between else (FORWARD if alpha == 0.0 else REVERSE),
        "LOW": spec.min_ratio is not None,
        "HIGH": spec.max_ratio is not None,
        "BLOCK": PAIR_BLOCK,
        "num_warps": PAIR_WARPS,
    }
