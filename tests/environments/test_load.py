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
    def problems(self, split):
        return []
    def grade(self, problem, response):
        return None

made = Own(7)
nothing = 7

class Half:
    name = "half"
    def problems(self):
        return []

half = Half()

class Nameless(Own):
    name = None

class Async(Own):
    def grade(self, problem):
        return None

class Idle(Own):
    workers = 0

class Broken(Own):
    def __init__(self):
        raise SystemExit("no key")

def forgets():
    Own()

def unmade():
    return Own
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


def test_an_environment_that_is_there_already(own: str) -> None:
    environment = environments.load(f"{own}:made")
    assert (environment.name, vars(environment)) == ("own", {"size": 7})


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("chess", {}, "or module:name of your own, as in sums:Sums"),
        ("manufactoria", {"colour": 1}, "colour"),
        ("own_task:Own", {"colour": 1}, "own_task:Own: has no option colour; its options are size"),
        (
            "trl",
            {"path": "rows.jsonl"},
            "trl: needs the option reward; its options are reward, path, weights",
        ),
        ("own_task:Own", {"size": None}, "(environment.options has size)"),
        ("own_task:made", {"size": 5}, "own_task:made: is already an object, and takes no options (size)"),
        ("own_task:nothing", {}, "own_task:nothing: is an int; name a class, a function"),
        ("own_task:Half", {}, "own_task:Half: a Half has problems(); make it problems(split)"),
        ("own_task:half", {}, "own_task:half: a Half has problems(); make it problems(split)"),
        ("own_task:Nameless", {}, 'a Nameless has no name; give it one, as in name = "sums"'),
        ("own_task:Async", {}, "an Async has grade(problem); make it grade(problem, response)"),
        ("own_task:Idle", {}, "an Idle has workers 0; give it a whole number, 1 or more"),
        ("own_task:Broken", {}, "cannot be created: SystemExit: no key, own_task.py line 33"),
        ("own_task:forgets", {}, "own_task:forgets: creates None; return an object with problems and grade"),
        ("own_task:unmade", {}, "own_task:unmade: creates the class Own; return an object"),
    ],
)
def test_mistakes(own: str, name: str, options: dict[str, int], words: str) -> None:
    with pytest.raises(ResdError) as error:
        environments.load(name, **options)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
