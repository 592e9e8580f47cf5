"""Whether a model's sequences can be packed: found out by trying, before the first update."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from resd.learner.attention import Sequences, packable, packing
from resd.learner.model import autocast
from resd.records import ResdError

# Of the norm of hidden states. Experts may be rounded otherwise in bfloat16 when they get other tokens.
ROUNDING = 0.05


def packs(chosen: bool | None, body: Any, device: torch.device, compute_dtype: torch.dtype) -> bool:
    """`optimizer.packing` for this body; None packs what can be packed.

    Raises ResdError where packing is chosen and cannot be.
    """
    if chosen is False:
        return False
    obstacle = _obstacle(body, device, compute_dtype)
    if chosen and obstacle:
        raise ResdError(f"optimizer.packing: {obstacle}; set it to false, or leave it out")
    return obstacle is None


def _obstacle(body: Any, device: torch.device, compute_dtype: torch.dtype) -> str | None:
    if not packable(device, compute_dtype):
        dtype = str(compute_dtype).removeprefix("torch.")
        return f"has kernels on a GPU in bfloat16 alone, and this run computes on {device.type} in {dtype}"
    if not _apart(body, device, compute_dtype):
        return f"in {type(body).__name__} the sequences of one row cannot be kept apart"
    return None


def _apart(body: Any, device: torch.device, compute_dtype: torch.dtype) -> bool:
    """Whether a sequence is the same beside any other: only attention that is ours keeps them apart.

    Convolutions and recurrent states do not, nor does attention that a model has written out for itself.
    Soft caps and sinks are refused (`attention.attend`).
    """
    # Casts are not kept: at this time each rank still holds the whole model.
    with torch.no_grad(), autocast(device, compute_dtype, cached=False), packing([body]):
        try:
            ours, theirs = (_second(body, first, device) for first in ([1, 2, 3], [3, 1, 2]))
        except (ResdError, TypeError, RuntimeError):
            return False  # nothing passes on what attention needs, or the kernel has no such heads
    return bool((ours - theirs).norm() < ROUNDING * ours.norm())


def _second(body: Any, first: list[int], device: torch.device) -> Tensor:
    """Hidden states, `[3, H]`, of a sequence that comes second in a row."""
    ids = torch.tensor([[*first, 1, 2, 3]], device=device)
    positions = torch.tensor([[*range(len(first)), 0, 1, 2]], device=device)
    sequences = Sequences.of([len(first), 3], device)
    out = body(input_ids=ids, position_ids=positions, use_cache=False, sequences=sequences)
    hidden: Tensor = out.last_hidden_state[0, len(first) :]
    return hidden
