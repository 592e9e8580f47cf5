"""One run of an experiment, in a separate process: `python -m resd.experiments.worker FOLDER`.

The folder contains a job.json (`job.py`); an interrupted run is resumed; result.json marks it as done.
"""

from __future__ import annotations

import datetime
import fcntl
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from resd.config import RunConfig, load_config
from resd.experiments import machine, measures
from resd.experiments.faults import Faults, FaultyEngine
from resd.experiments.job import JOB, RESULT, RUN, read_json, write_json
from resd.experiments.summary import rounded, summarize_run
from resd.records import ResdError
from resd.training import setup
from resd.training.console import console_sink
from resd.training.plan import check_run
from resd.training.stream import Stream


def main(folder: Path) -> None:
    """Do the job, unless another process is doing it. Raises ResdError for errors that the user can fix."""
    job = read_json(folder / JOB)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ResdError(f"{folder}: another process is at work on this run; wait for it") from error
        config = configure(job, folder)
        result = train(job, config) if not job["effort"] else measures.solve(job, config, folder)
        write_json(folder / RESULT, {"job": job, "made": provenance(job, config), **rounded(result)})
    # Some 100 MB, and nobody goes on from it.
    shutil.rmtree(folder / RUN / "checkpoints", ignore_errors=True)


def configure(job: Mapping[str, Any], folder: Path) -> RunConfig:
    own = [f"seed={job['seed']}", f"device={job['device']}"]
    config = load_config(job["config"], [*job["overrides"], *own])
    return config.model_copy(update={"output": str(folder / RUN)})


def train(job: Mapping[str, Any], config: RunConfig) -> dict[str, Any]:
    """The numbers of a run, resumed if it had begun."""
    stream = prepare(config, Faults(**job["faults"]))
    stream.train()
    for sink in stream.sinks:
        sink.close()
    extra = {"skills": measures.skills(stream)} if job["measure"] == "skills" else {}
    return {**summarize_run(stream.folder), **extra}


def prepare(config: RunConfig, faults: Faults) -> Stream:
    """The run, its context engine spoiled as `faults` says."""
    _, plan = check_run(config)
    stream = setup.build(config, resume=True, watch=console_sink(Console(), plan.updates))
    if stream.context and faults != Faults():
        stream.context.engine = FaultyEngine(stream.context.engine, faults, config.seed)
    return stream


def provenance(job: Mapping[str, Any], config: RunConfig) -> dict[str, Any]:
    """What is on record about how the numbers were made."""
    return {
        **job["made"],
        "machine": machine.machine_kind(setup.find_device(config).type),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": machine.versions(),
    }


def run(arguments: Sequence[str]) -> None:
    try:
        main(Path(arguments[0]))
    except ResdError as error:
        raise SystemExit(f"resd: {error}") from error


if __name__ == "__main__":
    run(sys.argv[1:])
