"""The console script: what it prints, how it exits, and what it does not import."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import resd.report
import toy
from conftest import REPOSITORY
from resd import environments
from resd.cli import main
from resd.training import setup
from shapes import QWEN3_4B
from support import save_tiny

RUN = {
    "environment": {"name": "manufactoria", "options": {"family": "has", "prompt": "compact"}},
    "context": {"style": "compact"},
    "stream": {"batch_size": 4},
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose model is only a config.json: enough for all that comes before torch."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    path = tmp_path / "run.yaml"
    path.write_text(
        yaml.safe_dump({**RUN, "model": str(tmp_path / "model"), "output": str(tmp_path / "run")})
    )
    return path


def in_new_process(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the script, then say which heavy packages it has imported."""
    code = (
        "import sys\nfrom resd.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    print('heavy:', [m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])\n"
    )
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one sentence with which the command exits."""
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("resd: ")
    assert message.count("\n") == 1
    return message


def test_help_imports_nothing_heavy() -> None:
    done = in_new_process("--help")
    assert "heavy: []" in done.stdout
    for command in ("train", "evaluate", "export", "playbook", "report", "lab", "data"):
        assert command in done.stdout


def test_a_dry_run_plans_without_torch(config: Path, tmp_path: Path) -> None:
    done = in_new_process("train", str(config), "--dry-run", "stream.max_updates=5", "rollout.n=2")
    assert done.returncode == 0, done.stderr
    assert "heavy: []" in done.stdout
    assert "max_updates: 5" in done.stdout
    assert "40 rollouts" in done.stdout
    assert not (tmp_path / "run").exists()


def test_a_dry_run_looks_ahead(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab = str(REPOSITORY / "examples/lab.yaml")
    main(["train", lab, "--dry-run", "--hardware", "H100", f"output={tmp_path / 'run'}"])
    said = capsys.readouterr().out
    assert "fits into 79.0" in said
    assert "student update" in said


def test_what_cannot_fit_is_refused_before_torch_is_imported(config: Path, tmp_path: Path) -> None:
    large = {**QWEN3_4B, "num_hidden_layers": 10**6}
    (tmp_path / "model/config.json").write_text(json.dumps(large))
    for words in (["--dry-run", "--hardware", "a100"], ["device=cpu"]):
        done = in_new_process("train", str(config), *words)
        assert done.returncode == 2
        assert done.stderr.startswith("resd: memory: the update may take ")
        assert done.stderr.count("\n") == 1
        assert "heavy: []" in done.stdout
    assert not (tmp_path / "run").exists()


def test_hardware_is_for_dry_runs(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "add --dry-run" in fails(capsys, "train", str(config), "--hardware", "h200")
    assert "choose one of" in fails(capsys, "train", str(config), "--dry-run", "--hardware", "abacus")


def test_mistakes_are_told_before_torch_is_imported(config: Path) -> None:
    done = in_new_process("train", str(config), "optimizer.lr=1")
    assert done.returncode == 2
    assert "optimizer.lr" in done.stderr
    assert "heavy: []" in done.stdout


def test_a_bad_file_of_prompts_is_told_before_torch_is_imported(config: Path, tmp_path: Path) -> None:
    (tmp_path / "words.yaml").write_text("titles: {lessons: Lessons}")
    done = in_new_process("train", str(config), f"context.prompts={tmp_path}/words.yaml")
    assert done.returncode == 2
    assert "titles: 'lessons' is not a known key; known: playbook, statistics" in done.stderr
    assert "heavy: []" in done.stdout


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model=/no/such/folder", "no such folder"),
        ("environment.name=chess", "chess"),
        ("environment.options.family=nothing", "nothing"),
        ("environment.options.colour=1", "colour"),
        ("evaluation.split=validation", "validation"),
        ("environment.options.states=7", "as in [2, 6]"),
        ("environment.options.states=[6,2]", "as in [2, 6]"),
        ("output=/dev/null/run", "/dev/null is not a writable folder"),
        ("stream.batch_size=100000", "make the batch smaller"),
        ("algorithm=grpo", "rollout.n"),
        ("context.prompts=/no/such/file", "context.prompts /no/such/file: cannot be read"),
        ("context={mode: per_example, student_playbook: true}", "student_playbook_sync below"),
    ],
)
def test_what_cannot_work(
    config: Path, capsys: pytest.CaptureFixture[str], override: str, words: str
) -> None:
    assert words in fails(capsys, "train", str(config), override)


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_logger_that_is_not_installed(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setattr("resd.training.plan.importlib.util.find_spec", lambda name: None)
    said = fails(capsys, "train", str(config), f"logging.{package}=true")
    assert f"logging.{package}" in said
    assert "resd[loggers]" in said


def test_a_folder_without_a_model(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model/config.json").unlink()
    assert "config.json" in fails(capsys, "train", str(config))


def test_a_run_is_no_model(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tmp_path / "old/checkpoints/8"
    checkpoint.mkdir(parents=True)
    (checkpoint / "config.json").write_text("{}")
    assert str(checkpoint) in fails(capsys, "train", str(config), f"model={tmp_path / 'old'}")


def test_a_playbook_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for source in (tmp_path, tmp_path / "none"):
        assert "the folder of a run" in fails(capsys, "playbook", "show", str(source))


def test_a_lab_model_knows_one_wording(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model/lab.json").write_text(json.dumps({"prompts": "another"}))
    assert "context.style to compact" in fails(capsys, "train", str(config))


def test_an_output_that_is_not_empty(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thesis.tex").write_text("")
    assert "not empty; choose" in fails(capsys, "train", str(config))
    assert "not empty; choose" in fails(capsys, "train", str(config), "--resume")
    (tmp_path / "run/config.yaml").write_text("")
    assert "--resume" in fails(capsys, "train", str(config))


def test_unknown_options_are_errors(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["train", str(config), "--fast"], ["playbook", "show", str(config), "x=1"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2
        assert "unrecognized arguments" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--seed", "3"], "as in seed=3"),
        (["--seed=3"], "as in seed=3"),
        (["--rollout.max-tokens", "64", "seed=1"], "as in rollout.max_tokens=64"),
        (["--fast"], "as in fast=VALUE"),
        (["--fast", "seed=1"], "as in fast=VALUE"),
    ],
)
def test_settings_with_dashes_are_told_how(
    config: Path, capsys: pytest.CaptureFixture[str], words: list[str], hint: str
) -> None:
    with pytest.raises(SystemExit):
        main(["train", str(config), *words])
    assert f"; settings are written without dashes, {hint}\n" in capsys.readouterr().err


def test_an_output_file_is_checked_before_the_work(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for output, words in ((tmp_path, "is a folder"), (tmp_path / "none/x", "cannot be written")):
        command = ("evaluate", "lab", "--config", str(config), "--output", str(output))
        assert words in fails(capsys, *command)
        assert words in fails(capsys, "report", str(tmp_path), "--output", str(output))


def test_a_broken_run_does_not_keep_others_from_being_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("seed: 1")
    (tmp_path / "broken/playbook.jsonl").write_text('{"op": "advance"}\n{"op":\n')
    main(["report", str(tmp_path / "whole"), str(tmp_path / "broken")])
    said = capsys.readouterr()
    assert said.out == f"{tmp_path}/whole/report.html\n"
    assert said.err.startswith(f"resd: warning: {tmp_path}/broken is left out: journal {tmp_path}/broken/")
    assert "playbook.jsonl, line 2: not valid JSON" in said.err
    assert said.err.count("\n") == 1
    assert "playbook.jsonl, line 2" in fails(capsys, "report", str(tmp_path / "broken"))


def test_report_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "config.yaml" in fails(capsys, "report", str(tmp_path))


@pytest.fixture
def toy_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[Any]]:
    """A configuration of the toy task, and the calls for reports."""
    make_engine = setup.make_engine
    monkeypatch.setattr(environments, "load", lambda name, **options: toy.Letters())
    monkeypatch.setattr(setup, "make_engine", lambda *parts: toy.ScriptedWords(make_engine(*parts)))
    reports: list[Any] = []
    monkeypatch.setattr(resd.report, "write_report", lambda *words: reports.append(words) or [])
    data = toy.toy_config(save_tiny(tmp_path / "model"), tmp_path / "run").model_dump(mode="json")
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(data))
    return path, reports


def test_train_evaluate_and_playbook(
    toy_run: tuple[Path, list[Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, reports = toy_run
    main(["train", str(config)])
    said = capsys.readouterr().out
    assert said.count("held out after") == 4
    assert " 6/6" in said
    assert "letters: tests passed, best of 2" in said
    assert reports == [([tmp_path / "run"], tmp_path / "run/report.html")]

    main(["playbook", "show", str(tmp_path / "run")])
    assert "## OTHERS" in capsys.readouterr().out
    main(["playbook", "export", str(tmp_path / "run/playbook.jsonl")])
    assert all(entry["content"].startswith("Lesson") for entry in json.loads(capsys.readouterr().out))

    checkpoint, numbers = tmp_path / "run/checkpoints/6", tmp_path / "numbers.json"
    main(["evaluate", str(checkpoint), "--config", str(config), "--output", str(numbers)])
    last = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    measured = json.loads(numbers.read_text())
    assert measured == {name: last[name] for name in measured}

    main(["report", str(tmp_path / "run"), "--output", str(tmp_path / "all.html")])
    assert reports[-1] == ([tmp_path / "run"], tmp_path / "all.html")


def test_ctrl_c_says_how_to_go_on(
    toy_run: tuple[Path, list[Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, _ = toy_run
    from resd.training.stream import Stream

    def interrupted(*words: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Stream, "update", interrupted)
    with pytest.raises(SystemExit) as stop:
        main(["train", str(config), "seed=0"])
    assert stop.value.code == 130
    message = capsys.readouterr().err
    assert f"resd train {config} seed=0 --resume" in message
    assert message.count("\n") == 1
