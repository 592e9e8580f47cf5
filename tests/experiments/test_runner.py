"""Processes: several at a time, what fails, what is stopped, what is done already."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from resd.experiments.definition import Experiment, Variant
from resd.experiments.job import JOB, RESULT, Job, make_jobs
from resd.experiments.runner import Pool, surroundings
from resd.records import ResdError

# Writes down when it began and ended, then does what its variant is called after.
FAKE = """
import json, os, pathlib, sys, time
folder, root = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[1]).parent.parent
job = json.loads((folder / "job.json").read_text())
begun = time.time()
(folder / "begun").write_text(str(os.getpid()))
print("says", job["variant"], flush=True)
if job["variant"] == "fails":
    print("for this reason", flush=True); sys.exit(3)
if job["variant"] == "silent":
    sys.exit(0)
if job["after"]:
    assert (root / job["after"] / "1000/result.json").is_file()
time.sleep(60 if job["variant"] == "slow" else 0.3)
result = {"job": job, "made": job["made"], "at": [begun, time.time()]}
(folder / "result.json").write_text(json.dumps(result))
"""


def fake(job: Job) -> Sequence[str]:
    return [sys.executable, "-c", FAKE, str(job.folder)]


def jobs(root: Path, *names: str, seeds: Sequence[int] = (0,), **changes: object) -> list[Job]:
    variants = tuple(
        Variant(name, (), "why", after="first" if name == "second" else "", seed={"first": 1000}.get(name))
        for name in names
    )
    given = {"config": "a/lab.yaml", "overrides": [], "device": "cpu", "made": {"command": "c"}} | changes
    return make_jobs(Experiment("toy", "", "", variants), variants, seeds, root=root, **given)  # type: ignore[arg-type]


def run(jobs: Sequence[Job], width: int = 4) -> tuple[Pool, list[str]]:
    said: list[str] = []
    pool = Pool(width, said.append, fake)
    pool.run(jobs)
    return pool, said


def times(job: Job) -> tuple[float, float]:
    begun, ended = json.loads((job.folder / RESULT).read_text())["at"]
    return begun, ended


def test_no_more_at_a_time_than_asked_for(tmp_path: Path) -> None:
    todo = jobs(tmp_path, "a", "b", seeds=(0, 1))
    pool, said = run(todo, width=2)
    spans = [times(job) for job in todo]
    assert max(sum(begun <= at < ended for begun, ended in spans) for at, _ in spans) == 2
    assert not pool.failed
    assert [line[:5] for line in said] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]


def test_a_failure_is_told_with_its_reason_and_stops_nobody(tmp_path: Path) -> None:
    todo = jobs(tmp_path, "fails", "silent", "fine")
    pool, said = run(todo)
    assert sorted(job.variant.name for job in pool.failed) == ["fails", "silent"]
    assert [job.done for job in todo] == [False, False, True]
    (told,) = [line for line in said if "fails, seed 0: failed with 3" in line]
    assert told.endswith("says fails\n    for this reason")
    again, said = run(todo)
    assert said[0] == "1 of 3 runs are done already"
    assert len(said) == 3
    assert len(again.failed) == 2


def test_what_others_need_comes_first(tmp_path: Path) -> None:
    todo = jobs(tmp_path, "second", "first", seeds=(0, 1))
    assert [(job.variant.name, job.seed) for job in todo] == [("first", 1000), ("second", 0), ("second", 1)]
    pool, _ = run(todo)
    assert not pool.failed


def test_a_result_of_other_settings_is_not_taken_for_this_one(tmp_path: Path) -> None:
    run(jobs(tmp_path, "a"))
    elsewhere = {"config": "b/lab.yaml", "device": "cuda", "made": {"command": "d"}}
    assert all(job.done for job in jobs(tmp_path, "a", **elsewhere))
    for changes in ({"overrides": ["seed=2"]}, {"config": "a/other.yaml"}):
        with pytest.raises(ResdError, match=r"result\.json: was run with"):
            run(jobs(tmp_path, "a", **changes))


@pytest.mark.parametrize("ask", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_running(tmp_path: Path, ask: signal.Signals) -> None:
    """A process that is asked to stop takes its runs with it."""
    body = (
        "import pathlib, sys; sys.path.insert(0, sys.argv[2])\n"
        "import test_runner\nfrom resd.experiments.commands import terminable\n"
        "with terminable():\n"
        "    test_runner.run(test_runner.jobs(pathlib.Path(sys.argv[1]), 'slow', seeds=(0, 1)))\n"
    )
    words = [sys.executable, "-c", body, str(tmp_path), str(Path(__file__).parent)]
    parent = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    begun = [tmp_path / "slow" / seed / "begun" for seed in "01"]
    wait_until(lambda: all(path.is_file() and path.read_text() for path in begun))
    parent.send_signal(ask)
    assert parent.wait(15) != 0
    wait_until(lambda: not any(alive(int(path.read_text())) for path in begun))


def wait_until(true) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_threads_are_shared_out_unless_somebody_has_decided() -> None:
    cores = os.cpu_count() or 1
    assert surroundings(1, {})["OMP_NUM_THREADS"] == str(cores)
    assert surroundings(4 * cores, {})["OMP_NUM_THREADS"] == "1"
    assert (
        surroundings(1, {"OMP_NUM_THREADS": "7", "A": "b"}).items()
        >= {"OMP_NUM_THREADS": "7", "A": "b"}.items()
    )


def test_a_variants_own_settings_come_last(tmp_path: Path) -> None:
    variant = Variant("v", ("x=3",), "why")
    experiment = Experiment("toy", "", "", (variant,), common=("x=1",))
    (job,) = make_jobs(
        experiment, [variant], [5], root=tmp_path, config="c", overrides=["x=2"], device="cpu", made={}
    )
    assert job.overrides == ("x=1", "x=2", "x=3")
    assert job.folder == tmp_path / "v" / "5"
    assert JOB not in {path.name for path in tmp_path.rglob("*")}
