"""Optimizer and teacher on disk: each rank writes and reads its own part of sharded tensors.

learner.pt    everything; only the shapes of sharded tensors
learner/      the sharded tensors, written by `torch.distributed.checkpoint`, for any number of readers
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from resd.learner.parallel import Ranks

State = dict[str, Any]
PLAIN, SHARDS = "learner.pt", "learner"


def write(state: State, folder: Path, ranks: Ranks) -> None:
    """Write a nested state to `folder`. When rank 0 returns, all ranks have written."""
    if ranks.rank == 0:
        torch.save(_mapped(state, _hollow), folder / PLAIN)
    shards = {name: tensor for name, tensor in named(state) if isinstance(tensor, DTensor)}
    if shards:
        try:
            save(shards, checkpoint_id=folder / SHARDS, process_group=ranks.cpu_group)
        except CheckpointException as error:  # not an Exception; wraps the error of some rank
            raise next(iter(error.failures.values()))[0] from error


def read(folder: Path, *, mapped: bool = False) -> State:
    """Read the state to the CPU; sharded tensors are on the meta device. `mapped` memory-maps the file."""
    state: State = torch.load(folder / PLAIN, map_location="cpu", weights_only=True, mmap=mapped)
    return state


def read_shards(saved: State, folder: Path, into: State) -> None:
    """Read the sharded tensors of `saved`, a state from `read`, into `into`: as shards or full tensors."""
    wanted = {name for name, tensor in named(saved) if tensor.is_meta}
    if wanted:
        tensors = {name: tensor for name, tensor in named(into) if name in wanted}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as intended
            load(tensors, checkpoint_id=folder / SHARDS, no_dist=True)


def whole(folder: Path, part: str) -> State:
    """Read `part` of the state in a folder, with full tensors."""
    saved = {part: read(folder, mapped=True)[part]}
    state = _mapped(saved, lambda t: torch.empty_like(t, device="cpu") if t.is_meta else t)
    read_shards(saved, folder, state)
    found: State = state[part]
    return found


def named(state: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a nested state by their path."""
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, dict | list):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from named(value, f"{name}/{key}" if name else str(key))


def _mapped(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(state, dict):
        return {key: _mapped(value, change) for key, value in state.items()}
    if isinstance(state, list):
        return [_mapped(value, change) for value in state]
    return change(state) if isinstance(state, Tensor) else state


def _hollow(tensor: Tensor) -> Tensor:
    sharded = isinstance(tensor, DTensor)
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta") if sharded else tensor
