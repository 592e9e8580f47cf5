"""The BouncingSim environment: from scenes to verdicts.

A program is judged by the positions that it predicts, by the published rule (`judging`). Differences from the
published grader: the program runs once for all times, in a sandbox that never sees the truth; `cpu_s` covers
all calls together, not each; thinking is stripped before the answer is extracted; only `math` may be
imported; and the causes of a program's end (time, memory, exit, exception) are distinguished.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resd.environments.answers import check_choice, unanswered, wanted, was_cut_off
from resd.environments.base import reply_text
from resd.environments.bouncingsim.feedback import describe
from resd.environments.bouncingsim.generator import LEVELS, generated_rows
from resd.environments.bouncingsim.judging import judge_result, judge_value
from resd.environments.bouncingsim.programs import ENTRY, ProgramError, check_program, extract_program
from resd.environments.bouncingsim.prompts import COLLISIONS, make_prompt
from resd.environments.bouncingsim.rows import check_row
from resd.environments.bouncingsim.scene import simulate
from resd.environments.bouncingsim.solutions import solve
from resd.environments.rows import load_rows
from resd.environments.sandbox import Job, Limits, Result, Sandbox
from resd.records import Problem, ResdError, Response, Verdict

TASK = "bouncingsim"
REWARDS = ("all_or_nothing", "pass_rate")
SPLITS = ("train", "test")
_FORM = "Put the whole program between a line ```python and a line ```."


@dataclass(frozen=True)
class BouncingSim:
    """Scenes of one level: three balls ("easy"), or four to five faster ones ("medium").

    `path` is a file of scenes, or a folder with `multiobj_<level>.jsonl`; without it, scenes are drawn from
    `seed`. `collisions` "withheld" omits that balls collide with each other and that mass is area, as does
    the published prompt, to which the published figures refer. The default states both, so that a problem
    can be solved from its text. `reward` "pass_rate" pays for the fraction of times passed, on train
    problems; test problems always pay all or nothing, as published. `reveal_answer` False keeps predicted and
    true positions out of the feedback. `cpu_s` is a program's limit of CPU time, in seconds.
    """

    path: str | Path | None = None
    level: str = "easy"
    collisions: str = "stated"
    reward: str = "all_or_nothing"
    reveal_answer: bool = True
    cpu_s: float = 1.0
    seed: int = 0
    _sandbox: Sandbox = field(default_factory=Sandbox, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_choice(TASK, "level", self.level, tuple(LEVELS))
        check_choice(TASK, "collisions", self.collisions, tuple(COLLISIONS))
        check_choice(TASK, "reward", self.reward, REWARDS)
        if type(self.cpu_s) not in (int, float) or not 0 < self.cpu_s < 3600:
            raise ResdError(f"{TASK}: cpu_s {self.cpu_s!r}: give seconds above 0, as in 1.0")

    @property
    def name(self) -> str:
        return f"{TASK}_{self.level}"

    @property
    def workers(self) -> int:
        return self._sandbox.workers

    def problems(self, split: str) -> list[Problem]:
        """The problems of "train" or "test". Scenes are drawn, or read and checked, when first needed."""
        check_choice(TASK, "split", split, SPLITS)
        return [self._problem(id_, split, row) for id_, row in self._rows(split)]

    def _rows(self, split: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        if self.path is None:
            rows = [row for row in generated_rows(self.level, self.seed) if row["split"] == split]
            yield from ((f"{TASK}/{self.level}/{split}/{i:04d}", row) for i, row in enumerate(rows))
            return
        names = (f"multiobj_{self.level}.*", f"*{self.level}*")
        for id_, row in load_rows(TASK, split, self.path, dict.fromkeys(SPLITS, names)):
            check_row(row, id_, LEVELS[self.level].difficulty)
            yield id_, row

    def _problem(self, id_: str, split: str, row: Mapping[str, Any]) -> Problem:
        question = make_prompt(row, self.collisions, self.cpu_s)
        kept = {key: row[key] for key in ("container", "balls", "timestamps", "positions", "tolerance")}
        return Problem(id_, ({"role": "user", "content": question},), {"task": TASK, "split": split, **kept})

    def grade(self, problem: Problem, response: Response | str) -> Verdict:
        """Run the reply's program, and compare. Never raises because of the reply's content."""
        job = self._prepare(problem, response)
        if isinstance(job, Verdict):
            return job
        result = self._sandbox.run(job.program, job.entry, job.calls, job.limits)
        return self._judge(problem, response, result)

    def solution(self, problem: Problem) -> str | None:
        """Our engine as a reply. None if a row's positions are not those of the engine."""
        scene = wanted(problem, TASK)
        tolerance, times = scene["tolerance"], scene["timestamps"]
        for time, found, true in zip(times, simulate(scene, times), scene["positions"], strict=True):
            if judge_value([list(pair) for pair in found], time, true, tolerance).kind != "ok":
                return None
        return f"```python\n{solve(scene)}```"

    @property
    def _limits(self) -> Limits:
        return Limits(cpu_s=self.cpu_s)

    def _prepare(self, problem: Problem, response: Response | str) -> Job | Verdict:
        """The job to run, or the verdict if there is nothing to run."""
        times = wanted(problem, TASK)["timestamps"]
        program = extract_program(reply_text(response))
        if program is None:
            feedback = unanswered(response, len(times), _FORM, "```").feedback
            return _not_run(response, len(times), feedback, "no program")
        try:
            check_program(program)
        except ProgramError as error:
            return _not_run(response, len(times), str(error), "refused")
        return Job(program, ENTRY, [[time] for time in times], self._limits)

    def _judge(self, problem: Problem, response: Response | str, result: Result) -> Verdict:
        scene = problem.metadata
        times, tolerance = scene["timestamps"], scene["tolerance"]
        predictions = judge_result(result, times, scene["positions"], tolerance)
        passed = sum(prediction.kind == "ok" for prediction in predictions)
        solved = passed == len(times)
        partial = self.reward == "pass_rate" and scene["split"] != "test"
        feedback = ""
        if not solved:
            feedback = describe(predictions, result, tolerance, self._limits, self.reveal_answer)
        return Verdict(
            reward=passed / len(times) if partial else float(solved),
            passed=passed,
            total=len(times),
            feedback=feedback,
            details=_details(response, result.status, incorrect_format=False),
        )


def _not_run(response: Response | str, total: int, feedback: str, status: str) -> Verdict:
    return Verdict(0.0, 0, total, feedback, _details(response, status, incorrect_format=True))


def _details(response: Response | str, status: str, *, incorrect_format: bool) -> dict[str, Any]:
    """`status` is the sandbox's, or says why nothing was run."""
    return {
        "incorrect_format": incorrect_format,
        "truncated": was_cut_off(response),
        "status": status,
        "error_in_test_cases": status == "error",
        "timed_out": status in ("cpu_limit", "wall_limit"),
    }
