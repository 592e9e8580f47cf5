"""Whose weights write reflections and curations: the student's, or the teacher's."""

from pathlib import Path
from typing import Any

import pytest
import torch

import toy
from resd import environments
from resd.training import setup
from resd.training.clock import Clock
from resd.training.stream import Stream
from support import save_tiny

CONTEXT = {
    "style": "compact",
    "max_prompt_tokens": 2048,
    "max_reflection_tokens": 64,
    "max_curation_tokens": 48,
}
STREAM = {"batch_size": 2, "updates_per_batch": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "load", lambda name, **options: toy.Letters())


def build(
    model: Path, output: Path, author: str, kind: str, *, resume: bool = False, **changes: Any
) -> Stream:
    """The toy run, with reflections and curations that are really decoded."""
    changes |= {"context": {**CONTEXT, "author": author}, "teacher": {"kind": kind, "update_rate": 0.1}}
    return setup.build(toy.toy_config(model, output, **changes), resume=resume)


def words_before_and_after_a_change(stream: Stream) -> list[list[Any]]:
    """All that the context engine writes of the same attempts, before and after the student has changed."""
    assert stream.context is not None
    attempts = stream.roll_out(stream.batches[0], 1, Clock())
    fresh, said = stream.context.state_dict(), []
    for _ in range(2):
        stream.context.load_state_dict(fresh)
        said.append([record["output"] for record in stream.context.update(attempts, 1).records])
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in stream.learner.model.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        stream.learner.teacher.update()
        stream.load_weights()
    return said


@pytest.mark.parametrize(
    ("author", "kind", "stays"),
    [("teacher", "frozen", True), ("teacher", "ema", False), ("student", "frozen", False)],
)
def test_a_frozen_author_does_not_change_with_the_student(
    model: Path, tmp_path: Path, author: str, kind: str, stays: bool
) -> None:
    before, after = words_before_and_after_a_change(build(model, tmp_path / "run", author, kind))
    assert any(before)
    assert (before == after) == stays


def test_at_first_both_authors_write_the_same(model: Path, tmp_path: Path) -> None:
    said = [
        words_before_and_after_a_change(build(model, tmp_path / author, author, "ema"))[0]
        for author in ("student", "teacher")
    ]
    assert said[0] == said[1]


def test_stopped_and_resumed_is_never_stopped(model: Path, tmp_path: Path) -> None:
    whole = build(model, tmp_path / "whole", "teacher", "ema")
    whole.train()
    build(model, tmp_path / "run", "teacher", "ema", stream={**STREAM, "max_updates": 3}).train()
    resumed = build(model, tmp_path / "run", "teacher", "ema", resume=True)
    assert resumed.progress.step == 3
    resumed.train()
    for name in ("rollouts/4.jsonl", "rollouts/6.jsonl", "playbook.jsonl", "checkpoints/6/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_only_resd_has_an_author(model: Path, tmp_path: Path) -> None:
    assert build(model, tmp_path / "sdpo", "teacher", "ema", algorithm="sdpo").author is None
    assert build(model, tmp_path / "resd", "student", "ema").author is None
