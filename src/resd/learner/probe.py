"""Testing whether a model's sequences can be packed, before the first update."""

from __future__ import annotations

import torch
from torch import Tensor

from resd.learner.attention import packable, packing
from resd.learner.layout import build_layout
from resd.learner.model import autocast
from resd.learner.parallel import release
from resd.learner.student import Student
from resd.records import ResdError

# Relative to the norm of hidden states. Experts may round differently in bfloat16 when they get other tokens.
ROUNDING = 0.05


def packs(chosen: bool | None, network: Student, device: torch.device, compute_dtype: torch.dtype) -> bool:
    """Resolve `optimizer.packing` for this student; None packs if possible.

    If the student is sharded, all ranks must call this at once. Raises ResdError if packing is requested but
    impossible.
    """
    if chosen is False:
        return False
    obstacle = _obstacle(network, device, compute_dtype)
    if chosen and obstacle:
        raise ResdError(f"optimizer.packing: {obstacle}; set it to false, or leave it out")
    return obstacle is None


def _obstacle(network: Student, device: torch.device, compute_dtype: torch.dtype) -> str | None:
    if not packable(device, compute_dtype):
        dtype = str(compute_dtype).removeprefix("torch.")
        return f"needs a GPU and bfloat16 or float16, and this run computes on {device.type} in {dtype}"
    if not _apart(network, device, compute_dtype):
        return f"in {type(network.body).__name__} the sequences of one row cannot be kept apart"
    return None


def _apart(network: Student, device: torch.device, compute_dtype: torch.dtype) -> bool:
    """Whether packed sequences do not affect each other: only our own attention keeps them apart.

    Convolutions and recurrent states do not, nor does a model's custom attention. Soft caps and sinks are
    rejected (`attention.attend`).
    """
    # Do not cache casts: a single process holds the whole model.
    with torch.no_grad(), autocast(device, compute_dtype, cached=False):
        try:
            with packing([network.body]):
                ours, theirs = (_second(network, first, device) for first in ([1, 2, 3], [3, 1, 2]))
        except (ResdError, TypeError, RuntimeError):
            # The model does not pass on attention's arguments, or the kernel does not support its heads. FSDP
            # keeps weights gathered for a forward that fails; the next successful one frees them.
            network(build_layout([[1]], [[2]], [0], device), lambda made: made.hidden)
            return False
        finally:
            release(network)
    return bool((ours - theirs).norm() < ROUNDING * ours.norm())


def _second(network: Student, first: list[int], device: torch.device) -> Tensor:
    """Hidden states, `[3, H]`, of the second sequence in a row."""
    layout = build_layout([first, [1]], [[0], [2, 3, 0]], [0, 1], device, packed=True)
    hidden: Tensor = network(layout, lambda made: made.hidden)
    return hidden[1:]
