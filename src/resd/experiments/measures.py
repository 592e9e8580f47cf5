"""Measurements in addition to a run's journals: skills of the lab model, and work on hard problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from resd.config import RunConfig
from resd.environments.base import Environment
from resd.environments.manufactoria import Manufactoria
from resd.experiments.job import RESULT, read_json
from resd.lab.evaluate import Bench as LabBench
from resd.lab.evaluate import evaluate
from resd.records import Attempt, Problem, ResdError, Response
from resd.solve.bench import Bench, open_bench
from resd.solve.discovery import count_successes, discover
from resd.solve.effort import Effort
from resd.training import journal
from resd.training.stream import Stream

SAMPLES = 4  # tries at each problem when skills are measured
HARDEST = 6  # problems
DONE = "solved.jsonl"


def skills(stream: Stream) -> dict[str, float]:
    """The results of `resd lab evaluate` for the current weights, role by role.

    All models are shown the untrained model's failures, from the run's first evaluation: their own would
    differ, and would be few for good models.
    """
    environment = Manufactoria(family="has", prompt="compact")
    bench = LabBench(stream.engine, stream.tokenizer, SAMPLES, 0, environment)
    with stream.engine.awake():
        return evaluate(bench, first_failures(stream.folder, environment))


def first_failures(folder: Path, environment: Environment) -> list[Attempt]:
    """Failed samples of the evaluation before a run's first update, graded again."""
    problems = {problem.id: problem for problem in environment.problems("test")}
    attempts = []
    for row in journal.read(folder / journal.EVALUATIONS / "0.jsonl"):
        response = Response("", row["text"], (), (), row["finish_reason"])
        verdict = environment.grade(problems[row["problem"]], response)
        attempts.append(Attempt(problems[row["problem"]], row["sample"], (), response, verdict))
    return [attempt for attempt in attempts if not attempt.verdict.solved]


def solve(job: Mapping[str, Any], config: RunConfig, folder: Path) -> dict[str, Any]:
    """Count successes at all test problems, or work on the hardest ones. Resumes if it was interrupted."""
    effort = Effort(**job["effort"])
    bench = open_bench(config, learns=effort.method == "self_distill")
    if job["measure"] == "counts":
        problems = bench.environment.problems(config.evaluation.split)[: config.evaluation.limit]
        counts = count_successes(bench, problems, effort.budget, job["seed"])
        return {"counts": {count.problem: count.solved for count in counts}, "samples": effort.budget}
    needed = folder.parent.parent / job["after"]
    return {"discovery": work_on(bench, effort, hardest(needed), job["seed"], folder / DONE)}


def work_on(
    bench: Bench, effort: Effort, names: list[str], seed: int, path: Path
) -> dict[str, dict[str, Any]]:
    """The cost of each problem. Those in the file at `path` are done; the others are added to it."""
    done = {row["problem"] for row in journal.read(path)}
    for problem in problems_of(bench, names):
        if problem.id not in done:
            (result,) = discover(bench, effort, [problem], [seed])
            row = {key: asdict(result)[key] for key in ("problem", "first", "attempts", "tokens", "seconds")}
            journal.append(path, [row])
            print(row, flush=True)
    rows = {row.pop("problem"): row for row in journal.read(path)}
    return {name: rows[name] for name in names}


def problems_of(bench: Bench, names: list[str]) -> list[Problem]:
    by_id = {problem.id: problem for problem in bench.environment.problems(bench.config.evaluation.split)}
    return [by_id[name] for name in names]


def hardest(folder: Path) -> list[str]:
    """The problems with the fewest successes among the counts of a variant, whatever its seed; ties by id."""
    results = sorted(folder.glob(f"*/{RESULT}"))
    if not results:
        raise ResdError(f"{folder}: there are no counts; run the variant {folder.name} first")
    counts: dict[str, int] = read_json(results[0])["counts"]
    return sorted(counts, key=lambda name: (counts[name], name))[:HARDEST]
