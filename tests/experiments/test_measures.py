"""Hard problems and skills: what is measured beside a run's journals."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import toy
from conftest import REPOSITORY
from resd.experiments import measures, worker
from resd.experiments.job import JOB, RESULT, read_json, write_json
from resd.records import ResdError
from resd.solve.effort import Effort
from resd.training import journal
from support import save_tiny

BUDGET = 12


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the jobs are, beside a recipe with an environment of three test problems."""
    config = toy.toy_config(save_tiny(tmp_path / "model"), tmp_path / "unused", rollout={"max_tokens": 8})
    data = config.model_dump(mode="json")
    data["environment"]["name"] = "toy:Letters"
    write_json(tmp_path / "toy.yaml", data)  # JSON is YAML
    monkeypatch.syspath_prepend(str(REPOSITORY / "tests"))
    return tmp_path / "jobs"


def work(root: Path, variant: str, effort: Effort, measure: str, *overrides: str, seed: int = 0) -> dict:  # type: ignore[type-arg]
    folder = root / variant / f"{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    job = {"variant": variant, "seed": seed, "config": str(root.parent / "toy.yaml"), "device": "cpu"}
    job |= {"overrides": overrides, "faults": {}, "measure": measure, "effort": vars(effort), "made": {}}
    write_json(folder / JOB, {**job, "after": "count", "experiment": "toy"})
    worker.main(folder)
    return read_json(folder / RESULT)


def test_hard_problems_are_counted_then_worked_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "HARDEST", 2)
    with pytest.raises(ResdError, match="run the variant count first"):
        work(root, "best_of", Effort("best_of", BUDGET), "discovery")
    counted = work(root, "count", Effort("best_of", 200), "counts", seed=1000)
    counts = counted["counts"]
    assert counted["samples"] == 200
    assert len(counts) == 3
    hard = sorted(counts, key=lambda name: (counts[name], name))[:2]
    best = work(root, "best_of", Effort("best_of", BUDGET), "discovery")["discovery"]
    learned = work(
        root, "sdpo", Effort("self_distill", BUDGET, 4), "discovery", "algorithm=sdpo", "rollout.n=4"
    )["discovery"]
    for found in (best, learned):
        assert list(found) == hard
        for row in found.values():
            assert row["attempts"] <= BUDGET
            assert row["first"] is None or row["first"] <= row["attempts"]
            assert row["first"] is not None or row["attempts"] == BUDGET
            assert row["tokens"] > 0


def test_problems_that_are_done_are_not_worked_on_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work(root, "count", Effort("best_of", 8), "counts", seed=1000)
    whole = work(root, "best_of", Effort("best_of", BUDGET), "discovery")["discovery"]
    folder = root / "best_of" / "0"
    kept = journal.read(folder / measures.DONE)
    assert [row["problem"] for row in kept] == list(whole)
    (folder / measures.DONE).unlink()
    journal.append(folder / measures.DONE, [{**kept[0], "tokens": 77}])
    again = work(root, "best_of", Effort("best_of", BUDGET), "discovery")["discovery"]
    assert again.pop(kept[0]["problem"])["tokens"] == 77
    for name, row in again.items():
        assert {**row, "seconds": 0} == {**whole[name], "seconds": 0}


def test_skills_are_those_of_the_weights_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lab's report, asked of the run's own awake engine about the first weights' failures."""
    seen: list[tuple[Any, ...]] = []
    engine = toy.ScriptedWords(SimpleNamespace(awake=nullcontext))
    monkeypatch.setattr(measures, "evaluate", lambda *words: seen.append(words) or {"curator/exact": 1.0})
    monkeypatch.setattr(measures, "Manufactoria", lambda **options: toy.Letters())
    samples = [("o", "test/h"), ("h", "test/h"), ("?", "test/d")]
    rows = [
        {"problem": problem, "sample": i, "text": text, "finish_reason": "stop"}
        for i, (text, problem) in enumerate(samples)
    ]
    journal.write(tmp_path / "evaluations" / "0.jsonl", rows)
    journal.write(tmp_path / "evaluations" / "4.jsonl", [])
    stream = SimpleNamespace(engine=engine, tokenizer="t", folder=tmp_path)
    assert measures.skills(stream) == {"curator/exact": 1.0}  # type: ignore[arg-type]
    ((bench, failures),) = seen
    assert (bench.engine, bench.tokenizer, bench.environment.name) == (engine, "t", "letters")
    found = [(a.problem.id, a.sample, a.response.text, a.verdict.passed) for a in failures]
    assert found == [("test/h", 0, "o", 1), ("test/d", 2, "?", 1)]
