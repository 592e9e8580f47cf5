"""A run that trains adapters: what it writes, how it goes on, and what is measured of its checkpoints."""

from pathlib import Path
from typing import Any

import pytest
import torch

import toy
from resd import environments
from resd.config import check_config
from resd.generation.decoder import Decoder
from resd.learner.model import load_model, load_unmerged
from resd.records import ResdError
from resd.training import journal, setup
from resd.training.plan import check_model, check_run
from support import save_tiny
from training.test_author import CONTEXT
from training.test_follow import assert_same_run, run

LORA = {"rank": 2, "alpha": 8}
STREAM = {"batch_size": 2, "updates_per_batch": 2}
ALONE, TWO = 1, 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("kind", ["ema", "frozen"])
def test_stopped_and_resumed_is_never_stopped(model: Path, tmp_path: Path, kind: str) -> None:
    changes = {"lora": LORA, "teacher": {"kind": kind, "update_rate": 0.1}}
    toy.build_toy(toy.toy_config(model, tmp_path / "whole", **changes)).train()
    first = toy.toy_config(model, tmp_path / "run", **changes, stream={**STREAM, "max_updates": 3})
    toy.build_toy(first).train()
    toy.build_toy(toy.toy_config(model, tmp_path / "run", **changes), resume=True).train()
    kept = "adapter_config.json", "adapter_model.safetensors", "state/learner.pt"
    for name in ("rollouts/4.jsonl", "rollouts/6.jsonl", *(f"checkpoints/6/{file}" for file in kept)):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list(tmp_path.rglob("model.safetensors"))


def test_a_checkpoint_measures_what_the_run_measured(model: Path, tmp_path: Path) -> None:
    config = toy.toy_config(model, tmp_path / "run", lora=LORA)
    stream = toy.build_toy(config)
    stream.train()
    folder = tmp_path / "run/checkpoints/6"
    decoded = stream.engine.engine._model  # type: ignore[attr-defined]
    loaded = Decoder(load_unmerged(str(folder)), stream.tokenizer, compute_dtype=torch.float32)._model
    assert all(torch.equal(a, b) for a, b in zip(decoded.parameters(), loaded.parameters(), strict=True))
    plain, base = load_model(str(folder)), load_model(str(model))
    assert any(not torch.equal(a, b) for a, b in zip(plain.parameters(), base.parameters(), strict=True))
    with toy.in_place():
        measured = setup.evaluate_model(config.model_copy(update={"model": str(folder)})).metrics
    last = [row for row in journal.read(tmp_path / "run/metrics.jsonl") if row["kind"] == "evaluation"][-1]
    assert measured == {name: last[name] for name in measured}
    with pytest.raises(ResdError, match=r"is a run; give a checkpoint, e.g. .*/6"):
        check_model(config.model_copy(update={"model": str(tmp_path / "run")}))


@pytest.mark.parametrize(("kind", "stays"), [("frozen", True), ("ema", False)])
def test_the_teacher_can_be_the_author(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, stays: bool
) -> None:
    monkeypatch.setattr(environments, "load", lambda name, **options: toy.Letters())
    changes: dict[str, Any] = {"context": {**CONTEXT, "author": "teacher"}, "lora": LORA}
    changes["teacher"] = {"kind": kind, "update_rate": 0.5}
    stream = setup.build(toy.toy_config(model, tmp_path / "run", **changes))
    assert stream.author is not None
    own = stream.author._model  # type: ignore[attr-defined]
    before = [parameter.clone() for parameter in own.parameters()]
    stream.update(stream.batches[0])
    stream.update(stream.batches[0])
    same = all(torch.equal(a, b) for a, b in zip(own.parameters(), before, strict=True))
    assert same == stays


def test_two_processes_write_what_one_does(model: Path, tmp_path: Path) -> None:
    for name, size in (("one", ALONE), ("two", TWO)):
        (tmp_path / name).mkdir()
        assert run(model, tmp_path / name, size, lora=LORA) == [0] * size
    assert_same_run(tmp_path / "two/run", tmp_path / "one/run")


def test_peft_is_asked_for_before_the_work(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("resd.training.plan.importlib.util.find_spec", lambda name: None)
    config = toy.toy_config(model, tmp_path / "run", lora=LORA)
    with toy.in_place(), pytest.raises(ResdError, match=r"lora.rank: needs peft; pip install 'resd\[lora\]'"):
        check_run(config)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"rank": 0}, "lora.rank"),
        ({"target_modules": []}, "target_modules"),
        ({"dropout": 0.1}, "lora.dropout"),
    ],
)
def test_what_cannot_be_asked_for(section: dict[str, Any], words: str) -> None:
    with pytest.raises(ResdError, match=words):
        check_config({"lora": section}, "here")
