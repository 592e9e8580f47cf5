"""Which configurations may go on in a run folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from resd.config import RunConfig, StreamConfig
from resd.records import ResdError
from resd.training import journal
from resd.training.run_folder import check_folder, hold, open_folder


@pytest.mark.parametrize("resume", [True, False])
def test_a_start_that_failed_is_in_no_ones_way(tmp_path: Path, resume: bool) -> None:
    folder = tmp_path / "run"
    held = hold(folder)
    open_folder(folder, RunConfig())
    for name in (journal.METRICS, journal.PLAYBOOK):
        journal.append(folder / name, [])
    (folder / "tensorboard").mkdir()
    check_folder(folder, RunConfig(seed=1), resume=resume)
    journal.append(folder / journal.METRICS, [{"kind": "evaluation", "step": 0}])
    with pytest.raises(ResdError, match="started with 0, not 1" if resume else "is not empty; add --resume"):
        check_folder(folder, RunConfig(seed=1), resume=resume)
    assert held


@pytest.mark.parametrize("name", ["thesis.tex", "checkpoints/2", "evaluations/0.jsonl"])
def test_results_and_strangers_are_never_written_over(tmp_path: Path, name: str) -> None:
    assert hold(tmp_path)
    open_folder(tmp_path, RunConfig())
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(ResdError, match="is not empty"):
        check_folder(tmp_path, RunConfig(), resume=False)


def test_a_configuration_of_ones_own_is_never_written_over(tmp_path: Path) -> None:
    """Without a lock it is no run that began here."""
    open_folder(tmp_path, RunConfig())
    with pytest.raises(ResdError, match="is not empty"):
        check_folder(tmp_path, RunConfig(), resume=False)


def test_fewer_updates_than_were_made(tmp_path: Path) -> None:
    open_folder(tmp_path, RunConfig())
    (tmp_path / "checkpoints/8").mkdir(parents=True)
    for enough in (None, 8, 9):
        check_folder(tmp_path, RunConfig(stream=StreamConfig(max_updates=enough)), resume=True)
    with pytest.raises(ResdError, match=r"stream\.max_updates 7: .* has already reached update 8; raise it"):
        check_folder(tmp_path, RunConfig(stream=StreamConfig(max_updates=7)), resume=True)


def test_the_same_configuration_goes_on(tmp_path: Path) -> None:
    open_folder(tmp_path / "run", RunConfig())
    check_folder(tmp_path / "run", RunConfig(device="cpu"), resume=True)


def test_another_setting_does_not(tmp_path: Path) -> None:
    open_folder(tmp_path / "run", RunConfig())
    with pytest.raises(ResdError, match=r"seed: .* was started with 0, not 1"):
        check_folder(tmp_path / "run", RunConfig(seed=1), resume=True)


def test_a_setting_younger_than_the_run_had_its_default(tmp_path: Path) -> None:
    open_folder(tmp_path / "run", RunConfig())
    saved = tmp_path / "run" / "config.yaml"
    data = yaml.safe_load(saved.read_text())
    del data["context"]["author"]
    saved.write_text(yaml.safe_dump(data))
    check_folder(tmp_path / "run", RunConfig(), resume=True)
    changed = RunConfig.model_validate({"context": {"author": "teacher"}})
    with pytest.raises(ResdError, match=r"context.author: .* was started with 'student', not 'teacher'"):
        check_folder(tmp_path / "run", changed, resume=True)


def test_options_of_an_environment_are_compared_too(tmp_path: Path) -> None:
    compact = RunConfig.model_validate({"environment": {"options": {"prompt": "compact"}}})
    open_folder(tmp_path / "run", compact)
    check_folder(tmp_path / "run", compact, resume=True)
    for other in (RunConfig(), RunConfig.model_validate({"environment": {"options": {"prompt": "full"}}})):
        with pytest.raises(ResdError, match=r"environment\.options"):
            check_folder(tmp_path / "run", other, resume=True)


HOLDER = """
import sys, time
from pathlib import Path
from resd.training import journal
from resd.training.run_folder import hold
held = hold(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_one_process_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    """Until it ends, however it ends; the same process may go on with its own run."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ResdError, match="another process is at work on this run"):
            hold(tmp_path / "run")
        other.kill()
    ours = hold(tmp_path / "run")
    assert hold(tmp_path / "run")
    assert ours
    check_folder(tmp_path / "run", RunConfig(), resume=False)  # a lock alone is no run
