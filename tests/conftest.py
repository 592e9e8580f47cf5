"""Shared fixtures."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference data that lies beside the repository on development machines; tests skip without it."""
    path = REPOSITORY.parent / "shared"
    if not path.is_dir():
        pytest.skip("needs the reference data beside the repository")
    return path
