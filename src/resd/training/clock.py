"""Wall-clock timing of the phases of a step."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TypeVar

T = TypeVar("T")


class Clock:
    """Sums wall seconds by name. Each step has its own clock, so nothing carries over."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the time spent inside the block to `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    @contextmanager
    def around(self, name: str, context: AbstractContextManager[object]) -> Iterator[None]:
        """Count the time to enter and exit `context`, but not the time inside it."""
        with ExitStack() as stack:
            with self.measure(name):
                stack.enter_context(context)
            yield
            with self.measure(name):
                stack.close()

    def iterate(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Yield `items`, counting the time to produce each, but not to consume it."""
        iterator = iter(items)
        while True:
            with self.measure(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item
