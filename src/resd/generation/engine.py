"""The protocol of generation engines. Rollouts, reflections, tags and curation are all requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from resd.records import Request, Response

if TYPE_CHECKING:
    import torch


class GenerationEngine(Protocol):
    """Generates for many requests at once. Requests in one call have distinct ids."""

    def submit(self, requests: Sequence[Request]) -> Iterator[Response]:
        """Yield responses as they finish, in any order; every request gets exactly one."""
        ...

    def cancel(self, ids: Iterable[str]) -> None:
        """Stop these requests early: they are yielded with finish_reason "cancelled"."""
        ...

    def awake(self) -> AbstractContextManager[None]:
        """Hold memory for generation only inside this context (a no-op for the embedded decoder)."""
        ...

    def load_weights(self, named_tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Load new weights."""
        ...


def generate(engine: GenerationEngine, requests: Sequence[Request]) -> list[Response]:
    """Generate all responses, in the order of the requests."""
    by_id = {response.request_id: response for response in engine.submit(requests)}
    return [by_id[request.id] for request in requests]
