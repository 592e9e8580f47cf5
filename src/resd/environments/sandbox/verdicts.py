"""From what a child's processes left behind to a `Result`."""

from __future__ import annotations

import os
from typing import Any

from resd.environments.sandbox.jobs import MAX_PROGRAM, Job, Limits, Result, Status
from resd.environments.sandbox.payload import read_lines
from resd.environments.sandbox.worker import Run

_LIMITS: dict[str, Status] = {
    "cpu": "cpu_limit",
    "wall": "wall_limit",
    "output": "output_limit",
    "lost": "killed",
    "stopped": "killed",
}

_LEAST = 1e-3  # seconds


def refused(job: Job) -> Result | None:
    """The result of a program that is not worth starting."""
    if len(job.program) <= MAX_PROGRAM:
        return None
    text = f"the program has {len(job.program)} characters; at most {MAX_PROGRAM} are run\n"
    return Result("error", [], "", text, 0.0)


def remaining(limits: Limits, runs: list[Run]) -> Limits:
    """For the next run of a script. Never nothing: that run then ends at once, with its status."""
    return Limits(
        cpu_s=max(limits.cpu_s - sum(run.cpu_s for run in runs), _LEAST),
        wall_s=max(limits.wall - sum(run.wall_s for run in runs), _LEAST),
        memory_mb=limits.memory_mb,
        output_bytes=max(limits.output_bytes - sum(len(run.stdout) + len(run.stderr) for run in runs), 1),
    )


def calls_result(job: Job, run: Run) -> Result:
    """Of a program whose function was called."""
    lines, well_formed = read_lines(bytes(run.results), len(job.calls), cut=run.reason != "exit")
    code = os.waitstatus_to_exitcode(run.status)
    stderr = _text(run.stderr)
    status: Status
    if run.reason != "exit":
        status = _LIMITS[run.reason]
    elif not well_formed:
        status = "bad_payload"
    elif lines.memory:
        status = "memory_limit"
    elif code == 3 and not lines.values:
        status = "error"  # it could not be loaded
    elif not lines.complete or len(lines.values) != len(job.calls):
        status = "killed"
        stderr += _ended_early(code, len(lines.values))
    else:
        status = "error" if any(error is not None for error in lines.errors) else "ok"
    return Result(status, lines.values, _text(run.stdout), stderr, run.cpu_s, lines.errors, run.wall_s)


def _ended_early(code: int, finished: int) -> str:
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"the program ended by itself ({how}) after {finished} finished calls\n"


def script_result(job: Job, runs: list[Run]) -> Result:
    """Of a program that was run as a script, once per call."""
    values: list[Any] = []
    errors: list[str | None] = []
    status: Status = "ok"
    stderr = ""
    for run in runs:
        stderr += _text(run.stderr)
        ended, error, note = _script_status(run)
        stderr += note
        if ended not in ("ok", "error"):
            status = ended
            break
        if ended == "error":
            status = "error"
        values.append(_text(run.stdout) if error is None else None)
        errors.append(error)
    cpu, wall = sum(run.cpu_s for run in runs), sum(run.wall_s for run in runs)
    return Result(status, values, "", stderr, cpu, errors, wall)


def _script_status(run: Run) -> tuple[Status, str | None, str]:
    """Status, the error in short, and a line for standard error."""
    if run.reason != "exit":
        return _LIMITS[run.reason], None, ""
    lines, well_formed = read_lines(bytes(run.results), 1, cut=False)
    if not well_formed:
        return "bad_payload", None, ""
    if lines.memory:
        return "memory_limit", None, ""
    code = os.waitstatus_to_exitcode(run.status)
    if code == 0 and not lines.values:
        return "ok", None, ""
    if code == 3 and lines.errors and lines.errors[0] is not None:
        return "error", lines.errors[0], ""
    return "killed", None, _ended_early(code, 0)


def _text(data: bytearray) -> str:
    return data.decode("utf-8", "replace")
