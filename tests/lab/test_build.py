"""The recipe on a CPU, with a model of a few thousand parameters."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resd.context.prompts import COMPACT
from resd.lab.batches import MAX_LENGTH
from resd.lab.build import Pretrainer, Recipe, add_arguments, build, make_model
from resd.lab.tokenizer import END, vocabulary
from resd.records import ResdError

TINY = Recipe(steps=3, hidden=64, layers=1, tokens_per_step=2048, workers=0)
OPTIONS = "--steps 3 --hidden 64 --layers 1 --tokens-per-step 2048 --workers 0 --device cpu"


def arguments(output: Path, *extra: str) -> Any:
    parser = ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["--output", str(output), *OPTIONS.split(), *extra])


class StopError(Exception):
    """Stands for whatever kills a run."""


def stop_before(trainer: Pretrainer, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill the run when it is about to train on the batch of `step` (from 0)."""
    train = trainer._train

    def failing(batch: Any) -> torch.Tensor:
        if trainer.step == step:
            raise StopError
        return train(batch)

    monkeypatch.setattr(trainer, "_train", failing)


def test_build_makes_a_folder_that_transformers_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    build(arguments(tmp_path / "lab", "--save-every", "2"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "lab")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "lab")
    about = json.loads((tmp_path / "lab" / "lab.json").read_text())
    assert about["prompts"] == COMPACT.fingerprint()
    assert Recipe(**about["recipe"]) == TINY
    assert model.dtype == torch.bfloat16
    assert model.config.vocab_size == len(tokenizer) == len(vocabulary())
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == vocabulary().index(END)
    assert tokenizer.chat_template
    assert (tmp_path / "lab" / "model.safetensors").stat().st_mode & 0o777 == 0o644
    assert not list((tmp_path / "lab").glob("state*"))  # nothing is left to resume
    assert "step 3/3" in capsys.readouterr().out


def test_steps_too_small_for_the_longest_documents_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResdError, match=f"--tokens-per-step {MAX_LENGTH - 1}: .* at least {MAX_LENGTH}"):
        build(arguments(tmp_path / "lab", "--tokens-per-step", str(MAX_LENGTH - 1)))
    assert not (tmp_path / "lab").exists()
    build(arguments(tmp_path / "lab", "--tokens-per-step", str(MAX_LENGTH), "--steps", "1"))


def test_default_options_are_the_default_recipe(tmp_path: Path) -> None:
    parser = ArgumentParser()
    add_arguments(parser)
    options = vars(parser.parse_args(["--output", str(tmp_path)]))
    assert Recipe(**{name: options[name] for name in vars(Recipe())}) == Recipe()


def test_interrupted_run_resumes_at_its_last_saved_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, state = replace(TINY, steps=6), tmp_path / "state.pt"
    trainer = Pretrainer(make_model(recipe), recipe, state, save_every=2)
    stop_before(trainer, 5, monkeypatch)
    with pytest.raises(StopError):
        trainer.run(compiled=False)
    saved = torch.load(state, weights_only=True)
    assert (trainer.step, saved["step"]) == (5, 4)

    resumed = Pretrainer(make_model(recipe), recipe, state, save_every=2)
    assert resumed.step == 4
    weights, moments = resumed.model.state_dict(), resumed.optimizer.state_dict()["state"]
    assert all(torch.equal(weights[name], tensor) for name, tensor in saved["model"].items())
    assert all(
        torch.equal(moments[i]["exp_avg"], old["exp_avg"]) for i, old in saved["optimizer"]["state"].items()
    )
    resumed.run(compiled=False)
    assert resumed.step == 6
    assert torch.load(state, weights_only=True)["step"] == 6


def test_finished_run_that_was_not_saved_trains_no_more(tmp_path: Path) -> None:
    recipe, state = replace(TINY, steps=1), tmp_path / "state.pt"
    Pretrainer(make_model(recipe), recipe, state, save_every=1).run(compiled=False)
    again = Pretrainer(make_model(recipe), recipe, state, save_every=1)
    before = {name: tensor.clone() for name, tensor in again.model.state_dict().items()}
    again.run(compiled=False)
    assert all(torch.equal(before[name], tensor) for name, tensor in again.model.state_dict().items())


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    torch.manual_seed(0)
    recipe = replace(TINY, steps=30, warmup_steps=1, learning_rate=5e-3)
    trainer = Pretrainer(make_model(recipe), recipe, tmp_path / "state.pt", save_every=100)
    losses = []
    for batch, _ in zip(trainer._batches(), range(30), strict=False):
        losses.append(float(trainer._train(batch).sum()) / len(batch.targets))
        trainer.step += 1
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_learning_rate_warms_up_and_falls_to_zero(tmp_path: Path) -> None:
    recipe = replace(TINY, steps=1000, warmup_steps=100)
    trainer = Pretrainer(make_model(recipe), recipe, tmp_path / "state.pt", save_every=100)
    rates = []
    for trainer.step in range(recipe.steps):
        rates.append(trainer._learning_rate())
    peak = max(range(recipe.steps), key=rates.__getitem__)
    assert 90 <= peak <= 100
    assert rates[0] == pytest.approx(recipe.learning_rate / 100, rel=1e-3)
    assert 0 < rates[-1] < 1e-4 * recipe.learning_rate
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_default_model_has_the_size_that_is_shipped() -> None:
    with torch.device("meta"):
        model = make_model(Recipe())
    count = sum(parameter.numel() for parameter in model.parameters())
    assert 6.0e6 < count < 6.6e6
