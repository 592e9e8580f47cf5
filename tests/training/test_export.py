"""Exported folders are plain models with the trainer's logits."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

import toy
from resd.cli import main
from resd.records import ResdError
from resd.training import checkpoint, export
from resd.training.stream import Stream
from support import save_tiny

IDS = torch.tensor([[5, 6, 7, 8]])
LORA = {"rank": 2, "alpha": 8}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module", params=[None, LORA], ids=["whole", "adapters"])
def trained(request: Any, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Stream:
    lora = {"lora": request.param} if request.param else {}
    stream = toy.build_toy(toy.toy_config(model, tmp_path_factory.mktemp("runs") / "run", **lora))
    stream.train()
    return stream


def logits(folder: Path) -> torch.Tensor:
    """As anyone loads it."""
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(folder)
    made: torch.Tensor = loaded(input_ids=IDS).logits.detach()
    return made


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_trainers_logits(trained: Stream, tmp_path: Path, dtype: str) -> None:
    from transformers import AutoTokenizer

    output = tmp_path / "new/model"
    main(["export", str(trained.folder), str(output), "--dtype", dtype])
    with torch.no_grad():
        expected = trained.learner.model(input_ids=IDS).logits
    exact = dtype == "float32"
    torch.testing.assert_close(
        logits(output).float(), expected, **({} if exact else {"atol": 0.05, "rtol": 0})
    )
    assert json.loads((output / "config.json").read_text())["dtype"] == dtype
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files(output)
    assert not {"state", "adapter_config.json"} & files(output)
    assert AutoTokenizer.from_pretrained(output).eos_token == "<|end|>"
    assert files(tmp_path / "new") == {"model"}


def test_the_teachers_logits(trained: Stream, tmp_path: Path) -> None:
    newest = trained.folder / "checkpoints/6"
    main(["export", str(newest), str(tmp_path / "teacher"), "--teacher"])
    with torch.no_grad():
        expected = trained.learner.teacher.model(input_ids=IDS).logits
    torch.testing.assert_close(logits(tmp_path / "teacher"), expected)
    main(["export", str(newest), str(tmp_path / "student")])
    assert not torch.allclose(logits(tmp_path / "student"), expected, atol=1e-4)


@pytest.mark.parametrize(("kind", "lora"), [("live", {"rank": None}), ("frozen", LORA)])
def test_a_teacher_without_weights(model: Path, tmp_path: Path, kind: str, lora: Any) -> None:
    stream = {"batch_size": 2, "updates_per_batch": 2, "max_updates": 1}
    config = toy.toy_config(model, tmp_path / "run", teacher={"kind": kind}, lora=lora, stream=stream)
    toy.build_toy(config).train()
    with pytest.raises(ResdError, match="keeps no weights for its teacher"):
        export.write_model(
            tmp_path / "run/checkpoints/1", tmp_path / "out", dtype=torch.float32, teacher=True
        )
    assert not (tmp_path / "out").exists()
    with pytest.raises(ResdError, match="is not a checkpoint of a run"):
        export.load_teacher(model, torch.float32)


def run_with(folder: Path, checkpoints: list[int], scores: dict[int, float]) -> Path:
    for step in checkpoints:
        (folder / f"checkpoints/{step}").mkdir(parents=True)
        (folder / f"checkpoints/{step}/config.json").write_text("{}")
    rows = [{"kind": "evaluation", "step": s, "val/x/reward/mean@4": v} for s, v in scores.items()]
    rows.append({"kind": "update", "step": 9, "val/x/reward/mean@4": 7.0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_which_checkpoint(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", [2, 4, 6, 8, 9], {0: 0.9, 2: 0.1, 4: 0.5, 6: 0.5, 8: 0.3})
    assert export.choose(run).name == "9"
    assert export.choose(run, best=True).name == "6"
    assert export.choose(run / "checkpoints/4").name == "4"
    with pytest.raises(ResdError, match="is one checkpoint"):
        export.choose(run / "checkpoints/4", best=True)
    other = run_with(tmp_path / "other", [3, 5], {0: 0.9, 4: 0.5})
    with pytest.raises(ResdError, match=r"none of the checkpoints .* \(3, 5\); evaluations were after 0, 4"):
        export.choose(other, best=True)
    for nothing in (tmp_path, tmp_path / "none"):
        with pytest.raises(ResdError, match="is neither a checkpoint nor a run that has one"):
            export.choose(nothing)


def test_the_best_is_said_to_be_chosen(
    trained: Stream, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["export", str(trained.folder), str(tmp_path / "best"), "--best"])
    said = capsys.readouterr().out
    assert ", the best on split test, in float32: " in said
    assert "measure it on other problems" in said
    main(["export", str(trained.folder), str(tmp_path / "newest")])
    assert "split" not in capsys.readouterr().out
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("seed: 1")
    run_with(tmp_path / "run", [2], {2: 0.5})
    with pytest.raises(SystemExit):
        main(["export", str(tmp_path / "run"), str(tmp_path / "other"), "--best"])
    assert "config.yaml cannot be read" in capsys.readouterr().err


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_with(tmp_path / "run", [2], {})
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("")
    for output, words in (("full", "is not empty"), ("full/thesis.tex", "is a file")):
        with pytest.raises(SystemExit):
            main(["export", str(run), str(tmp_path / output)])
        assert words in capsys.readouterr().err


def test_an_export_to_a_full_disk(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full_disk(self: Any, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", full_disk)
    with pytest.raises(SystemExit):
        main(["export", str(model), str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert f"resd: export {tmp_path}/out: cannot be written (No space left on device); make room" in said
    assert said.count("\n") == 1
    assert not files(tmp_path)


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def full_disk(folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise OSError("no space left")

    (tmp_path / "out").mkdir()
    with pytest.raises(OSError, match="no space"):
        checkpoint.write_folder(tmp_path / "out", full_disk)
    assert files(tmp_path / "out") == set()
    checkpoint.write_folder(tmp_path / "out", lambda folder: (folder / "x").touch())
    assert files(tmp_path / "out") == {"x"}
    assert files(tmp_path) == {"out"}
