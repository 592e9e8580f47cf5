"""Whether a model's sequences can be packed: found out by trying, before the first update."""

from __future__ import annotations

import torch
from torch import Tensor

from resd.learner.attention import packable, packing
from resd.learner.layout import build_layout
from resd.learner.model import autocast
from resd.learner.parallel import release
from resd.learner.student import Student
from resd.records import ResdError

# Of the norm of hidden states. Experts may be rounded otherwise in bfloat16 when they get other tokens.
ROUNDING = 0.05


def packs(chosen: bool | None, network: Student, device: torch.device, compute_dtype: torch.dtype) -> bool:
    """`optimizer.packing` for this student; None packs what can be packed.

    Where it is sharded, all ranks must ask at once. Raises ResdError where packing is chosen and cannot be.
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
        return f"has kernels on a GPU in bfloat16 alone, and this run computes on {device.type} in {dtype}"
    if not _apart(network, device, compute_dtype):
        return f"in {type(network.body).__name__} the sequences of one row cannot be kept apart"
    return None


def _apart(network: Student, device: torch.device, compute_dtype: torch.dtype) -> bool:
    """Whether a sequence is the same beside any other: only attention that is ours keeps them apart.

    Convolutions and recurrent states do not, nor does attention that a model has written out for itself.
    Soft caps and sinks are refused (`attention.attend`).
    """
    # Casts are not kept: a process alone holds the whole model.
    with torch.no_grad(), autocast(device, compute_dtype, cached=False):
        try:
            with packing([network.body]):
                ours, theirs = (_second(network, first, device) for first in ([1, 2, 3], [3, 1, 2]))
        except (ResdError, TypeError, RuntimeError):
            # Nothing passes on what attention needs, or the kernel has no such heads. FSDP keeps what it has
            # gathered for a forward that does not end; the next one to end lets go of it.
            network(build_layout([[1]], [[2]], [0], device), lambda made: made.hidden)
            return False
        finally:
            release(network)
    return bool((ours - theirs).norm() < ROUNDING * ours.norm())


def _second(network: Student, first: list[int], device: torch.device) -> Tensor:
    """Hidden states, `[3, H]`, of a sequence that comes second in a row."""
    layout = build_layout([first, [1]], [[0], [2, 3, 0]], [0, 1], device, packed=True)
    hidden: Tensor = network(layout, lambda made: made.hidden)
    return hidden[1:]
