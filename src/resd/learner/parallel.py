"""Several processes with one student: who is who, what each of them holds, and what they sum.

Weights, gradients, optimizer state and teacher are sharded by FSDP2 over all processes. Objects and counts
go over gloo, tensors on a GPU over NCCL.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor, distribute_tensor

from resd.launch import world_size
from resd.learner.student import Student
from resd.records import ResdError

# From the first process that comes to the last one.
MEETING = timedelta(minutes=10)
# Within an update all processes do the same at the same time.
WORK = timedelta(minutes=30)
# Between two words of the first process, which grades, and for what each generates. That a process has died
# is noticed at once, by the closed connection.
SILENCE = timedelta(days=2)
# What gloo says where the process at the other end is no more.
GONE = re.compile(r"(closed|reset) by peer|[Bb]roken pipe")


@dataclass(frozen=True, slots=True)
class Ranks:
    """What a process knows of the others. `words` is their gloo group; None for one alone."""

    rank: int = 0
    size: int = 1
    words: Any = None

    @property
    def shared(self) -> bool:
        return self.size > 1

    def say(self, words: Any) -> None:
        """From rank 0 to all others, who `hear` it. Anything that can be pickled."""
        dist.broadcast_object_list([words], src=0, group=self.words)

    def hear(self) -> Any:
        """What rank 0 says next."""
        heard: list[Any] = [None]
        dist.broadcast_object_list(heard, src=0, group=self.words)
        return heard[0]

    def collect(self, words: Any) -> list[Any]:
        """What each rank says, in their order, on rank 0; nothing on the others."""
        collected = [None] * self.size if self.rank == 0 else None
        dist.gather_object(words, collected, dst=0, group=self.words)
        return collected or []

    def largest(self, count: int) -> int:
        """Of all ranks' counts."""
        if not self.shared:
            return count
        counts = torch.tensor(count)
        dist.all_reduce(counts, dist.ReduceOp.MAX, group=self.words)
        return int(counts)

    def total(self, values: Tensor) -> Tensor:
        """The sum over all ranks, elementwise."""
        if self.shared:
            dist.all_reduce(values)
        return values

    def gather(self, values: Tensor) -> list[Tensor]:
        """Each rank's values, `[any length]`, in the order of ranks."""
        if not self.shared:
            return [values]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, values.cpu(), group=self.words)
        return [part.to(values.device) for part in gathered]


ALONE = Ranks()


@contextmanager
def joined() -> Iterator[Ranks]:
    """All processes that torchrun started for this run; `ALONE` where it did not start any.

    Rank 0 leaves last, by saying None. An error on any rank ends all of them: the rank that fails first
    raises it, the others exit with status 1 and say nothing. Raises ResdError for half an environment.
    """
    size = world_size()
    if size == 1:
        yield ALONE
        return
    try:
        store, rank, size = next(rendezvous("env://", timeout=MEETING))
    except ValueError as error:
        raise ResdError(
            f"WORLD_SIZE is {size}, but {error}; start several processes with torchrun"
        ) from error
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=WORK)
    ranks = Ranks(rank, size, dist.new_group(backend="gloo", timeout=SILENCE))
    try:
        yield ranks
        if rank == 0:
            ranks.say(None)
    except Exception as error:
        if not _first_failure(store, rank):
            raise SystemExit(1) from error
        if isinstance(error, RuntimeError) and GONE.search(str(error)):
            raise ResdError(
                "a process of the run is gone without a word, killed perhaps for want of memory; go on with "
                "--resume"
            ) from error
        raise
    if "vllm" not in sys.modules:  # which ends all groups itself when the process does
        dist.destroy_process_group()


