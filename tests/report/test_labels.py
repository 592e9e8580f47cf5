"""Names that say what differs."""

from collections.abc import Callable
from pathlib import Path

from resd.report.labels import told_apart
from resd.report.runs import load_runs

from .test_seeds import change

MakeRun = Callable[..., Path]


def names(*folders: Path) -> list[str]:
    return [run.name for run in told_apart(load_runs(folders))]


def test_what_differs_is_in_the_name(make_run: MakeRun) -> None:
    a, b = make_run("a"), make_run("b", algorithm="sdpo")
    assert names(a) == ["a"]
    assert names(a, b) == ["a · resd", "b · sdpo"]
    assert names(a, make_run("c", seed=9)) == ["a", "c"]  # seeds of one configuration
    change(b, rollout={"n": 8})
    assert names(a, b) == ["a · resd · n 1", "b · sdpo · n 8"]


def test_nothing_is_said_twice(make_run: MakeRun) -> None:
    assert names(make_run("RESD-1"), make_run("sdpo", algorithm="sdpo")) == ["RESD-1", "sdpo"]


def test_of_many_differences_the_algorithm_is_told(make_run: MakeRun) -> None:
    a, b = make_run("a"), make_run("b", algorithm="sdpo")
    change(b, model="a-model-with-a-rather-long-name")
    assert names(a, b) == ["a · resd", "b · sdpo"]
    change(a, algorithm="sdpo")
    assert names(a, b) == ["a", "b"]
