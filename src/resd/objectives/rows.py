"""Row-wise reductions of a tile of logits `[rows, V]`: sums of exponentials, top-k ids, splits.

A row's sums are kept relative to its maximum, and chosen ids separate from all others, so that the mass of
the others is summed directly rather than being 1 minus a rounded number.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from resd.objectives import kernels

# Vocabularies of at least this size are searched by blocks: a row's top k lie in the k blocks with the
# highest maxima.
SEARCH_BY_BLOCKS = 8192
BLOCK = 32
# The number of top candidates searched for the nucleus before sorting the whole row.
NUCLEUS_CANDIDATES = 1024


class RowSums(NamedTuple):
    """`total` is the sum of e = exp(z - maximum) and `weighted` that of e (z - maximum), each `[rows]`."""

    maximum: Tensor
    total: Tensor
    weighted: Tensor

    def logprob(self, logits: Tensor) -> Tensor:
        """Log-probs of logits `[rows, ...]` from the rows of these sums."""
        shape = (-1, *(1,) * (logits.ndim - 1))
        return (logits - self.maximum.view(shape)) - self.total.log().view(shape)

    def entropy(self) -> Tensor:
        """The entropy in nats, `[rows]`."""
        return self.total.log() - self.weighted / self.total


class Split(NamedTuple):
    """A row's distribution as the log-probs of chosen ids and of all others together."""

    inside: Tensor  # [rows, K]
    outside: Tensor  # [rows]
    whole: RowSums
    others: RowSums


def row_sums(logits: Tensor) -> RowSums:
    """Sums over each row of `[rows, V]`."""
    if kernels.usable(logits):
        return RowSums(*kernels.row_sums(logits))
    maximum = logits.amax(-1)
    shifted = _shifted(logits, maximum)
    exponentials = shifted.exp()
    return RowSums(maximum, exponentials.sum(-1), shifted.mul_(exponentials).sum(-1))


def write_exponentials(out: Tensor, logits: Tensor, shift: Tensor, factor: Tensor) -> None:
    """`out = factor * exp(logits - shift)`, `[rows, V]`, with `shift` and `factor` `[rows]`."""
    if kernels.usable(logits):
        kernels.write_exponentials(out, logits, shift, factor)
    else:
        values = _shifted(logits, shift, out if out.dtype == logits.dtype else None)
        values.exp_().mul_(factor.unsqueeze(-1))
        if values is not out:
            out.copy_(values)


def split(logits: Tensor, ids: Tensor, repeated: Tensor | None = None) -> Split:
    """Split the logits at `ids` `[rows, K]` from `logits` `[rows, V]`, which is masked at these ids in place.

    Where `repeated` is true, the id occurs earlier in its row and gets the log-prob of no mass.
    """
    lowest = torch.finfo(logits.dtype).min
    chosen = logits.gather(-1, ids)
    if repeated is not None:
        chosen = chosen.masked_fill(repeated, lowest)
    others = row_sums(logits.scatter_(-1, ids, lowest))
    maximum = torch.maximum(others.maximum, chosen.amax(-1))
    shifted, moved = chosen - maximum.unsqueeze(-1), others.maximum - maximum
    exponentials, scale = shifted.exp(), moved.exp()
    total = exponentials.sum(-1) + scale * others.total
    # Scale and shift first: if all ids are chosen, the others are 0 times the lowest finite number.
    weighted = (exponentials * shifted).sum(-1) + scale * others.weighted + scale * moved * others.total
    log_total = total.log()
    return Split(
        inside=shifted - log_total.unsqueeze(-1),
        outside=moved + others.total.log() - log_total,
        whole=RowSums(maximum, total, weighted),
        others=others,
    )


def write_split_gradient(
    gradient: Tensor, logits: Tensor, parts: Split, ids: Tensor, inside: Tensor, outside: Tensor | None
) -> None:
    """Scatter a gradient w.r.t. buckets to `[rows, V]`, given the `logits` that `split` has masked.

    `inside` `[rows, K]` goes to the ids, `outside` `[rows]` to all others in proportion to their mass.
    """
    if outside is None:
        gradient.zero_()
    else:
        write_exponentials(gradient, logits, parts.others.maximum, outside / parts.others.total)
    gradient.scatter_add_(-1, ids, inside.to(gradient.dtype))  # repeated ids add 0


def top_ids(logits: Tensor, k: int) -> Tensor:
    """Ids of the k highest logits of each row, unordered, `[rows, V]` to `[rows, min(k, V)]`.

    Exact: a block contains one of the k highest only if its maximum is one of the k highest maxima. Ties at
    the last place are broken arbitrarily, but deterministically for the same row.
    """
    columns = logits.shape[-1]
    if columns < SEARCH_BY_BLOCKS or k > columns // BLOCK:
        return logits.topk(min(k, columns), sorted=False).indices
    if kernels.usable(logits):
        return kernels.top_ids(logits, k)
    whole = columns - columns % BLOCK
    best = logits[:, :whole].view(len(logits), columns // BLOCK, BLOCK).amax(-1).topk(k, sorted=False).indices
    within = torch.arange(BLOCK, device=logits.device)
    rest = torch.arange(whole, columns, device=logits.device).expand(len(logits), -1)
    ids = torch.cat([(best.unsqueeze(-1) * BLOCK + within).flatten(1), rest], dim=-1)
    return ids.gather(-1, logits.gather(-1, ids).topk(k, sorted=False).indices)


def nucleus_log_mass(logits: Tensor, top_p: float) -> Tensor:
    """Log of the mass that nucleus sampling keeps, `[rows, V]` to `[rows]`.

    Engines report log-probs after top-p. Subtracting this from the trainer's log-probs puts both on the same
    support; otherwise the importance ratio would be below 1 from truncation alone.
    """
    if top_p >= 1.0:
        return logits.new_zeros(len(logits))
    sums = row_sums(logits)
    candidates = logits.gather(-1, top_ids(logits, NUCLEUS_CANDIDATES))
    kept, found = _nucleus(sums.logprob(candidates), top_p)
    if missing := (~found).nonzero().flatten().tolist():
        rows = RowSums(*(values[missing] for values in sums))
        kept[missing] = _nucleus(rows.logprob(logits[missing]), top_p)[0]
    return kept.log()


def _shifted(logits: Tensor, shift: Tensor, out: Tensor | None = None) -> Tensor:
    """Shift and clamp logits for exp(), which is ten times slower for results near the smallest numbers.

    The clamped values are far below rounding error next to a row's largest exponential, which is 1.
    """
    lowest = 4 * math.log(torch.finfo(logits.dtype).eps)
    return torch.sub(logits, shift.unsqueeze(-1), out=out).clamp_(min=lowest)


def _nucleus(logprobs: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The mass of the smallest set of most likely ids that reaches `top_p`, and whether any set does."""
    probabilities = logprobs.sort(-1, descending=True).values.exp()
    before = probabilities.cumsum(-1) - probabilities
    return probabilities.masked_fill(before >= top_p, 0.0).sum(-1), probabilities.sum(-1) >= top_p
