"""Replies graded, and jobs run, several at once as in a run."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from resd.environments.base import Environment
from resd.environments.sandbox import Job, Result, Sandbox
from resd.records import Problem, Response, Verdict
from resd.training.rollout import grading


def graded(
    environment: Environment, problems: Sequence[Problem], replies: Sequence[Response | str]
) -> list[Verdict]:
    """Verdicts in the order of the replies."""
    with grading(environment) as grade:
        waited = [grade(*pair) for pair in zip(problems, replies, strict=True)]
        return [verdict() for verdict in waited]


def run_jobs(sandbox: Sandbox, jobs: Sequence[Job]) -> list[Result]:
    """The jobs' results in their order, as many at a time as the sandbox has workers."""

    def run(job: Job) -> Result:
        return sandbox.run(job.program, job.entry, job.calls, job.limits)

    with ThreadPoolExecutor(max_workers=max(1, min(sandbox.workers, len(jobs)))) as pool:
        return list(pool.map(run, jobs))
