"""The row operations of a tile on a GPU, in Triton: each reads its logits once, or writes once.

The numbers are those of the PyTorch code in `rows.py` and `divergence.py`, which is what runs elsewhere; both
are tested against the same float64 reference. A row is one program: 600 KB for 150k words, so that a tile of
some hundred rows keeps the memory busy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # no GPU build of PyTorch
    triton = None

if TYPE_CHECKING:
    from resd.objectives.divergence import Divergence
    from resd.objectives.rows import RowSums

BLOCK = 4096
WARPS = 8
FORWARD, BETWEEN, REVERSE = 0, 1, 2  # alpha 0, in (0, 1), 1


def usable(logits: Tensor) -> bool:
    """Whether the kernels take these logits: float32 on a GPU that Triton compiles for."""
    return triton is not None and logits.is_cuda and logits.dtype == torch.float32


def row_sums(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three sums of `rows.RowSums` over each row of `[rows, V]`, in one pass."""
    sums = logits.new_empty(3, len(logits))
    if len(logits):
        _row_sums[(len(logits),)](
            logits, logits.stride(0), logits.shape[1], sums, len(logits), BLOCK=BLOCK, num_warps=WARPS
        )
    return sums[0], sums[1], sums[2]


def write_exponentials(out: Tensor, logits: Tensor, shift: Tensor, factor: Tensor) -> None:
    """`out = factor * exp(logits - shift)`, `[rows, V]`."""
    rows, columns = logits.shape
    if rows:
        _write_exponentials[(rows, triton.cdiv(columns, BLOCK))](
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


def divergence(
    student: Tensor, teacher: Tensor, ours: RowSums, theirs: RowSums, spec: Divergence
) -> tuple[Tensor, Tensor, Callable[[Tensor, Tensor], None]]:
    """Over the whole vocabulary: the loss, the clipped mass, and what writes the gradient (`RowDivergence`)."""
    rows, columns = student.shape
    shifts = torch.stack([ours.maximum, ours.total.log(), theirs.maximum, theirs.total.log()])
    sums = student.new_empty(3, rows)  # loss, derivative, clipped mass
    inputs = student, student.stride(0), teacher, teacher.stride(0), columns, shifts, rows
    settings = _settings(spec)
    if rows:
        _divergence_sums[(rows,)](*inputs, sums, **settings)

    def write_gradient(out: Tensor, factor: Tensor) -> None:
        if rows:
            grid = (rows, triton.cdiv(columns, BLOCK))
            _divergence_gradient[grid](*inputs, sums, factor.contiguous(), out, out.stride(0), **settings)

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
        "BLOCK": BLOCK,
        "num_warps": WARPS,
    }


