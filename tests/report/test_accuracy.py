"""Shares of problems by how many of their samples are solved."""

from collections.abc import Callable
from pathlib import Path

import pytest

from resd.records import ResdError
from resd.report.accuracy import bin_of, distribution
from resd.report.reflections import examples
from resd.report.runs import load_run

MakeRun = Callable[..., Path]


def test_bins() -> None:
    assert [bin_of(n, 4) for n in range(5)] == [0, 1, 2, 2, 3]
    assert [bin_of(n, 3) for n in range(4)] == [0, 1, 2, 3]
    assert [bin_of(n, 1) for n in range(2)] == [0, 3]


def test_shares(make_run: MakeRun) -> None:
    folder = make_run()
    # Of 4 samples each problem has solved: a as many as the update's number, b 1, c 2, d 0.
    assert distribution(load_run(folder, "run")) == {
        0: (0.5, 0.25, 0.25, 0.0),
        2: (0.25, 0.25, 0.5, 0.0),
        4: (0.25, 0.25, 0.25, 0.25),
    }
    (folder / "evaluations/2.jsonl").unlink()
    (folder / "evaluations/0.jsonl").write_text("")
    assert list(distribution(load_run(folder, "run"))) == [4]


def test_damage_is_one_sentence(make_run: MakeRun) -> None:
    folder = make_run()
    (folder / "evaluations/2.jsonl").write_text('{"problem": "a"}\n')
    with pytest.raises(ResdError, match=r"evaluations/2.jsonl does not hold what it should"):
        distribution(load_run(folder, "run"))


def test_reflections_are_spread_over_the_run(make_run: MakeRun) -> None:
    run = load_run(make_run(), "run")
    found = examples(run)
    assert [example.round.step for example in found] == [1, 2, 3, 4]
    assert {example.problem for example in examples(run, 3)} == {"p", "q"} or len(found) == 4
    second = examples(run, 2)
    assert [example.round.step for example in second] == [1, 4]
    assert all(example.round.reflection is not None for example in found)
    assert examples(load_run(make_run("bare", algorithm="sdpo", steps=0), "bare")) == []
