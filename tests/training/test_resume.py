"""A run that is killed at any moment and resumed equals one that never stopped, byte for byte."""

import json
import multiprocessing
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import toy
from resd.context import credit
from resd.learner import saving
from resd.records import ResdError
from resd.training import checkpoint, journal
from resd.training.run_folder import flatten
from resd.training.stream import Stream
from support import save_tiny

# Processes forked from one that has imported what is slow to import, and never computed.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["resd.training.setup", "transformers.models.qwen3.modeling_qwen3"])
# Touches of the run's files in an uninterrupted run; the last kills fall near its end.
TOUCHES = 140


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def uninterrupted(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "whole"
    assert start(model, output) == 0
    return output


def start(model: Path, output: Path, kill_at: int | None = None, after: float | None = None) -> int:
    """Run to the end, to a kill before a touch of the files, or to a kill after seconds; the exit code."""
    config = toy.toy_config(model, output).model_dump(mode="json")
    process = FORKS.Process(target=toy.run_until_killed, args=(config, kill_at))
    process.start()
    process.join(after)
    if after is not None:
        process.kill()
        process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode


def contents(run: Path) -> dict[str, bytes]:
    """All that must be equal: everything but wall times and where the run is."""
    paths = (path for path in run.rglob("*") if path.is_file())
    files = {str(path.relative_to(run)): path.read_bytes() for path in paths}
    del files["timing.jsonl"], files["config.yaml"]
    for name in files:
        if name.endswith("state.json"):
            state = json.loads(files[name])
            del state["journals"]["timing.jsonl"]
            files[name] = json.dumps(state).encode()
    return files


@pytest.mark.parametrize("seed", range(5))
def test_killed_and_resumed_is_never_stopped(
    model: Path, uninterrupted: Path, tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    output, kills = tmp_path / "run", 0
    while kills < 3:  # each time further on, or in the midst of resuming
        kills += start(model, output, kill_at=draw.randrange(1, TOUCHES)) != 0 or 3
    start(model, output)
    assert contents(output) == contents(uninterrupted)


def test_killed_at_any_time_between(model: Path, uninterrupted: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    for after in (0.15, 0.3, 0.5):
        start(model, output, after=after)
    start(model, output)
    assert contents(output) == contents(uninterrupted)


MEASURED = {"style": "compact", "max_prompt_tokens": 2048, "credit": "measured"}
SWITCH = {"n": 3, "success": 0.25}
PLAYBOOK = {"samples": 2, "playbook": True}


@pytest.mark.parametrize(
    "changes",
    [
        {
            "context": MEASURED | {"author": "teacher"},
            "switch": SWITCH | {"to": "srpo"},
            "evaluation": PLAYBOOK,
        },
        {"context": MEASURED, "optimizer": {"learning_rate": 1e-2, "offload": True}, "evaluation": PLAYBOOK},
        {"context": MEASURED | {"mode": "per_example"}, "switch": SWITCH | {"to": "rlsd"}},
        {"context": MEASURED, "lora": {"rank": 2}},
    ],
    ids=["switch", "offload", "per_example", "lora"],
)
def test_lessons_measured_and_runs_switched_go_on_as_they_were(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """Stopped in the midst of updates, with failures that wait for their contrast."""
    monkeypatch.setattr(credit, "MIN_CONTRASTS", 2)
    monkeypatch.setattr(credit, "DECISIVE", 0.01)
    sizes = {"stream": {"batch_size": 2, "updates_per_batch": 4}, "rollout": {"n": 4, "max_tokens": 12}}
    rest = {"checkpoint": {"every_updates": 3}, "logging": {"token_losses": 2}}
    for name, stops in (("whole", []), ("parts", [2, 5, 8])):
        config = toy.toy_config(model, tmp_path / name, **sizes, **rest, **changes)
        for stop in stops:
            stopped(toy.build_toy(config, resume=True), stop)
        toy.build_toy(config, resume=True).train()
    rows = journal.read(tmp_path / "whole" / journal.METRICS)
    assert sum(row.get("context/credits", 0) for row in rows) > 4
    assert any(row.get("training/switched") for row in rows) == ("switch" in changes)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def stopped(stream: Stream, step: int) -> None:
    """Train until the learner is about to make an update too many."""
    update = stream.learner.update

    def interrupted(*words: Any) -> Any:
        if stream.progress.step == step:
            raise KeyboardInterrupt
        return update(*words)

    stream.learner.update = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        stream.train()


def test_a_run_goes_on_from_where_the_disk_was_full(
    model: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, write = toy.toy_config(model, tmp_path / "run"), torch.save
    stream = toy.build_toy(config)

    def full_disk(state: object, path: Path) -> None:
        if stream.progress.step < 4:
            write(state, path)
            return
        path.write_bytes(b"half of it")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")

    monkeypatch.setattr("torch.save", full_disk)
    with pytest.raises(ResdError, match="checkpoints/4: cannot be written"):
        stream.train()
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["2"]
    toy.build_toy(config, resume=True).train()
    assert contents(tmp_path / "run") == contents(uninterrupted)


def test_a_finished_run_stays_as_it_is(model: Path, uninterrupted: Path) -> None:
    before = contents(uninterrupted)
    assert start(model, uninterrupted) == 0
    assert contents(uninterrupted) == before


def test_what_a_checkpoint_holds(uninterrupted: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    newest = checkpoint.latest(uninterrupted / "checkpoints")
    assert newest is not None
    assert newest.name == "6"
    assert [path.name for path in checkpoint.saved(uninterrupted / "checkpoints")] == ["4", "6"]
    assert AutoModelForCausalLM.from_pretrained(newest).num_parameters() > 0
    assert AutoTokenizer.from_pretrained(newest).eos_token == "<|end|>"
    state = checkpoint.load_state(newest)
    assert (state.progress.step, state.progress.batch, state.progress.evaluated) == (6, 3, 6)
    assert state.context is not None
    assert set(saving.read(newest / "state")) == {"optimizer", "teacher"}
    assert not list(uninterrupted.rglob("*.partial"))


def test_the_teacher_and_the_student_have_moved(model: Path, uninterrupted: Path) -> None:
    from safetensors.torch import load_file

    first = load_file(model / "model.safetensors")
    last = load_file(uninterrupted / "checkpoints/6/model.safetensors")
    teacher = saving.read(uninterrupted / "checkpoints/6/state")["teacher"]["model"]
    name = "model.layers.0.mlp.up_proj.weight"
    student_moved = (last[name] - first[name]).norm()
    teacher_moved = (teacher[name] - first[name]).norm()
    assert 0 < teacher_moved < student_moved


@pytest.mark.parametrize(("change", "key"), [({"seed": 1}, "seed"), ({"rollout": {"n": 3}}, "rollout.")])
def test_another_configuration_cannot_resume(
    model: Path, uninterrupted: Path, change: dict[str, object], key: str
) -> None:
    with pytest.raises(ResdError, match=key):
        toy.build_toy(toy.toy_config(model, uninterrupted, **change), resume=True)


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": [2]}) == {"a.b": 1, "a.c": {}, "d": [2]}
