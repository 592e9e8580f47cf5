"""How many processes share a run."""

import pytest

from resd.launch import world_size
from resd.records import ResdError


@pytest.mark.parametrize(("said", "expected"), [(None, 1), ("1", 1), ("8", 8)])
def test_the_environment_says_how_many(
    monkeypatch: pytest.MonkeyPatch, said: str | None, expected: int
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if said:
        monkeypatch.setenv("WORLD_SIZE", said)
    assert world_size() == expected


@pytest.mark.parametrize("said", ["x", "0", "-1", "", "2.5"])
def test_nonsense_is_one_sentence(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", said)
    with pytest.raises(ResdError, match="WORLD_SIZE is"):
        world_size()
