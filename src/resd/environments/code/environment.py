"""The environment of programming tasks: prompts, verdicts, and which tests are for whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from resd.environments.answers import check_choice, was_cut_off
from resd.environments.base import answer_text
from resd.environments.code.feedback import NO_PROGRAM, TOO_LONG, Shown, write_feedback
from resd.environments.code.program import MAX_CHARACTERS, compose, extract_program
from resd.environments.code.rows import Task, read_task
from resd.environments.code.runs import Judge, Outcome
from resd.environments.rows import load_rows
from resd.environments.sandbox import Limits, Sandbox
from resd.records import Message, Problem, ResdError, Response, Verdict

REWARDS = ("all_or_nothing", "pass_rate")
TESTS = ("public", "half", "all")
MEMORY_MB = 1024
OUTPUT_BYTES = 10_000_000


@dataclass(frozen=True)
class Code:
    """Programming tasks: LiveCodeBench, HumanEval, and prepared rows (see `rows`).

    `tests` says which tests train problems are graded on: "public" ones, "half" of all (every second one),
    or "all"; test problems are always graded on all. `reward` "pass_rate" pays for the share of tests
    passed, on train problems; test problems always pay all or nothing. Feedback shows what goes into public
    tests, and with `reveal_answer` what they want; private tests are only counted, unless `reveal_private`.
    `time_limit` takes the place of the rows' own, in CPU seconds a test; memory is limited to 1024 MB.
    `isolation` is the sandbox's. Raises ResdError for unknown options.
    """

    path: str | Path | None = None
    reward: str = "all_or_nothing"
    tests: str = "public"
    reveal_answer: bool = True
    reveal_private: bool = False
    time_limit: float | None = None
    isolation: str = "strongest"
    name = "code"
    _judge: Judge = field(init=False, repr=False, compare=False)
    _tasks: dict[str, Task] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_choice(self.name, "reward", self.reward, REWARDS)
        check_choice(self.name, "tests", self.tests, TESTS)
        if self.time_limit is not None and not 0 < self.time_limit < 3600:
            raise ResdError(f"code: time_limit {self.time_limit!r}: give seconds, more than 0")
        object.__setattr__(self, "_judge", Judge(Sandbox(self.isolation)))

    @property
    def workers(self) -> int:
        """How many replies are graded at once."""
        return self._judge.sandbox.workers

    def problems(self, split: str) -> list[Problem]:
        """The rows of a split. Raises ResdError, naming it, for a row that cannot be understood."""
        tasks = [read_task(id_, row) for id_, row in load_rows(self.name, split, self.path)]
        self._tasks.update((task.id, task) for task in tasks)
        return [self._problem(task, split) for task in tasks]

    def _problem(self, task: Task, split: str) -> Problem:
        metadata = {"task": self.name, "split": split, "kind": task.kind, "entry": task.entry}
        return Problem(task.id, task.chat or _messages(task, self._seconds(task)), metadata)

    def grade(self, problem: Problem, response: Response | str) -> Verdict:
        """Run the reply's program on its tests, one after the other. Waits for other processes."""
        task = self._task(problem)
        train = problem.metadata["split"] == "train"
        cases = task.tests(self.tests if train else "all")
        source = extract_program(answer_text(response))
        if source is None or len(source) > MAX_CHARACTERS:
            feedback = NO_PROGRAM if source is None else TOO_LONG
            return Verdict(0.0, 0, len(cases), feedback, _details(response, [], incorrect_format=True))
        program = compose(source, task.helpers)
        limits = Limits(cpu_s=self._seconds(task), memory_mb=MEMORY_MB, output_bytes=OUTPUT_BYTES)
        outcomes = self._judge.judge(task, cases, program, limits)
        passed = sum(outcome.passed for outcome in outcomes)
        solved = passed == len(outcomes)
        shown = Shown(self.reveal_answer, self.reveal_private)
        return Verdict(
            reward=passed / len(outcomes) if train and self.reward == "pass_rate" else float(solved),
            passed=passed,
            total=len(outcomes),
            feedback="" if solved else write_feedback(outcomes, program, limits, shown),
            details=_details(response, outcomes, incorrect_format=False),
        )

    def solution(self, problem: Problem) -> str | None:
        """The row's own solution; None where it has none."""
        solution = self._task(problem).solution
        return None if solution is None else f"```python\n{solution.strip()}\n```"

    def _seconds(self, task: Task) -> float:
        return task.time_limit if self.time_limit is None else self.time_limit

    def _task(self, problem: Problem) -> Task:
        """The tests stay here: a problem's metadata would carry them wherever it goes."""
        if problem.metadata.get("task") != self.name:
            raise ResdError(
                f"problem {problem.id}: does not belong to {self.name}; grade it with its own environment"
            )
        if problem.id not in self._tasks:
            self.problems(problem.metadata["split"])
        if problem.id not in self._tasks:
            raise ResdError(f"problem {problem.id}: is not in the data at {self.path}; give its own path")
        return self._tasks[problem.id]


def _messages(task: Task, seconds: float) -> tuple[Message, ...]:
    lines = ["Solve this programming task in Python.", "", task.prompt.strip(), ""]
    if task.kind == "stdin":
        lines.append("Read from standard input and print the answer to standard output.")
    else:
        lines.append(f"Define `{task.entry}`; it is imported and called, so read no input.")
    if task.starter.strip():
        lines += ["Begin with this:", "```python", task.starter.rstrip(), "```"]
    lines.append(f"Each test may take {seconds:g} s of CPU time and {MEMORY_MB} MB of memory.")
    lines.append(
        "Give the whole program, imports included, in one block between a line ```python and a line ```."
    )
    return ({"role": "user", "content": "\n".join(lines)},)


def _details(
    response: Response | str, outcomes: Sequence[Outcome], *, incorrect_format: bool
) -> dict[str, bool | list[str]]:
    statuses = [outcome.status for outcome in outcomes]
    return {
        "incorrect_format": incorrect_format,
        "truncated": was_cut_off(response),
        "error_in_test_cases": "error" in statuses,
        "timed_out": "cpu_limit" in statuses or "wall_limit" in statuses,
        "statuses": statuses,
    }
