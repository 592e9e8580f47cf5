"""A run that goes on with another algorithm once success is common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import toy
from resd.algorithms.grpo import GRPO
from resd.algorithms.resd import RESD
from resd.learner import scoring
from resd.records import ResdError
from resd.training import journal
from support import save_tiny

METRIC = "training/switched"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


def updates(folder: Path) -> list[dict[str, Any]]:
    return [row for row in journal.read(folder / journal.METRICS) if row["kind"] == "update"]


def rows(folder: Path, step: int) -> list[dict[str, Any]]:
    return journal.read(folder / journal.ROLLOUTS / f"{step}.jsonl")


def test_it_switches_after_the_update_that_passes(model: Path, tmp_path: Path) -> None:
    switch = {"to": "grpo", "n": 3, "success": 0.0}
    stream = toy.build_toy(toy.toy_config(model, tmp_path / "run", switch=switch))
    assert isinstance(stream.acting[0], RESD)
    stream.train()
    assert isinstance(stream.acting[0], GRPO)
    assert [row[METRIC] for row in updates(tmp_path / "run")] == [0, 1, 1, 1, 1, 1]
    first, second = rows(tmp_path / "run", 1), rows(tmp_path / "run", 2)
    assert sum(row["kind"] == "attempt" for row in first) == 4
    assert any(row["kind"] == "context" for row in first)
    assert [row["kind"] for row in second] == ["attempt"] * 6, (
        "three tries at each, and nothing is reflected on"
    )
    assert all(row["teacher_prompt"] is None for row in second)


def test_what_fades_begins_with_the_switch(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RLSD's teacher has less and less to say; updates of the algorithm before do not count."""
    counted: list[int] = []
    mixing = scoring.rlsd_mixing
    monkeypatch.setattr(scoring, "rlsd_mixing", lambda n, *rest: counted.append(n) or mixing(n, *rest))
    config = toy.toy_config(
        model,
        tmp_path / "run",
        switch={"to": "rlsd", "n": 8, "success": 0.0},
        context={"style": "compact", "max_prompt_tokens": 2048, "use_trial": True},
    )
    toy.build_toy(config).train()
    skipped = [row["actor/skipped"] for row in updates(tmp_path / "run")]
    steps = skipped[1:].count(0)
    assert skipped[0] == 0, "RESD has taken a step"
    assert steps > 1
    assert sorted(set(counted)) == list(range(steps))


def test_it_never_switches_below_the_threshold(model: Path, tmp_path: Path) -> None:
    stream = toy.build_toy(toy.toy_config(model, tmp_path / "run", switch={"to": "grpo", "success": 1.0}))
    stream.train()
    solved = [row["train/solved/mean"] for row in updates(tmp_path / "run")]
    assert max(solved) < 1, "else this says nothing"
    assert not any(row[METRIC] for row in updates(tmp_path / "run"))


def test_a_resumed_run_knows_that_it_has_switched(model: Path, tmp_path: Path) -> None:
    def config(name: str, **stream: Any) -> Any:
        sizes = {"batch_size": 2, "updates_per_batch": 2, **stream}
        switch = {"to": "grpo", "n": 3, "success": 0.0}
        return toy.toy_config(model, tmp_path / name, switch=switch, stream=sizes)

    toy.build_toy(config("whole")).train()
    toy.build_toy(config("parts", max_updates=2)).train()
    toy.build_toy(config("parts"), resume=True).train()
    for step in (3, 6):
        assert rows(tmp_path / "parts", step) == rows(tmp_path / "whole", step)


def test_comparing_tries_needs_more_than_one(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ResdError, match=r"set switch\.n to 2 or more"):
        toy.toy_config(model, tmp_path / "run", switch={"to": "grpo", "n": 1})
