"""The sandbox: jobs in, results out."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Sequence
from typing import Any

from resd.environments.sandbox.isolation import LEVELS, Isolation, check_level, places, refusal
from resd.environments.sandbox.jobs import SCRIPT, Job, Limits, Result
from resd.environments.sandbox.verdicts import calls_result, refused, remaining, script_result
from resd.environments.sandbox.worker import LauncherError, Run, Worker
from resd.records import ResdError

_TRIES = 3


class Sandbox:
    """Runs programs that nobody has read, on `workers` processes (None: one per core).

    Nothing starts before the first job. Usable from several threads; a copy, or a forked child of this
    process, starts workers of its own. `isolation`: "strongest" takes the best that the host offers and
    raises ResdError, at the first job, where that is too little; "landlock" does without namespaces; "weak"
    is a separate process with limits on time and memory and nothing else: programs can read and write files
    and reach the network. `packages` are names of installed packages, such as "numpy", that programs
    may import beyond the standard library; they are loaded once per worker.
    """

    def __init__(
        self, isolation: str = "strongest", workers: int | None = None, packages: Sequence[str] = ()
    ) -> None:
        check_level(isolation)
        self._packages = places(packages)
        if workers is not None and workers < 1:
            raise ResdError(f"sandbox: workers is {workers}; give 1 or more, or None for one per core")
        self._level = isolation
        self.workers = workers or len(os.sched_getaffinity(0))
        self._fresh()

    def _fresh(self) -> None:
        self._pid = os.getpid()
        self._free = threading.Semaphore(self.workers)
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._all: set[Worker] = set()
        self._wanted: Sequence[str] | None = None
        self._isolation: Isolation | None = None
        weakref.finalize(self, _close_all, self._all, self._pid)

    def __getstate__(self) -> dict[str, Any]:
        return {"isolation": self._level, "workers": self.workers, "packages": list(self._packages)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers. The next job starts new ones."""
        self._own()
        with self._lock:
            _close_all(self._all, self._pid)
            self._all.clear()
            self._idle.clear()

    @property
    def isolation_in_use(self) -> str:
        """Such as "namespaces, Landlock 7, seccomp, uid 65534". Starts a worker if none has run yet."""
        self._own()
        if self._isolation is None:
            self._put(self._take())
        return str(self._isolation)

    def run(
        self, program: str, entry: str, calls: Sequence[Sequence[Any]], limits: Limits | None = None
    ) -> Result:
        """Run one job. Raises ResdError only for a bad job or an insufficient host, never for the program."""
        job = Job(program, entry, calls, limits or Limits())
        self._own()
        if (why := refused(job)) is not None:
            return why
        if job.entry == SCRIPT:
            return self._run_script(job)
        return calls_result(job, self._child(job.request(), b"", job.limits))

    def _run_script(self, job: Job) -> Result:
        request = job.request()
        runs: list[Run] = []
        for call in job.calls:
            left = remaining(job.limits, runs)
            runs.append(self._child(request, call[0].encode("utf-8", "surrogateescape"), left))
            if script_result(job, runs).status not in ("ok", "error"):
                break
        return script_result(job, runs)

    def _child(self, request: bytes, stdin: bytes, limits: Limits) -> Run:
        with self._free:
            worker, lost = self._take(), True
            try:
                run = worker.run(request, stdin, limits)
                lost = run.reason == "lost"
            finally:  # also when interrupted: the job may still run
                self._put(worker, lost)
        return run

    def _own(self) -> None:
        if self._pid != os.getpid():
            for worker in self._all:
                worker.forget()
            self._fresh()

    def _take(self) -> Worker:
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.alive:
                    return worker
                worker.close()
                self._all.discard(worker)
        return self._start()

    def _put(self, worker: Worker, lost: bool = False) -> None:
        if lost:
            worker.close()
        with self._lock:
            if lost:
                self._all.discard(worker)
            else:
                self._idle.append(worker)

    def _start(self) -> Worker:
        reasons: list[str] = []
        # What worked before may fail for a moment: too many processes, too little memory.
        again = None if self._wanted is None else [self._wanted] * _TRIES
        for wanted in again or LEVELS[self._level]:
            try:
                worker = Worker(wanted, self._packages)
            except LauncherError as error:
                reasons.append(f"{' and '.join(wanted) or 'limits'}: {error}")
                continue
            if worker.isolation.sufficient or self._level == "weak":
                with self._lock:
                    self._wanted, self._isolation = wanted, worker.isolation
                    self._all.add(worker)
                return worker
            reasons.append(f"only {worker.isolation}")
            worker.close()
        raise refusal(reasons)


def _close_all(workers: set[Worker], pid: int) -> None:
    if pid == os.getpid():
        for worker in workers:
            worker.close()
