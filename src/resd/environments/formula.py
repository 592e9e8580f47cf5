"""Formula: questions on finance whose answer is one number (FinLoRA; the subset of ACE).

Answers are read as text: the published grader evaluates them as programs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from resd.environments.answers import clip, details, last_answer, text_of, unanswered, unreadable, wanted
from resd.environments.base import answer_text
from resd.environments.rows import Patterns, Row, load_rows
from resd.records import Problem, ResdError, Response, Verdict

FILES: Patterns = {
    "train": ("formula*train*", "train.*"),
    "validation": ("formula*val*", "validation.*"),
    "test": ("formula*test*", "test.*"),
}
HALF_A_CENT = Decimal("0.005")
_MAX_NUMBER = 64  # characters
_FORM = (
    "Give one number with two decimals as <answer>number</answer>, as a plain number: no words, no formula."
)
_QUESTION = re.compile(
    r"Use formula (?P<name>.*?) to answer the question\..*?Formula: (?P<formula>.*?)"
    r"(?:, Explanation: (?P<explanation>.*?))? ?Question: *(?P<question>.*?)(?:\. Answer:)?\s*",
    re.DOTALL,
)
_NUMBER = re.compile(
    r"(?P<sign>[+-]?\$?|\$[+-])\s*"
    r"(?P<digits>(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)\s*%?"
)


@dataclass(frozen=True)
class Formula:
    """One number, to two decimals.

    An answer within half a cent of the target, i.e. one that rounds to it, is right. (The published grader
    evaluates both sides and requires equality.) Thousands may be separated by commas; dollar and per cent
    signs are ignored, so that 15% reads as 15.
    """

    path: str | Path | None = None
    reveal_answer: bool = True
    name = "formula"

    def problems(self, split: str) -> list[Problem]:
        """The rows of a split. Raises ResdError, naming it, for a row that cannot be read."""
        return [_problem(id_, row) for id_, row in load_rows(self.name, split, self.path, FILES)]

    def grade(self, problem: Problem, response: Response | str) -> Verdict:
        """Compare two numbers."""
        metadata = wanted(problem, self.name)
        answer = last_answer(answer_text(response))
        if answer is None:
            return unanswered(response, 1, _FORM)
        given, target = read_number(answer), read_number(metadata["target"])
        assert target is not None  # `_problem` has read it
        if given is None:
            return unreadable(response, 1, f'Wrong: "{clip(answer, 80)}" is not one number. {_FORM}')
        right = abs(given - target) <= HALF_A_CENT
        feedback = "" if right else self._feedback(metadata, answer)
        return Verdict(float(right), int(right), 1, feedback, details(response, answer))

    def solution(self, problem: Problem) -> str:
        """The right number."""
        return f"<answer>{wanted(problem, self.name)['target']}</answer>"

    def _feedback(self, metadata: Mapping[str, Any], answer: str) -> str:
        right = f" The right number is {metadata['target']}." if self.reveal_answer else ""
        return f"Wrong: {answer} is not what {clip(metadata['formula'], 200)} gives here.{right}"


def read_number(answer: str) -> Decimal | None:
    """A number as written in reports; None for anything else, including expressions."""
    if len(answer) > _MAX_NUMBER:
        return None
    match = _NUMBER.fullmatch(answer.strip().replace("\u2212", "-"))
    if match is None:
        return None
    number = Decimal(match["digits"].replace(",", ""))
    return -number if "-" in match["sign"] else number


def _problem(where: str, row: Row) -> Problem:
    context, target = text_of(row, "context", where), text_of(row, "target", where).strip()
    match = _QUESTION.fullmatch(context.strip())
    if match is None:
        raise ResdError(f"row {where}: 'context' is not a Formula question (formula, explanation, question)")
    if read_number(target) is None:
        raise ResdError(f"row {where}: 'target' {clip(target, 80)!r} is not a number")
    parts = [
        "Use the formula to answer the question. If its result is a percentage or a ratio, give the number "
        "that the formula itself yields. Leave out signs of currency and per cent.",
        f"Formula: {match['name']}\n{match['formula']}",
        *([f"Where: {match['explanation']}"] if match["explanation"] else []),
        f"Question: {_unquoted(match['question'])}",
        f"Work it out step by step if you like. {_FORM}",
    ]
    metadata = {"task": "formula", "formula": match["name"], "target": target}
    return Problem(where, ({"role": "user", "content": "\n\n".join(parts)},), metadata)


def _unquoted(question: str) -> str:
    """The question without the quotation marks that most rows, not always in pairs, set around it."""
    return question.strip().strip('\u201c\u201d"').strip()
