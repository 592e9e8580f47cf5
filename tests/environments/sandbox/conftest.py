"""One sandbox of each level for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from resd.environments.sandbox import Sandbox
from resd.records import ResdError


def _opened(level: str) -> Iterator[Sandbox]:
    with Sandbox(isolation=level, workers=2) as sandbox:
        try:
            sandbox.isolation_in_use  # noqa: B018
        except ResdError as error:
            pytest.skip(f"this host offers too little: {error}")
        yield sandbox


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """The strongest isolation that the host has."""
    yield from _opened("strongest")


@pytest.fixture(scope="session")
def landlocked() -> Iterator[Sandbox]:
    """Without namespaces."""
    yield from _opened("landlock")


@pytest.fixture(scope="session")
def weak() -> Iterator[Sandbox]:
    yield from _opened("weak")
