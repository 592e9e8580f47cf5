"""The Triton kernels that `kernels.py` launches: one program per row of logits, or per piece of one.

Strides and counts are in elements. Lanes past a row's end hold a logit so low that its exponential is 0.
"""
# mypy: disable-error-code="no-untyped-def,untyped-decorator,import-untyped"

import triton
import triton.language as tl

LOWEST = tl.constexpr(-3.4028234663852886e38)  # of float32


@triton.jit
def row_sums(logits, stride, columns, sums, rows, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    maximum = tl.full([], LOWEST, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    weighted = tl.zeros([BLOCK], tl.float32)
    for start in range(0, columns, BLOCK):
        inside = start + lanes < columns
        z = tl.load(logits + row * stride + start + lanes, mask=inside, other=LOWEST)
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
def block_maxima(logits, stride, columns, maxima, blocks, SEARCHED: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * (BLOCK // SEARCHED) + tl.arange(0, BLOCK // SEARCHED)
    ids = first[:, None] * SEARCHED + tl.arange(0, SEARCHED)[None, :]
    z = tl.load(logits + row * stride + ids, mask=ids < columns, other=float("-inf"))
    tl.store(maxima + row * blocks + first, tl.max(z, axis=1), mask=first < blocks)


@triton.jit
def _highest(values, valid, k):
    """A mask of the k highest valid values, the first among equals, by finding the k-th bit by bit."""
    bits = values.to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF) ^ -0x80000000
    ordered = tl.where(valid, ordered, 0).to(tl.uint32, bitcast=True)
    least = tl.full([], 0, tl.uint32)
    for bit in range(32):
        higher = least | (tl.full([], 1 << 31, tl.uint32) >> bit)
        least = tl.where(tl.sum((ordered >= higher).to(tl.int32), axis=0) >= k, higher, least)
    above, equal = ordered > least, ordered == least
    room = k - tl.sum(above.to(tl.int32), axis=0)
    return above | (equal & (tl.cumsum(equal.to(tl.int32), axis=0) <= room))


@triton.jit
def top_ids(
    logits,
    stride,
    columns,
    maxima,
    blocks,
    best,
    ids,
    k,
    BLOCKS: tl.constexpr,
    CHOSEN: tl.constexpr,
    SEARCHED: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    block = tl.arange(0, BLOCKS)
    found = _highest(
        tl.load(maxima + row * blocks + block, mask=block < blocks, other=0.0), block < blocks, k
    )
    place = tl.cumsum(found.to(tl.int32), axis=0) - 1
    tl.store(best + row * k + place, block.to(tl.int64), mask=found)
    tl.debug_barrier()  # make the stores of the program's other threads visible
    lane = tl.arange(0, CHOSEN * SEARCHED)
    chosen = tl.load(best + row * k + lane // SEARCHED, mask=lane // SEARCHED < k, other=0)
    candidate = chosen * SEARCHED + lane % SEARCHED
    valid = (lane // SEARCHED < k) & (candidate < columns)
    found = _highest(tl.load(logits + row * stride + candidate, mask=valid, other=0.0), valid, k)
    place = tl.cumsum(found.to(tl.int32), axis=0) - 1
    tl.store(ids + row * k + place, candidate, mask=found)


@triton.jit
def write_exponentials(out, out_stride, logits, stride, columns, shift, factor, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    ids = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    z = tl.load(logits + row * stride + ids, mask=ids < columns, other=LOWEST)
    value = tl.load(factor + row) * tl.exp(z - tl.load(shift + row))
    tl.store(out + row * out_stride + ids, value.to(out.dtype.element_ty), mask=ids < columns)


@triton.jit
def _terms(
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
    """`clip_ratio` and `divergence_terms`: p, the ids' losses and derivatives, and which were clipped."""
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
def divergence_sums(
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
def divergence_gradient(
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
    p, _loss, derivative, _clipped = _terms(
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
