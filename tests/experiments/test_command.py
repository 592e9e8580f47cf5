"""The whole way with toys: run, be stopped, go on, collect, print."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml

import toy
from conftest import REPOSITORY
from resd.cli import main
from resd.context.playbook import load_playbooks
from resd.experiments import catalog, commands, machine, worker
from resd.experiments.definition import Experiment, Variant
from resd.experiments.faults import Faults
from resd.experiments.job import JOB, RESULT, RUN, read_json, write_json
from resd.experiments.lives import is_wrong
from resd.experiments.results import load
from resd.experiments.summary import summarize_run
from resd.training import journal
from support import save_tiny

TOY = Experiment(
    "toy",
    "Toy",
    "What?",
    (
        Variant("resd", (), "the one"),
        Variant("spoiled", (), "wrong lessons alone", faults=Faults(wrong_lessons=1.0)),
        Variant("broken", ("rollout.temperature=1.5", "model=nowhere"), "no such model"),
    ),
    reference="resd",
)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe of seconds, with an environment that a process of its own finds."""
    config = toy.toy_config(save_tiny(tmp_path / "model"), tmp_path / "unused", rollout={"max_tokens": 8})
    data = config.model_dump(mode="json")
    data["environment"]["name"] = "toy:Letters"
    data["context"] |= {"max_reflection_tokens": 128, "max_curation_tokens": 128}
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(data))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "tests"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(catalog, "EXPERIMENTS", (TOY,))
    return path


def job_of(folder: Path, recipe: Path, variant: Variant, **changes: object) -> Path:
    folder.mkdir(parents=True)
    data = {
        "experiment": "toy",
        "variant": variant.name,
        "seed": 3,
        "config": str(recipe),
        "overrides": ["stream.max_updates=3"],
        "faults": vars(variant.faults),
        "measure": "",
        "effort": None,
        "after": "",
        "device": "cpu",
        "made": {"command": "c", "commit": "x"},
    }
    write_json(folder / JOB, data | changes)
    return folder