if triton is not None:

    @triton.jit
    def _row_sums(logits, stride, columns, sums, rows, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
        row = tl.program_id(0).to(tl.int64)
        lanes = tl.arange(0, BLOCK)
        maximum = -3.0e38
        total = tl.zeros([BLOCK], tl.float32)
        weighted = tl.zeros([BLOCK], tl.float32)
        for start in range(0, columns, BLOCK):
            inside = start + lanes < columns
            z = tl.load(logits + row * stride + start + lanes, mask=inside, other=-3.0e38)
            higher = tl.maximum(maximum, tl.max(z, axis=0))
            scale = tl.exp(maximum - higher)
            weighted = scale * (weighted + (maximum - higher) * total)
            total = scale * total
            shifted = z - higher
            e = tl.exp(shifted)
            total += e
            weighted += e * shifted
            maximum = higher
        tl.store(sums + row, maximum)
        tl.store(sums + rows + row, tl.sum(total, axis=0))
        tl.store(sums + 2 * rows + row, tl.sum(weighted, axis=0))

    @triton.jit
    def _write_exponentials(  # type: ignore[no-untyped-def]
        out, out_stride, logits, stride, columns, shift, factor, BLOCK: tl.constexpr
    ):
        row = tl.program_id(0).to(tl.int64)
        ids = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        z = tl.load(logits + row * stride + ids, mask=ids < columns, other=-3.0e38)
        value = tl.load(factor + row) * tl.exp(z - tl.load(shift + row))
        tl.store(out + row * out_stride + ids, value.to(out.dtype.element_ty), mask=ids < columns)

    @triton.jit
    def _terms(  # type: ignore[no-untyped-def]
        log_p,
        log_q,
        alpha,
        log_alpha,
        log_rest,
        log_low,
        log_high,
        KIND: tl.constexpr,
        LOW: tl.constexpr,
        HIGH: tl.constexpr,
    ):
        """`clip_ratio` and `divergence_terms`: p, each id's loss and derivative, and whether it was clipped."""
        bounded = log_q
        if LOW:
            bounded = tl.maximum(bounded, log_p + log_low)
        if HIGH:
            bounded = tl.minimum(bounded, log_p + log_high)
        p = tl.exp(log_p)
        if KIND == 0:
            q = tl.exp(bounded)
            loss = q * (bounded - log_p)
            derivative = -q
        elif KIND == 2:
            loss = p * (log_p - bounded)
            derivative = loss
        else:
            first, second = log_p + log_rest, bounded + log_alpha
            higher = tl.maximum(first, second)
            log_m = higher + tl.log(1.0 + tl.exp(tl.minimum(first, second) - higher))
            derivative = (1.0 - alpha) * p * (log_p - log_m)
            loss = derivative + alpha * tl.exp(bounded) * (bounded - log_m)
        return p, loss, derivative, bounded != log_q

    @triton.jit
    def _divergence_sums(  # type: ignore[no-untyped-def]
        student,
        stride,
        teacher,
        teacher_stride,
        columns,
        shifts,
        rows,
        sums,
        alpha,
        log_alpha,
        log_rest,
        log_low,
        log_high,
        KIND: tl.constexpr,
        LOW: tl.constexpr,
        HIGH: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        row = tl.program_id(0).to(tl.int64)
        lanes = tl.arange(0, BLOCK)
        p_shift, p_log = tl.load(shifts + row), tl.load(shifts + rows + row)
        q_shift, q_log = tl.load(shifts + 2 * rows + row), tl.load(shifts + 3 * rows + row)
        loss_sum = tl.zeros([BLOCK], tl.float32)
        derivative_sum = tl.zeros([BLOCK], tl.float32)
        clipped_sum = tl.zeros([BLOCK], tl.float32)
        for start in range(0, columns, BLOCK):
            ids = start + lanes
            z = tl.load(student + row * stride + ids, mask=ids < columns, other=-1.0e30)
            t = tl.load(teacher + row * teacher_stride + ids, mask=ids < columns, other=-1.0e30)
            p, loss, derivative, clipped = _terms(
                (z - p_shift) - p_log,
                (t - q_shift) - q_log,
                alpha,
                log_alpha,
                log_rest,
                log_low,
                log_high,
                KIND,
                LOW,
                HIGH,
            )
            loss_sum += loss
            derivative_sum += derivative
            clipped_sum += tl.where(clipped, p, 0.0)
        tl.store(sums + row, tl.sum(loss_sum, axis=0))
        tl.store(sums + rows + row, tl.sum(derivative_sum, axis=0))
        tl.store(sums + 2 * rows + row, tl.sum(clipped_sum, axis=0))

    @triton.jit
    def _divergence_gradient(  # type: ignore[no-untyped-def]
        student,
        stride,
        teacher,
        teacher_stride,
        columns,
        shifts,
        rows,
        sums,
        factor,
        out,
        out_stride,
        alpha,
        log_alpha,
        log_rest,
        log_low,
        log_high,
        KIND: tl.constexpr,
        LOW: tl.constexpr,
        HIGH: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        row = tl.program_id(0).to(tl.int64)
        ids = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        z = tl.load(student + row * stride + ids, mask=ids < columns, other=-1.0e30)
        t = tl.load(teacher + row * teacher_stride + ids, mask=ids < columns, other=-1.0e30)
        p, loss, derivative, clipped = _terms(
            (z - tl.load(shifts + row)) - tl.load(shifts + rows + row),
            (t - tl.load(shifts + 2 * rows + row)) - tl.load(shifts + 3 * rows + row),
            alpha,
            log_alpha,
            log_rest,
            log_low,
            log_high,
            KIND,
            LOW,
            HIGH,
        )
        value = tl.load(factor + row) * (derivative - p * tl.load(sums + rows + row))
        tl.store(out + row * out_stride + ids, value.to(out.dtype.element_ty), mask=ids < columns)
