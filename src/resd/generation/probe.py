"""Testing how a model can be decoded, on a few tokens, before the first request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from resd.generation.batching import SHORTEST_PREFIX
from resd.generation.forward import BatchForward, evaluating, has_windows
from resd.records import ResdError

# Prompts of very different lengths after a common prefix, and the tokens then decoded one by one.
PREFIX = tuple(range(1, 1 + SHORTEST_PREFIX))
SUFFIXES = ((5, 6), (7, 3, 9, 2, 8, 4, 6, 1, 3, 5, 9, 7, 2, 4, 8, 6))
REPLY = (3, 4)
# Relative to the norm of centred logits: more is not rounding error; more than twice this is another model.
ROUNDING = {torch.float32: 0.01, torch.float64: 0.01}
ROUNDING_16 = 0.1


@torch.no_grad()
def counts_columns(model: Any) -> bool:
    """Whether a model measures distances in cache columns, as windows and ALiBi do.

    Such a model must not have padding between a shared prefix and the rest. Raises ResdError if the logits
    differ from a plain forward either way.
    """
    allowed, reason = ROUNDING.get(model.dtype, ROUNDING_16), ""
    with evaluating(model):
        expected = _plain(model)
        for by_columns in (True,) if has_windows(model) else (False, True):
            try:
                off = _distance(_decoded(model, by_columns), expected)
            except (TypeError, ValueError, RuntimeError, AttributeError, LookupError) as error:
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
                continue
            if off < (2 * allowed if by_columns else allowed):
                return by_columns
            reason = f"logits are {off:.0%} off those of a plain forward"
    raise ResdError(
        f"model type {model.config.model_type}: the embedded decoder cannot decode it in batches ({reason}); "
        "set generation.engine to vllm, or use another model"
    )


def _plain(model: Any) -> Tensor:
    """Logits `[prompts, 1 + replied, V]` of each prompt alone, without a cache."""
    rows = []
    for suffix in SUFFIXES:
        ids = torch.tensor([[*PREFIX, *suffix, *REPLY]], device=model.device)
        rows.append(model(input_ids=ids, use_cache=False).logits[0, -1 - len(REPLY) :])
    return torch.stack(rows)


def _decoded(model: Any, by_columns: bool) -> Tensor:
    """The same logits, decoded in one batch."""
    prefix: Sequence[int] = () if by_columns else PREFIX
    suffixes = [(*PREFIX, *suffix)[len(prefix) :] for suffix in SUFFIXES]
    batch = BatchForward(model, prefix, suffixes, len(REPLY), by_columns=by_columns)
    steps = [batch.prefill()]
    steps += [batch.step(torch.tensor([token] * len(SUFFIXES), device=model.device)) for token in REPLY]
    return torch.stack(steps, dim=1)


def _distance(ours: Tensor, expected: Tensor) -> float:
    """The relative distance of the row with the largest deviation."""
    ours, expected = (logits.float() - logits.float().mean(-1, keepdim=True) for logits in (ours, expected))
    return float(((ours - expected).norm(dim=-1) / expected.norm(dim=-1)).max())