def test_the_whole_command(recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Two runs at a time in processes of their own; given again, nothing is run again."""
    out = tmp_path / "out"
    words = ["experiment", "run", "toy", "--config", str(recipe), "--seeds", "4", "--jobs", "2"]
    words += ["--device", "cpu", "--output", str(out), "--updates", "2", "--only", "resd,spoiled"]
    words += ["--commit", "v9", "evaluation.samples=3"]
    main(words)
    told = capfd.readouterr().out
    assert re.search(r"\[2/2\] \w+, seed 4: \d+\.\d% -> \d+\.\d% after 2 updates", told)
    results = load(out / "results.json")
    assert [(run["variant"], run["seed"], run["made"]) for run in results.runs] == [
        ("resd", 4, 0),
        ("spoiled", 4, 0),
    ]
    (made,) = results.made
    command = "resd experiment run toy evaluation.samples=3 --seeds 4 --updates 2 --only resd,spoiled"
    assert made["command"] == f"{command} --config toy.yaml --jobs 2"
    assert made["commit"] == "v9"
    assert results.runs[0]["settings"] == ["stream.max_updates=2", "evaluation.samples=3"]
    assert results.runs[0]["evaluations"]["update"] == [0, 2]
    assert str(tmp_path) not in (out / "results.json").read_text()
    assert not list(out.glob(f"*/*/{RUN}/checkpoints"))
    log = (out / "resd/4/log.txt").read_text()
    assert "held out after 2" in log

    main(words)
    assert "2 of 2 runs are done already" in capfd.readouterr().out
    assert (out / "resd/4/log.txt").read_text() == log

    moved = shutil.copytree(out, tmp_path / "moved", ignore=shutil.ignore_patterns(RUN))
    shutil.rmtree(moved / "spoiled")
    main(["experiment", "collect", "toy", "--output", str(moved), "--results", str(tmp_path / "r.json")])
    (run,) = load(tmp_path / "r.json").runs
    assert run == results.runs[0]
    main(["experiment", "table", str(tmp_path / "r.json")])
    assert "| resd | 1 | " in capfd.readouterr().out


def test_a_run_goes_on_and_ends_as_if_it_had_never_stopped(recipe: Path, tmp_path: Path) -> None:
    whole = job_of(tmp_path / "whole", recipe, TOY.variants[0])
    halves = job_of(tmp_path / "halves", recipe, TOY.variants[0])
    worker.main(whole)
    job = read_json(halves / JOB)
    first = worker.prepare(worker.configure(job, halves), Faults())
    while first.progress.step < 2:
        first.update(first.batches[first.progress.batch])
    first.save()
    worker.main(halves)
    one, other = read_json(whole / RESULT), read_json(halves / RESULT)
    for result in (one, other):
        assert result["series"].pop("seconds")
        result["evaluations"] = {key: column[-1] for key, column in result["evaluations"].items()}
    assert one == other


def test_a_summary_is_what_the_files_of_the_run_say(recipe: Path, tmp_path: Path) -> None:
    folder = job_of(tmp_path / "run", recipe, TOY.variants[1])
    with toy.in_place():  # replies of the context engine that can be read
        worker.main(folder)
    found, run = read_json(folder / RESULT), folder / RUN
    rows = [row for step in (1, 2, 3) for row in journal.read(run / journal.ROLLOUTS / f"{step}.jsonl")]
    tokens = Counter[str]()
    for row in rows:
        tokens[row.get("role", "attempt")] += row["tokens"]
    series = found["series"]
    assert len(series["seconds"]) == 3
    assert sum(series["rollouts"]) == sum(row["kind"] == "attempt" for row in rows) == 6
    named = {"tokens": "attempt", "reflect_tokens": "reflect", "tag_tokens": "tag", "curate_tokens": "curate"}
    assert {name: sum(series[name]) for name in named if name in series} == {
        name: tokens[role] for name, role in named.items() if role in tokens
    }
    book = load_playbooks(run / journal.PLAYBOOK)[""]
    wrong = [entry for entry in book.entries if is_wrong(entry.content)]
    assert found["playbook"]["entries"] == len(book) == series["entries"][-1]
    assert found["playbook"]["wrong"] == found["wrong_lessons"]["left"] == len(wrong) > 0
    assert found["playbook"]["unknown"] == len(book) - len(wrong), "the toy's own lessons are of no rule"
    evaluated = [row for row in journal.read(run / journal.METRICS) if row["kind"] == "evaluation"]
    assert found["evaluations"]["update"] == [row["step"] for row in evaluated]
    means = [row["val/letters/test_cases/mean@2"] for row in evaluated]
    assert found["evaluations"]["test_cases/mean@2"] == pytest.approx(means, rel=1e-4)
    assert not any("bootstrap" in name or "solved" in name for name in found["evaluations"])
    assert len(json.dumps(found)) < 2500
    assert summarize_run(run)["playbook"] == found["playbook"]


def test_two_processes_never_write_to_one_run(recipe: Path, tmp_path: Path) -> None:
    import fcntl

    folder = job_of(tmp_path / "run", recipe, TOY.variants[0])
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SystemExit, match="another process is at work"):
            worker.run([str(folder)])
    assert not (folder / RUN).exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["run", "nothing"], "experiment nothing: is not known"),
        (["run", "toy", "--seeds", "a"], "--seeds a: give whole numbers"),
        (["run", "toy", "--jobs", "0"], "--jobs 0: give at least 1"),
        (["run", "toy", "--only", "broken"], "model nowhere: no such folder"),
        (["run", "toy", "--only", "resd", "rollout.n=0"], "rollout.n"),
        (["collect", "toy", "--output", ".", "--results", "r.json"], "has no finished run"),
        (["table", "toy"], "results toy: there is no toy, no "),
    ],
)
def test_mistakes_are_told_before_anything_is_run(
    words: list[str],
    reason: str,
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    config = ["--config", str(recipe)] if words[0] == "run" else []
    with pytest.raises(SystemExit) as ended:
        main(["experiment", *words, *config])
    assert ended.value.code == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_list_names_every_variant(capsys: pytest.CaptureFixture[str]) -> None:
    main(["experiment", "list"])
    told = capsys.readouterr().out
    for experiment in catalog.EXPERIMENTS:
        assert f"{experiment.name}: {experiment.question}" in told
        assert all(f"\n  {variant.name} " in told for variant in experiment.variants)


def test_the_recipe_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Path(commands.recipe()).samefile(REPOSITORY / "examples/lab.yaml")


def test_a_machine_says_what_kind_it_is_and_not_which() -> None:
    import platform

    kind = machine.machine_kind("cpu")
    assert re.fullmatch(r".+, \d+ cores", kind)
    assert platform.node() not in kind
    assert set(machine.versions()) == {"python", "resd", "torch", "transformers"}


@pytest.mark.parametrize(
    "settings",
    [
        ("algorithm=ace", "evaluation.playbook=true"),
        ("algorithm=grpo", "rollout.n=2"),
        ("switch.to=grpo", "switch.n=2", "switch.success=0"),
    ],
)
def test_what_other_kinds_of_runs_leave_is_understood(
    recipe: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    """No playbook, weights that stay as they are, more tries from one update on."""
    overrides = ["stream.max_updates=3", *settings]
    folder = job_of(tmp_path / "run", recipe, TOY.variants[0], overrides=overrides)
    with toy.in_place():
        worker.main(folder)
    found = read_json(folder / RESULT)
    assert ("playbook" in found) == ("algorithm=grpo" not in settings)
    tries = [2, 2, 2] if "algorithm=ace" in settings else [4, 4, 4]
    assert found["series"]["rollouts"] == ([2, 4, 4] if "switch.to=grpo" in settings else tries)
    assert len(found["series"]["seconds"]) == len(found["series"]["solved"]) == 3
