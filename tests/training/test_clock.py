"""Seconds by name."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from resd.training.clock import Clock


@contextmanager
def slow_doors() -> Iterator[None]:
    time.sleep(0.02)
    try:
        yield
    finally:
        time.sleep(0.02)


def test_entering_and_leaving_count_and_what_is_inside_does_not() -> None:
    clock = Clock()
    with clock.around("doors", slow_doors()):
        time.sleep(0.2)
    assert 0.04 <= clock.seconds["doors"] < 0.15


def test_a_context_is_left_also_when_something_goes_wrong() -> None:
    left = []

    @contextmanager
    def door() -> Iterator[None]:
        try:
            yield
        finally:
            left.append(True)

    with pytest.raises(ValueError, match="inside"), Clock().around("doors", door()):
        raise ValueError("inside")
    assert left