def take_device(device: torch.device, ranks: Ranks) -> torch.device:
    """Give each process of a machine a GPU of its own. Raises ResdError if there are not enough."""
    if not ranks.shared or device.type != "cuda":
        return device
    local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= count:
        raise ResdError(
            f"process {local + 1} of this machine has no GPU: there are {count}; set --nproc-per-node to that"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def shard(student: Student, device: torch.device, compute_dtype: torch.dtype) -> None:
    """Shard the parameters of a student or teacher, in place, over all processes.

    Layers are gathered one at a time and, for a lower `compute_dtype`, in it, as autocast would cast them.
    Embedding, last norm and head stay float32: what is added to the hidden states stays as exact as in one
    process. They stay gathered from the first micro-batch of an update to the last (`release`). Gradients
    are summed over ranks, and sharded, in each backward pass: whole ones would take as much memory on every
    rank as all weights.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    lower = compute_dtype if compute_dtype != torch.float32 else None
    policy = MixedPrecisionPolicy(lower, torch.float32, cast_forward_inputs=False)
    layers = [layer for layer in student.body.modules() if isinstance(layer, GradientCheckpointingLayer)]
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    inside = set(student.body.parameters())
    if not inside & set(student.head.parameters()):
        fully_shard(student.head, mesh=mesh, reshard_after_forward=False)
    fully_shard(student, mesh=mesh, reshard_after_forward=False)
    for module in _shards(student):
        # Losses hold the normalisers of the global batch: gradients are to be summed, not averaged.
        module.set_force_sum_reduction_for_comms(True)
        module.set_gradient_divide_factor(1.0)
    for part in (student, student.head):
        if isinstance(part, FSDPModule):
            part.set_reshard_after_backward(False, recurse=False)


def sum_gradients(parameters: Iterable[nn.Parameter], ranks: Ranks) -> None:
    """Over all ranks, each of which holds all of these parameters."""
    if ranks.shared:
        for parameter in parameters:
            own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = ranks.total(own)


def release(student: Student) -> None:
    """Keep nothing gathered: afterwards the parameters are the shards."""
    for module in _shards(student):
        module.reshard()


def deal(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Deal positions out to `size` hands, the longest first, each to the hand with the least so far.

    Each hand is in ascending order.
    """
    hands: list[list[int]] = [[] for _ in range(size)]
    loads = [0] * size
    for position in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        least = loads.index(min(loads))
        hands[least].append(position)
        loads[least] += lengths[position]
    return [sorted(hand) for hand in hands]


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be sharded. Every rank must ask for it."""
    if not isinstance(tensor, DTensor):
        return tensor
    full: Tensor = tensor.full_tensor().detach()
    return full


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def named_whole(named: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """One tensor at a time: no rank ever holds all of them at once for this."""
    return ((name, whole(tensor)) for name, tensor in named)


def collected(state: Any, ranks: Ranks, known: dict[int, Any] | None = None) -> Any:
    """A nested state with its tensors whole and on the CPU, on rank 0; without them on the others.

    What is in it twice, such as the weight of a tied head, is one tensor afterwards as well.
    """
    known = {} if known is None else known
    if isinstance(state, dict):
        return {key: collected(value, ranks, known) for key, value in state.items()}
    if isinstance(state, list):
        return [collected(value, ranks, known) for value in state]
    if isinstance(state, DTensor):
        if id(state) not in known:
            full = whole(state)
            known[id(state)] = full.cpu() if ranks.rank == 0 else None
        return known[id(state)]
    return state


def own_part(full: Tensor, like: Tensor | None) -> Tensor:
    """What this rank keeps of a whole tensor, where `like` is sharded. All ranks have read the same one.

    Of a tensor that is still to be read (`saving.read`), room for it.
    """
    if full.is_meta and like is not None:
        return torch.empty_like(like.detach(), dtype=full.dtype)
    if not isinstance(like, DTensor) or full.shape != like.shape:
        return full
    return distribute_tensor(full.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _shards(student: Student) -> list[FSDPModule]:
    return [module for module in student.modules() if isinstance(module, FSDPModule)]


def _first_failure(store: Any, rank: int) -> bool:
    """Whether no other rank has failed before. Rank 0 may hold the store, and be gone."""
    try:
        return int(store.compare_set("resd/failed", "", str(rank))) == rank
    except RuntimeError:
        return False
