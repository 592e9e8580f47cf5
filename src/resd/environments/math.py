r"""Mathematics: the answer in the last \boxed{}, compared by `math-verify`.

The published grader looks at the last 100 characters only and, in a thread, counts equivalent answers as
wrong. Here the whole answer is searched, and the comparison works from any thread in bounded time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from resd.environments.answers import clip, details, text_of, unanswered, unreadable, wanted
from resd.environments.base import answer_text
from resd.environments.equivalence import CPU_SECONDS, Comparer
from resd.environments.rows import Row, load_rows
from resd.records import Problem, ResdError, Response, Verdict

MAX_ANSWER = 1000  # characters
_TASK = "math"
_BRACES = re.compile(r"(?P<boxed>\\boxed\s*\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)
_FORM = r"Give the final answer alone, as \boxed{answer}."


@dataclass(frozen=True)
class Math:
    r"""One answer, right or wrong.

    Rows have a question (`problem`, `question` or `prompt`) and an `answer` (if present, its last \boxed{} or
    what follows #### counts) or a `solution` with a \boxed{}: MATH, GSM8K, AIME and the like. `reveal_answer`
    lets the feedback name the right answer; off by default, as published. `workers` threads compare answers
    in parallel, each with its own process. A problem's metadata contains its target.
    """

    path: str | Path | None = None
    reveal_answer: bool = False
    workers: int = 2
    name = _TASK
    _comparer: Comparer = field(default_factory=Comparer, init=False, repr=False, compare=False)

    def problems(self, split: str) -> list[Problem]:
        """The rows of a split. Raises ResdError, naming it, for a row that cannot be read."""
        return [_problem(id_, row) for id_, row in load_rows(self.name, split, self.path)]

    def grade(self, problem: Problem, response: Response | str) -> Verdict:
        """Compare the answer with the target, as text and then as mathematics."""
        target: str = wanted(problem, _TASK)["target"]
        answer = last_boxed(answer_text(response))
        if answer is None:
            return unanswered(response, 1, _FORM, what=r"\boxed")
        if not answer or len(answer) > MAX_ANSWER:
            fault = f"is longer than {MAX_ANSWER} characters" if answer else "is empty"
            return unreadable(response, 1, rf"Wrong: the last \boxed{{}} {fault}. {_FORM}")
        right = answer == target or self._comparer.equal(target, answer)
        feedback = "" if right else self._feedback(answer, target, timed_out=right is None)
        return Verdict(float(right or 0), int(right or 0), 1, feedback, details(response, answer))

    def solution(self, problem: Problem) -> str:
        """The right answer."""
        return rf"\boxed{{{wanted(problem, _TASK)['target']}}}"

    def _feedback(self, answer: str, target: str, *, timed_out: bool) -> str:
        said = f"Wrong: {clip(answer, 200)} is not the right answer."
        if timed_out:
            said = (
                f"Wrong: {clip(answer, 200)} could not be compared within {CPU_SECONDS:g} seconds; "
                "give the answer in its simplest form."
            )
        return f"{said} The right answer is {clip(target, 200)}." if self.reveal_answer else said


def last_boxed(text: str) -> str | None:
    r"""The content of the last complete \boxed{}, stripped; the inner one if nested. None without one."""
    stack: list[int | None] = []  # where the content of each open \boxed begins; None for other braces
    last: tuple[int, int] | None = None
    for brace in _BRACES.finditer(text):
        if brace["boxed"]:
            stack.append(brace.end())
        elif brace["open"]:
            stack.append(None)
        elif brace["close"] and stack:
            start = stack.pop()
            if start is not None and (last is None or start > last[0]):
                last = (start, brace.start())
    return text[last[0] : last[1]].strip() if last else None


def _problem(where: str, row: Row) -> Problem:
    question = next((key for key in ("problem", "question", "prompt") if key in row), "problem")
    text = f"{text_of(row, question, where).strip()}\n\nThink it through step by step. {_FORM}"
    metadata = {"task": _TASK, "target": _row_target(where, row)}
    return Problem(where, ({"role": "user", "content": text},), metadata)


def _row_target(where: str, row: Row) -> str:
    """The right answer of a row, without the words around it."""
    if type(row.get("answer")) in (int, float):
        return str(row["answer"])
    if "answer" not in row:
        target = last_boxed(text_of(row, "solution", where))
    else:
        answer = text_of(row, "answer", where)
        target = last_boxed(answer) or answer.rpartition("####")[2].strip()
    if not target or len(target) > MAX_ANSWER:
        raise ResdError(
            rf"row {where}: has no answer of 1 to {MAX_ANSWER} characters in 'answer', or in a \boxed{{}} of "
            "'solution'"
        )
    return target
