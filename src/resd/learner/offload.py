"""Offloading tensors to host memory while the GPU does other work, such as generating text.

The tensor objects stay the same, including views and shards: only their storage is freed and reallocated, as
FSDP does for gathered weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from resd.learner.parallel import local

Method = TypeVar("Method", bound=Callable[..., Any])


class Offload:
    """Offloads the tensors that `tensors` returns outside `home`. Their values cannot be read meanwhile."""

    def __init__(self, tensors: Callable[[], Iterable[Tensor]]) -> None:
        self._tensors = tensors
        self._away: list[tuple[torch.UntypedStorage, Tensor]] = []
        self._hosts: dict[int, Tensor] = {}  # pinned memory is slow to allocate, so it is kept

    @contextmanager
    def home(self) -> Iterator[None]:
        self.fetch()
        try:
            yield
        finally:
            self.park()

    def park(self) -> None:
        """Copy the storages to host memory and free them on the device."""
        storages = {storage._cdata: storage for storage in map(_storage, self._tensors())}
        # On a CPU, tensors still backed by a checkpoint file stay as they are.
        movable = (s for s in storages.values() if s.nbytes() and s.resizable())
        for position, storage in enumerate(movable):
            host = self._host(position, storage)
            host.copy_(_bytes(storage))
            storage.resize_(0)
            self._away.append((storage, host))

    def fetch(self) -> None:
        """Copy offloaded storages back to the device."""
        for storage, host in self._away:
            storage.resize_(host.numel())
            _bytes(storage).copy_(host)
        self._away = []

    def _host(self, position: int, storage: torch.UntypedStorage) -> Tensor:
        known = self._hosts.get(position)
        if known is None or known.numel() != storage.nbytes():
            pinned = storage.device.type == "cuda"
            known = torch.empty(storage.nbytes(), dtype=torch.uint8, pin_memory=pinned)
            self._hosts[position] = known
        return known


def at_home(method: Method) -> Method:
    """Decorate a method that needs its object's offloaded tensors: it runs within `home`."""

    @wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self.home():
            return method(self, *args, **kwargs)

    return cast(Method, wrapped)


def on_host(state: Any) -> Any:
    """Copy a nested state with its tensors in host memory."""
    if isinstance(state, dict):
        return {key: on_host(value) for key, value in state.items()}
    if isinstance(state, list):
        return [on_host(value) for value in state]
    return state.detach().to("cpu", copy=True) if isinstance(state, Tensor) else state


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return local(tensor.detach()).untyped_storage()


def _bytes(storage: torch.UntypedStorage) -> Tensor:
    empty = torch.empty(0, dtype=torch.uint8, device=storage.device)
    return empty.set_(storage, 0, (storage.nbytes(),), (1,))
