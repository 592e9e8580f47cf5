"""Environments by name: those that ship, and a user's own."""

import sys
from pathlib import Path

import pytest

from resd import environments
from resd.records import ResdError

OWN = """
class Own:
    name = "own"
    def __init__(self, size=3):
        self.size = size + 0
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder."""
    (tmp_path / "own_task.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_task", raising=False)
    return "own_task"


def test_what_ships() -> None:
    assert environments.load("manufactoria", family="has").name == "manufactoria_has"


def test_a_class_of_the_current_folder(own: str) -> None:
    environment = environments.load(f"{own}:Own", size=5)
    assert (environment.name, vars(environment)) == ("own", {"size": 5})


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("chess", {}, "or module:factory"),
        ("manufactoria", {"colour": 1}, "colour"),
        ("own_task:Own", {"colour": 1}, "own_task:Own: has no option colour; its options are size"),
        (
            "trl",
            {"path": "rows.jsonl"},
            "trl: needs the option reward; its options are reward, path, weights",
        ),
        ("own_task:Own", {"size": None}, "(environment.options has size)"),
        ("own_task:Other", {}, "no attribute 'Other'"),
        ("no_such_module:Own", {}, "no_such_module cannot be imported"),
        (":Own", {}, "cannot be imported"),
    ],
)
def test_mistakes(own: str, name: str, options: dict[str, int], words: str) -> None:
    with pytest.raises(ResdError) as error:
        environments.load(name, **options)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
