"""Runs jobs in separate processes, several at a time. A failure does not stop the others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from resd.experiments.job import JOB, LOG, RESULT, Job, read_json, write_json

POLL = 0.2  # seconds
LOG_LINES = 15  # shown of a run that failed
PATIENCE = 10.0  # seconds between asking a process to stop and making it

Say = Callable[[str], None]
Command = Callable[[Job], Sequence[str]]


def worker_command(job: Job) -> Sequence[str]:
    return [sys.executable, "-m", "resd.experiments.worker", str(job.folder)]


@dataclass
class Pool:
    """At most `width` processes. `say` is called for every run that ends; `failed` are those that failed."""

    width: int
    say: Say
    command: Command = worker_command
    failed: list[Job] = field(default_factory=list)

    def run(self, jobs: Sequence[Job]) -> None:
        """Run unfinished jobs in two waves: those that others need, then the others.

        However it ends, no process is left running.
        """
        self.done, self.total = 0, len(jobs)
        waiting = [job for job in jobs if not job.done]
        if finished := len(jobs) - len(waiting):
            self.done = finished
            self.say(f"{finished} of {len(jobs)} runs are done already")
        for needed in (True, False):
            self._wave([job for job in waiting if (not job.variant.after) == needed])

    def _wave(self, jobs: Sequence[Job]) -> None:
        waiting, running = list(jobs), dict[int, tuple[Job, subprocess.Popen[bytes], float]]()
        try:
            while waiting or running:
                while waiting and len(running) < self.width:
                    process = self._start(job := waiting.pop(0))
                    running[process.pid] = (job, process, time.monotonic())
                time.sleep(POLL)
                for pid, (job, process, started) in list(running.items()):
                    if process.poll() is not None:
                        del running[pid]
                        self._ended(job, process.returncode, time.monotonic() - started)
        finally:
            stop([process for _, process, _ in running.values()])

    def _start(self, job: Job) -> subprocess.Popen[bytes]:
        job.folder.mkdir(parents=True, exist_ok=True)
        write_json(job.folder / JOB, job.data())
        with (job.folder / LOG).open("ab") as log:
            return subprocess.Popen(
                self.command(job),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=surroundings(self.width, os.environ),
            )

    def _ended(self, job: Job, code: int, seconds: float) -> None:
        self.done += 1
        place = f"[{self.done:>{len(str(self.total))}}/{self.total}]"
        if code == 0 and job.done:
            self.say(f"{place} {job.name}: {outcome(job)} ({seconds:.0f} s)")
            return
        self.failed.append(job)
        lines = (job.folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
        end = "".join(f"\n    {line}" for line in lines[-LOG_LINES:])
        self.say(f"{place} {job.name}: failed with {code} after {seconds:.0f} s; the end of its log:{end}")


def surroundings(width: int, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment, with threads limited to a run's share of the cores: more would be far slower."""
    threads = max(1, (os.cpu_count() or 1) // width)
    return {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1", **environment}


def outcome(job: Job) -> str:
    """Held-out success before and after, in a few words."""
    result = read_json(job.folder / RESULT)
    columns = result.get("evaluations", {})
    for name, values in columns.items():
        if name.startswith("reward/mean@"):
            return f"{values[0]:.1%} -> {values[-1]:.1%} after {columns['update'][-1]} updates"
    if found := result.get("discovery"):
        return f"{sum(row['first'] is not None for row in found.values())} of {len(found)} problems solved"
    return "done"


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    end = time.monotonic() + PATIENCE
    for process in processes:
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
