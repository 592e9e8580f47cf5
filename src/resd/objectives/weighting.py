"""Weights of token losses: success-rate weights, importance ratios and the aggregation.

All normalisers are over the whole global batch and known before the first forward, so that the loss is
`sum_i scale_i * sum_t l_it` regardless of micro-batches, padding or the number of ranks.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from resd.records import ResdError

Aggregation = Literal[
    "seq_mean_including_empty",
    "token_mean",
    "seq_mean_token_mean",
    "seq_mean_token_sum",
    "seq_mean_token_sum_norm",
]

# |log ratio| beyond this is noise; keeps exp() finite.
LOG_RATIO_LIMIT = 20.0


def success_rate_weights(success: Tensor, *, alpha: float = 1.0, beta: float = 1.0) -> Tensor:
    """Weights `[B]` in float32, of mean 1, that balance successes and failures of the whole global batch.

    `success` `[B]` is bool, or a score that is a success from 0.5 up. With success rate s the raw weight
    is (1-s)^alpha for a success and s^beta for a failure (arXiv 2605.12741, success-rate rebalancing). If all
    succeed or all fail, every weight is 1.
    """
    solved = success if success.dtype == torch.bool else success >= 0.5
    if solved.ndim != 1:
        raise ResdError(f"success_rate_weights: got shape {list(success.shape)}; give one value per rollout")
    count = max(solved.numel(), 1)
    rate = min(max(int(solved.sum()) / count, 1 / count), 1 - 1 / count)
    raw = torch.where(solved, (1 - rate) ** alpha, rate**beta).float()
    mean = raw.mean()
    return raw / mean if mean > 1e-8 else torch.ones_like(raw)


def token_weights(
    mode: Aggregation,
    lengths: Tensor,
    has_signal: Tensor,
    weights: Tensor,
    *,
    max_length: int | None = None,
) -> Tensor:
    """The factor of each sequence's token losses, `[B]`, in the dtype of `weights`.

    `lengths` `[B]` are response lengths in tokens, `has_signal` `[B]` marks the sequences that have a loss,
    and `weights` `[B]` multiplies each. Sequences without signal or tokens get 0 and count only in the
    denominators of `seq_mean_including_empty` and `seq_mean_token_sum_norm`. Pass the whole global batch.

    - `token_mean` is DAPO's (arXiv 2503.14476): every token counts the same.
    - `seq_mean_token_mean` is GRPO's (arXiv 2402.03300): every sequence counts the same.
    - `seq_mean_token_sum_norm` is Dr. GRPO's (arXiv 2503.20783): sums over tokens, divided by `max_length`, a
      constant in tokens, and by the number of all sequences. Released trainers divide by the padded length
      of the micro-batch and not by the number of sequences, so that the loss depends on the micro-batches.
    - `seq_mean_token_sum` is Eq. 3 of arXiv 2605.12741, `seq_mean_including_empty` what its release computes.

    Raises ResdError for an unknown mode, and for `seq_mean_token_sum_norm` without a positive `max_length`.
    """
    active = has_signal.bool() & (lengths > 0)
    count = active.sum().clamp(min=1).to(weights.dtype)
    per_token = 1 / lengths.clamp(min=1).to(weights.dtype)
    match mode:
        case "token_mean":
            scale = 1 / (lengths * active).sum().clamp(min=1).to(weights.dtype)
        case "seq_mean_token_sum":
            scale = 1 / count
        case "seq_mean_token_mean":
            scale = per_token / count
        case "seq_mean_including_empty":
            scale = per_token / max(lengths.numel(), 1)
        case "seq_mean_token_sum_norm":
            scale = torch.ones_like(per_token) / (_constant(max_length) * max(lengths.numel(), 1))
        case _:
            raise ResdError(
                f"token_weights: {mode!r} is not an aggregation; see loss_aggregation in the configuration"
            )
    return torch.where(active, scale * weights, torch.zeros_like(weights))


def importance_ratio(logprob: Tensor, behaviour_logprob: Tensor, *, cap: float | None) -> Tensor:
    """`min(p / p_behaviour, cap)` of the sampled tokens, elementwise and detached.

    p_behaviour is either the policy before this batch's first optimizer step (`is_clip`) or the one that the
    engine sampled from (rollout correction). cap None disables the correction: ones.
    """
    if cap is None:
        return torch.ones_like(logprob)
    log_ratio = (logprob - behaviour_logprob).detach()
    return log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp().clamp(max=cap)


def sequence_importance_ratio(
    logprob: Tensor, behaviour_logprob: Tensor, sequence: Tensor, count: int, *, cap: float | None
) -> Tensor:
    """`min(prod_t p_t / p_behaviour_t, cap)` of each token's whole sequence, `[tokens]` and detached.

    All tensors are `[tokens]`; `sequence` is each token's sequence, from 0 to `count` - 1, and all tokens of
    a sequence must be present. Uncapped, it makes the gradient of a whole response unbiased, which per-token
    weights do not, at a larger variance. cap None disables the correction: ones.
    """
    if cap is None:
        return torch.ones_like(logprob)
    log_ratio = (logprob - behaviour_logprob).detach()
    # Thousands of small terms: float32 sums would depend on their order.
    totals = log_ratio.new_zeros(count, dtype=torch.float64).index_add_(0, sequence, log_ratio.double())
    ratio = totals.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp().clamp(max=cap)
    return ratio.to(logprob.dtype)[sequence]


def entropy_weights(entropy: Tensor, *, beta: float) -> Tensor:
    """`exp(-beta * entropy)` over its mean, `[tokens]` and detached: lower where the teacher is unsure.

    `entropy` `[tokens]` is the teacher's, in nats, at all distilled tokens of the global batch: the mean is
    over all of them, not over a micro-batch (SRPO, arXiv 2604.02288).
    """
    # A softmax, since with a large beta every exponential would underflow to 0, and so would their mean.
    shares = (-beta * entropy.detach().double()).softmax(0)
    return (shares * len(entropy)).to(entropy.dtype)


def _constant(max_length: int | None) -> int:
    if max_length is None or max_length < 1:
        raise ResdError(
            "token_weights: seq_mean_token_sum_norm divides by a constant length; give max_length, the "
            "longest response allowed"
        )
    return max_length
