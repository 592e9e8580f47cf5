"""The Manufactoria environment: from problems to verdicts.

Programs are judged by the tapes they accept, as in the published grader, with these differences: thinking is
stripped before the answer is extracted, so a block inside an unfinished thought is not graded; and texts of
more than `parser.MAX_CHARACTERS` characters are rejected unread. Every run ends after 1000 node visits, so
grading time is bounded for any reply.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resd.environments.answers import check_choice
from resd.environments.base import answer_text
from resd.environments.manufactoria.families import FAMILIES, SETS
from resd.environments.manufactoria.family import Case, Family, Params
from resd.environments.manufactoria.feedback import FEEDBACK, Failure
from resd.environments.manufactoria.has import HAS_FAMILIES, states_before_acceptance
from resd.environments.manufactoria.parser import ProgramError, parse_program
from resd.environments.manufactoria.prompts import PROMPTS
from resd.environments.manufactoria.rows import read_row
from resd.environments.manufactoria.solutions import solve_has
from resd.environments.manufactoria.tapes import build_cases, problem_key
from resd.environments.rows import load_rows
from resd.records import Problem, ResdError, Response, Verdict

REWARDS = ("all_or_nothing", "pass_rate")
SPLITS = ("train", "test")
_TASK = "manufactoria"
_FENCE = "```"


@dataclass(frozen=True)
class Manufactoria:
    """Problems of one family. `seed` determines only the tapes.

    `reward` "pass_rate" pays for the fraction of tapes passed, on train problems; test problems always pay
    all or nothing, as published. `states` keeps only HAS problems whose smallest automaton has from its
    first to its second number of states before it accepts: how long programs get. `path` is a file or folder
    of rows with tapes of their own, such as the published ones; `family` is then a name only. Raises
    ResdError for an unknown family, prompt or reward, and for `states` with another family than "has".
    """

    family: str = "has"
    prompt: str = "full"
    reward: str = "all_or_nothing"
    seed: int = 0
    states: tuple[int, int] | None = None
    path: str | Path | None = None
    _cases: dict[str, tuple[Case, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_choice(_TASK, "family", self.family, tuple(SETS))
        check_choice(_TASK, "prompt", self.prompt, tuple(PROMPTS))
        check_choice(_TASK, "reward", self.reward, REWARDS)
        if self.states is not None and not _is_range(self.states):
            raise ResdError(
                f"manufactoria: states {self.states!r}: give the fewest and the most, as in [2, 6]"
            )
        if self.states is not None and self.family != "has":
            raise ResdError(f"manufactoria: states is only for family has, not {self.family}; leave it out")

    @property
    def name(self) -> str:
        return f"{_TASK}_{self.family}"

    def problems(self, split: str) -> list[Problem]:
        """The problems of "train" or "test" in published order. Tapes are built when first needed."""
        check_choice(_TASK, "split", split, SPLITS)
        if self.path is not None:
            return self._read(split, self.path)
        return [
            self._problem(f"{self.family}/{split}/{row:04d}", split, FAMILIES[name], params)
            for row, (name, params) in enumerate(SETS[self.family](split))
            if self._kept(params)
        ]

    def _read(self, split: str, path: str | Path) -> list[Problem]:
        found = []
        for id_, row in load_rows(_TASK, split, path):
            name, params, cases = read_row(row, id_)
            problem = self._problem(id_, split, FAMILIES[name], params)
            if self._kept(params):
                self._cases[id_] = cases
                found.append(problem)
        return found

    def _problem(self, id_: str, split: str, family: Family, params: Params) -> Problem:
        question = PROMPTS[self.prompt](family, params)
        metadata = {"family": family.name, "params": params, "split": split}
        return Problem(id_, ({"role": "user", "content": question},), metadata)

    def _kept(self, params: Params) -> bool:
        if self.states is None:
            return True
        fewest, most = self.states
        return fewest <= states_before_acceptance(params) <= most

    def cases(self, problem: Problem) -> tuple[Case, ...]:
        """The problem's tapes, with the expected result of each."""
        if problem.id in self._cases:  # read from a file
            return self._cases[problem.id]
        family, params = family_and_params(problem)
        key = problem_key(family, params)
        if key not in self._cases:
            self._cases[key] = build_cases(family, params, self.seed)
        return self._cases[key]

    def tapes(self, problem: Problem) -> list[tuple[str, bool]]:
        """(tape, whether it is to be accepted) for each case."""
        return [(case.tape, case.accept) for case in self.cases(problem)]

    def solution(self, problem: Problem) -> str | None:
        """The smallest automaton as a program, for HAS problems; None for others."""
        family, _ = family_and_params(problem)
        known = family.name in {f.name for f in HAS_FAMILIES}
        return f"{_FENCE}manufactoria\n{solve_has(problem)}\n{_FENCE}" if known else None

    def grade(self, problem: Problem, response: Response | str) -> Verdict:
        """Run the reply's program on every tape. Never raises because of the reply's content."""
        cases = self.cases(problem)
        feedback = FEEDBACK[self.prompt]
        text = extract_program(response)
        if text is None:
            return _unreadable(len(cases), feedback.no_program, "no program")
        try:
            program = parse_program(text)
        except ProgramError as error:
            return _unreadable(len(cases), feedback.parse_error(error), str(error))
        outcomes = [(case, program.run(case.tape)) for case in cases]
        failures = [Failure(case, outcome) for case, outcome in outcomes if not case.passes(outcome)]
        passed = len(cases) - len(failures)
        partial = self.reward == "pass_rate" and problem.metadata.get("split") != "test"
        return Verdict(
            reward=passed / len(cases) if partial else float(not failures),
            passed=passed,
            total=len(cases),
            feedback=feedback.failures(program, failures, len(cases)) if failures else "",
            details={"incorrect_format": False, "parse_error": None},
        )


def extract_program(response: Response | str) -> str | None:
    """The last fenced block of the answer, None without one.

    The tag `manufactoria` may follow the fence; any other tag stays in the text, where it is a parse error.
    """
    parts = answer_text(response).split(_FENCE)
    blocks = parts[1:-1:2]  # what stands between a fence and the next one
    return blocks[-1].removeprefix("manufactoria") if blocks else None


def family_and_params(problem: Problem) -> tuple[Family, Params]:
    """A problem's family and parameters. Raises ResdError for a problem of another environment."""
    metadata: Mapping[str, Any] = problem.metadata
    if metadata.get("family") not in FAMILIES or "params" not in metadata:
        raise ResdError(f"problem {problem.id}: its metadata names no Manufactoria family")
    return FAMILIES[metadata["family"]], metadata["params"]


def _unreadable(total: int, feedback: str, error: str) -> Verdict:
    return Verdict(0.0, 0, total, feedback, {"incorrect_format": True, "parse_error": error})


def _is_range(states: Any) -> bool:
    """Two whole numbers, the smaller one first."""
    if not isinstance(states, list | tuple) or [type(number) for number in states] != [int, int]:
        return False
    return bool(states[0] <= states[1])
