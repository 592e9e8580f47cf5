"""Sampling: temperature, nucleus, grammar mask, and per-request randomness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def uniforms(seed: int, count: int) -> NDArray[np.float64]:
    """The random numbers of one request, one per token: a counter-based stream keyed by its seed."""
    key = seed & 0xFFFF_FFFF_FFFF_FFFF
    # 32 bits keep u * total below total after rounding, so that the inverse CDF never runs past its end.
    return np.random.Generator(np.random.Philox(key=key)).integers(0, 2**32, count) / 2**32


@dataclass(frozen=True, slots=True)
class SamplingParameters:
    """Parameters per row as `[B, 1]` float32 tensors, and flags for what can be skipped."""

    temperature: Tensor  # 1 where greedy
    top_p: Tensor
    greedy: Tensor  # bool
    any_greedy: bool
    any_nucleus: bool

    @classmethod
    def of(
        cls, temperatures: list[float], top_ps: list[float], device: torch.device | str = "cpu"
    ) -> SamplingParameters:
        greedy = [t == 0 for t in temperatures]

        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)[:, None]

        return cls(
            temperature=column([1.0 if g else t for t, g in zip(temperatures, greedy, strict=True)]),
            top_p=column(top_ps),
            greedy=torch.tensor(greedy, device=device)[:, None],
            any_greedy=any(greedy),
            any_nucleus=any(p < 1 for p in top_ps),
        )


def log_probabilities(
    logits: Tensor, parameters: SamplingParameters, allowed: Tensor | None = None
) -> Tensor:
    """`[B, V]` float32 log-probabilities of the distribution to sample: after mask, temperature and top-p."""
    logits = logits.float()
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -torch.inf)
    logprobs = torch.log_softmax(logits / parameters.temperature, dim=-1)
    return nucleus(logprobs, parameters.top_p) if parameters.any_nucleus else logprobs


def nucleus(logprobs: Tensor, top_p: Tensor) -> Tensor:
    """Keep the fewest most probable tokens that hold `top_p` of the mass, renormalised."""
    ordered, order = logprobs.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.exp()
    before = probabilities.cumsum(-1) - probabilities
    outside = (before >= top_p) & (top_p < 1)
    outside[:, 0] = False  # rounding must not empty the nucleus
    kept = logprobs.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), -torch.inf)
    return torch.where(top_p < 1, torch.log_softmax(kept, dim=-1), logprobs)


def draw(logprobs: Tensor, u: Tensor, parameters: SamplingParameters) -> tuple[Tensor, Tensor]:
    """Ids `[B]` by inverse CDF at `u` `[B]` in [0, 1), or the mode if greedy; and their log-probs `[B]`.

    A greedy token gets its log-prob at temperature 1. If a row is NaN, so is its log-prob.
    """
    cdf = logprobs.double().exp().cumsum(-1)
    ids = torch.searchsorted(cdf, u[:, None] * cdf[:, -1:], right=True)
    ids = ids.clamp_(max=logprobs.shape[-1] - 1)  # a NaN row gives an index past the end
    if parameters.any_greedy:
        ids = torch.where(parameters.greedy, logprobs.argmax(-1, keepdim=True), ids)
    return ids[:, 0], logprobs.gather(-1, ids)[:, 0]
