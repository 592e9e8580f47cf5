"""Several processes with one student: process groups, sharding and reductions.

Weights, gradients, optimizer state and teacher are sharded by FSDP2 over all processes. Objects and counts
are sent over gloo, tensors on a GPU over NCCL.
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

# From the arrival of the first process to that of the last.
MEETING = timedelta(minutes=10)
# Within an update all processes run in lockstep.
WORK = timedelta(minutes=30)
# Between two messages of rank 0, which grades, and for each rank's generation. A dead process is noticed
# immediately, by its closed connection.
SILENCE = timedelta(days=2)
# The errors of gloo when its peer process has died.
GONE = re.compile(r"(closed|reset) by peer|[Bb]roken pipe")


@dataclass(frozen=True, slots=True)
class Ranks:
    """A process's view of the process group. `cpu_group` is the gloo group; None for a single process."""

    rank: int = 0
    size: int = 1
    cpu_group: Any = None

    @property
    def shared(self) -> bool:
        return self.size > 1

    def broadcast(self, value: Any) -> None:
        """Broadcast a picklable object from rank 0 to all others, which must call `receive`."""
        dist.broadcast_object_list([value], src=0, group=self.cpu_group)

    def receive(self) -> Any:
        """Receive the next object that rank 0 broadcasts."""
        received: list[Any] = [None]
        dist.broadcast_object_list(received, src=0, group=self.cpu_group)
        return received[0]

    def collect(self, value: Any) -> list[Any]:
        """Gather the ranks' objects on rank 0, in order of rank; the others get an empty list."""
        collected = [None] * self.size if self.rank == 0 else None
        dist.gather_object(value, collected, dst=0, group=self.cpu_group)
        return collected or []

    def largest(self, count: int) -> int:
        """The maximum of `count` over all ranks."""
        if not self.shared:
            return count
        counts = torch.tensor(count)
        dist.all_reduce(counts, dist.ReduceOp.MAX, group=self.cpu_group)
        return int(counts)

    def total(self, values: Tensor) -> Tensor:
        """The sum over all ranks, elementwise."""
        if self.shared:
            dist.all_reduce(values)
        return values

    def gather(self, values: Tensor) -> list[Tensor]:
        """Each rank's values, `[any length]`, in order of rank."""
        if not self.shared:
            return [values]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, values.cpu(), group=self.cpu_group)
        return [part.to(values.device) for part in gathered]


ALONE = Ranks()


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join all processes that torchrun started for this run; `ALONE` without torchrun.

    Rank 0 leaves last, by broadcasting None. An error on any rank ends all of them: the rank that fails first
    raises it, the others exit silently with status 1. Raises ResdError for an incomplete environment.
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
            ranks.broadcast(None)
    except Exception as error:
        if not _first_failure(store, rank):
            raise SystemExit(1) from error
        if isinstance(error, RuntimeError) and GONE.search(str(error)):
            raise ResdError(
                "a process of the run died without a message, perhaps killed for lack of memory; resume with "
                "--resume"
            ) from error
        raise
    if "vllm" not in sys.modules:  # vLLM destroys all groups itself when the process ends
        dist.destroy_process_group()


def take_device(device: torch.device, ranks: Ranks) -> torch.device:
    """Assign each process of a machine its own GPU. Raises ResdError if there are not enough."""
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

    Layers are gathered one at a time, in `compute_dtype` if it is lower, as autocast would cast them.
    Embedding, last norm and head stay float32, so that additions to the hidden states are as exact as in one
    process. They stay gathered from the first micro-batch of an update to the last (`release`). Gradients are
    reduce-scattered in each backward pass: full ones would take as much memory on every rank as all weights.
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
        # Losses include the normalisers of the global batch: gradients must be summed, not averaged.
        module.set_force_sum_reduction_for_comms(True)
        module.set_gradient_divide_factor(1.0)
    for part in (student, student.head):
        if isinstance(part, FSDPModule):
            part.set_reshard_after_backward(False, recurse=False)


def sum_gradients(parameters: Iterable[nn.Parameter], ranks: Ranks) -> None:
    """Sum gradients over all ranks, each of which holds all of these parameters."""
    if ranks.shared:
        for parameter in parameters:
            own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = ranks.total(own)


def release(student: Student) -> None:
    """Reshard all parameters of the student."""
    for module in _shards(student):
        module.reshard()


def partition(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Distribute positions over `size` parts, longest first, each to the part with the least total so far.

    Each part is in ascending order.
    """
    parts: list[list[int]] = [[] for _ in range(size)]
    loads = [0] * size
    for position in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        least = loads.index(min(loads))
        parts[least].append(position)
        loads[least] += lengths[position]
    return [sorted(part) for part in parts]


def whole(tensor: Tensor) -> Tensor:
    """The full tensor, gathered if it is sharded. Every rank must call this."""
    if not isinstance(tensor, DTensor):
        return tensor
    full: Tensor = tensor.full_tensor().detach()
    return full


def local(tensor: Tensor) -> Tensor:
    """This rank's local shard of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def named_whole(named: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Yield full tensors one at a time, so that no rank ever holds all of them at once."""
    return ((name, whole(tensor)) for name, tensor in named)


def collected(state: Any, ranks: Ranks, known: dict[int, Any] | None = None) -> Any:
    """A nested state with full tensors on the CPU on rank 0, and without tensors on the others.

    Tensors that occur twice, such as the weight of a tied head, remain one tensor.
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
    """This rank's shard of a full tensor if `like` is sharded. All ranks must have the same tensor.

    For a tensor that is still to be read (`saving.read`), an uninitialised one.
    """
    if full.is_meta and like is not None:
        return torch.empty_like(like.detach(), dtype=full.dtype)
    if not isinstance(like, DTensor) or full.shape != like.shape:
        return full
    return distribute_tensor(full.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _shards(student: Student) -> list[FSDPModule]:
    return [module for module in student.modules() if isinstance(module, FSDPModule)]


def _first_failure(store: Any, rank: int) -> bool:
    """Whether no other rank has failed before. Rank 0 may host the store and be dead."""
    try:
        return int(store.compare_set("resd/failed", "", str(rank))) == rank
    except RuntimeError:
        return False
