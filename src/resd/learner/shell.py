"""Models that are sharded before they have weights: only rank 0 reads the weights and distributes them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from resd.learner.parallel import Ranks


@dataclass(frozen=True)
class Weights:
    """The weights for a shell, by name, in rank 0's main memory until distributed. Other ranks have none."""

    tensors: dict[str, Tensor]
    device: torch.device
    ranks: Ranks

    def distribute(self, model: Any) -> None:
        """Distribute the weights to a sharded shell. No rank holds more than one full tensor at a time."""
        fill(model, self._part)

    def _part(self, name: str, like: Tensor) -> Tensor:
        if self.ranks.rank == 0:
            full = self.tensors.pop(name).to(self.device)
        else:
            full = torch.empty(like.shape, dtype=like.dtype, device=self.device)
        if isinstance(like, DTensor):
            return distribute_tensor(full, like.device_mesh, like.placements, src_data_rank=0)
        dist.broadcast(full, src=0)
        return full


def read(load: Callable[[], Any], device: torch.device, ranks: Ranks) -> tuple[Any, Weights]:
    """Load a model in rank 0's main memory; return a shell of it and its weights on every rank."""
    if ranks.rank == 0:
        model = load()
        tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
        hollow = shell(model)
        ranks.broadcast(hollow)
    else:
        tensors, hollow = {}, ranks.receive()
    for module in hollow.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, buffer.to(device))
    return hollow, Weights(tensors, device, ranks)


def shell(model: Any) -> Any:
    """A copy without weights. Buffers are copied: some, such as rotary frequencies, are in no checkpoint."""
    return _copied(model, lambda parameter: torch.empty_like(parameter, device="meta"))


def blank(hollow: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """A copy of a shell with full, uninitialised weights."""
    twin = _copied(hollow, lambda parameter: torch.empty(parameter.shape, dtype=dtype, device=device))
    return twin.requires_grad_(False).eval()


def fill(module: nn.Module, find: Callable[[str, Tensor], Tensor]) -> None:
    """Replace each parameter without weights by `find(name, parameter)`. Ties are kept."""
    made = {
        id(parameter): nn.Parameter(find(name, parameter.detach()), requires_grad=parameter.requires_grad)
        for name, parameter in module.named_parameters()
        if parameter.is_meta
    }
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            if id(parameter) in made:
                setattr(part, name, made[id(parameter)])


def _copied(model: Any, make: Callable[[Tensor], Tensor]) -> Any:
    made = {id(p): nn.Parameter(make(p.detach()), requires_grad=p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, made)
