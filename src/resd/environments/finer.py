"""FiNER and Formula: questions on financial reports (Loukas et al., FinLoRA; the subsets of ACE).

FiNER asks for the US GAAP tags of four entities, Formula for one number. Answers are read as text, never
evaluated. FiNER's score is the published one, with one difference: thinking ends at the last closing tag, and
an answer inside a thought that never ends does not count.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

from resd.environments.answers import (
    check_choice,
    clip,
    details,
    last_answer,
    text_of,
    unanswered,
    unreadable,
    wanted,
)
from resd.environments.base import answer_text
from resd.environments.rows import Patterns, Row, load_rows
from resd.records import Problem, ResdError, Response, Verdict

REWARDS = ("pass_rate", "all_or_nothing")
# The published train file is not always at hand: the other published file, which shares no sentence with the
# validation file, then serves as one.
FINER_FILES: Patterns = {
    "train": ("finer*train*", "train.*", "finer*test*"),
    "test": ("finer*val*", "test.*"),
}
FORMULA_FILES: Patterns = {
    "train": ("formula*train*", "train.*"),
    "validation": ("formula*val*", "validation.*"),
    "test": ("formula*test*", "test.*"),
}
HALF_A_CENT = Decimal("0.005")
_MAX_NUMBER = 64  # characters
_MAX_TAG = 160  # the longest of the options has 137
_MAX_SHOWN = 8  # positions named in feedback
_AROUND = 80  # characters of a sentence on either side of its entity

_QUESTION = re.compile(
    r'^\d+\. What is best tag for entity "(?P<entity>.*?)" in sentence: "(?P<sentence>.*?)"[ \t]*$'
    r"(?=\n\d+\. What is best tag|\nOutput US GAAP tags:|\s*\Z)",
    re.DOTALL | re.MULTILINE,
)
_FORMULA = re.compile(
    r"Use formula (?P<name>.*?) to answer the question\..*?Formula: (?P<formula>.*?)"
    r"(?:, Explanation: (?P<explanation>.*?))? ?Question: *(?P<question>.*?)(?:\. Answer:)?\s*",
    re.DOTALL,
)
_NUMBER = re.compile(
    r"(?P<sign>[+-]?\$?|\$[+-])\s*"
    r"(?P<digits>(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)\s*%?"
)


@dataclass(frozen=True)
class FiNER:
    """Four entities, four tags. The tests of a problem are its positions.

    `reward` "pass_rate" pays for the fraction of positions, in both splits, as published. `reveal_answer`
    lets the feedback name the right tags; without it, it says only which positions are wrong. A problem's
    metadata hold its entities, sentences, options and target, all tuples of text.
    """

    path: str | Path | None = None
    reward: str = "pass_rate"
    reveal_answer: bool = True
    name = "finer"

    def __post_init__(self) -> None:
        check_choice(self.name, "reward", self.reward, REWARDS)

    def problems(self, split: str) -> list[Problem]:
        """The rows of "train" or "test". Raises ResdError, naming it, for a row that cannot be read."""
        return [_finer_problem(id_, row) for id_, row in load_rows(self.name, split, self.path, FINER_FILES)]

    def grade(self, problem: Problem, response: Response | str) -> Verdict:
        """Compare position by position. Tags beyond the last position are ignored, as published."""
        metadata = wanted(problem, self.name)
        target: Sequence[str] = metadata["target"]
        answer = last_answer(answer_text(response))
        if answer is None:
            return unanswered(response, len(target), _tags_form(len(target)))
        given = read_tags(answer)
        wrong = wrong_positions(given, target)
        passed = len(target) - len(wrong)
        feedback = _tags_feedback(metadata, given, wrong, self.reveal_answer) if wrong else ""
        reward = passed / len(target) if self.reward == "pass_rate" else float(not wrong)
        return Verdict(reward, passed, len(target), feedback, details(response, answer))

    def solution(self, problem: Problem) -> str:
        """The right tags."""
        return f"<answer>{', '.join(wanted(problem, self.name)['target'])}</answer>"


@dataclass(frozen=True)
class Formula:
    """One number, to two decimals.

    Right is what is within half a cent of the target: the target itself, and whatever rounds to it. (The
    published grader evaluates both sides as programs and wants equality.) Thousands may be set off by
    commas; a dollar or per cent sign is left out of account, so that 15% reads as 15.
    """

    path: str | Path | None = None
    reveal_answer: bool = True
    name = "formula"

    def problems(self, split: str) -> list[Problem]:
        """The rows of a split. Raises ResdError, naming it, for a row that cannot be read."""
        rows = load_rows(self.name, split, self.path, FORMULA_FILES)
        return [_formula_problem(id_, row) for id_, row in rows]

    def grade(self, problem: Problem, response: Response | str) -> Verdict:
        """Compare two numbers."""
        metadata = wanted(problem, self.name)
        answer = last_answer(answer_text(response))
        if answer is None:
            return unanswered(response, 1, _NUMBER_FORM)
        given, target = read_number(answer), Decimal(metadata["target"].replace(",", ""))
        if given is None:
            return unreadable(response, 1, f'Wrong: "{clip(answer, 80)}" is not one number. {_NUMBER_FORM}')
        right = abs(given - target) <= HALF_A_CENT
        feedback = "" if right else self._feedback(metadata, answer)
        return Verdict(float(right), int(right), 1, feedback, details(response, answer))

    def solution(self, problem: Problem) -> str:
        """The right number."""
        return f"<answer>{wanted(problem, self.name)['target']}</answer>"

    def _feedback(self, metadata: Any, answer: str) -> str:
        right = f" The right number is {metadata['target']}." if self.reveal_answer else ""
        return f"Wrong: {answer} is not what {clip(metadata['formula'], 200)} gives here.{right}"


def read_tags(answer: str) -> list[str]:
    """The tags of an answer, as they are written."""
    return [tag.strip() for tag in answer.split(",")]


def wrong_positions(given: Sequence[str], target: Sequence[str]) -> list[int]:
    """Positions, from 0, whose tag is not the target's but for upper and lower case."""
    return [i for i, tag in enumerate(target) if i >= len(given) or given[i].lower() != tag.strip().lower()]


def read_number(answer: str) -> Decimal | None:
    """A number as reports write them, None for anything else, expressions included."""
    if len(answer) > _MAX_NUMBER:
        return None
    match = _NUMBER.fullmatch(answer.strip().replace("\u2212", "-"))
    if match is None:
        return None
    number = Decimal(match["digits"].replace(",", ""))
    return -number if "-" in match["sign"] else number


def _finer_problem(where: str, row: Row) -> Problem:
    context, target = text_of(row, "context", where), read_tags(text_of(row, "target", where))
    head, found, questions = context.partition("Answer the following")
    options = _options(head)
    asked = [(m["entity"], m["sentence"].removesuffix("?").strip()) for m in _QUESTION.finditer(questions)]
    if not found or not options or not asked:
        raise ResdError(f"row {where}: 'context' is no FiNER question (options, then numbered questions)")
    if len(asked) != len(target):
        raise ResdError(f"row {where}: has {len(asked)} questions and {len(target)} tags in 'target'")
    if unknown := [tag for tag in target if tag not in options]:
        raise ResdError(f"row {where}: the tag {clip(unknown[0], 80)!r} of 'target' is none of the options")
    metadata = {
        "task": "finer",
        "entities": tuple(entity for entity, _ in asked),
        "sentences": tuple(sentence for _, sentence in asked),
        "options": options,
        "target": tuple(target),
    }
    return Problem(where, ({"role": "user", "content": _finer_question(options, asked)},), metadata)


@lru_cache(maxsize=16)  # all rows of a file share one list of options
def _options(head: str) -> tuple[str, ...]:
    listed = head.partition("options:")[2].strip().rstrip(".")
    return tuple(tag.strip() for tag in listed.split(",") if tag.strip())


@lru_cache(maxsize=16)
def _lowered(options: tuple[str, ...]) -> frozenset[str]:
    return frozenset(tag.lower() for tag in options)


def _finer_question(options: Sequence[str], asked: Sequence[tuple[str, str]]) -> str:
    numbered = "\n".join(f'{i}. "{entity}" in: {text}' for i, (entity, text) in enumerate(asked, start=1))
    return (
        "Figures in financial reports carry US GAAP tags (XBRL), which say what they measure. Below are the "
        f"tags to choose from, then {len(asked)} figures, each in its sentence. Find the tag that fits each "
        "figure best. The figures are independent of each other, and may have the same tag.\n\n"
        f"Tags: {', '.join(options)}\n\nFigures:\n{numbered}\n\n"
        f"Think about each figure first if you like. {_tags_form(len(asked))}"
    )


def _tags_form(count: int) -> str:
    places = ", ".join(f"tag {i}" for i in range(1, count + 1))
    return (
        f"Give {count} tags as <answer>{places}</answer>: tags alone, in the order of the figures, with "
        "commas between them."
    )


def _tags_feedback(metadata: Any, given: Sequence[str], wrong: Sequence[int], reveal: bool) -> str:
    total = len(metadata["target"])
    shown = wrong[:_MAX_SHOWN]
    numbers = ", ".join(str(i + 1) for i in shown) + (", ..." if len(wrong) > len(shown) else "")
    lines = [f"{total - len(wrong)} of {total} tags are right. Wrong: {numbers}."]
    if len(given) != total:
        lines.append(f"Wrong count: the answer, split at its commas, has {len(given)} and not {total} tags.")
    lines += [_position(metadata, given, i, reveal) for i in shown]
    return "\n".join(lines)


def _position(metadata: Any, given: Sequence[str], i: int, reveal: bool) -> str:
    entity, sentence = metadata["entities"][i], metadata["sentences"][i]
    tag = given[i] if i < len(given) else ""
    if not tag:
        fault = "no tag is given"
    elif tag.lower() in _lowered(metadata["options"]):
        fault = f"{tag} is wrong"
    else:
        fault = f"{clip(tag, _MAX_TAG)} is none of the tags to choose from"
    right = f"; the right tag is {metadata['target'][i]}" if reveal else ""
    return f'{i + 1}. "{clip(entity, 40)}" in "{_excerpt(sentence, entity)}": {fault}{right}.'


def _excerpt(sentence: str, entity: str) -> str:
    """The words around an entity, which stands between blanks."""
    at = max(f" {sentence} ".find(f" {entity} "), 0)
    start, end = max(at - _AROUND, 0), at + min(len(entity), 40) + _AROUND
    return ("..." if start else "") + sentence[start:end] + ("..." if end < len(sentence) else "")


_NUMBER_FORM = (
    "Give one number with two decimals as <answer>number</answer>, as a plain number: no words, no formula."
)


def _formula_problem(where: str, row: Row) -> Problem:
    context, target = text_of(row, "context", where), text_of(row, "target", where).strip()
    match = _FORMULA.fullmatch(context.strip())
    if match is None:
        raise ResdError(f"row {where}: 'context' is no Formula question (formula, explanation, question)")
    if read_number(target) is None:
        raise ResdError(f"row {where}: 'target' {clip(target, 80)!r} is no number")
    parts = [
        "Use the formula to answer the question. Where it works with percentages or ratios, give the number "
        "that the formula itself yields, without a sign of currency or per cent.",
        f"Formula: {match['name']}\n{match['formula']}",
        *([f"Where: {match['explanation']}"] if match["explanation"] else []),
        f"Question: {_unquoted(match['question'])}",
        f"Work it out step by step if you like. {_NUMBER_FORM}",
    ]
    metadata = {"task": "formula", "formula": match["name"], "target": target}
    return Problem(where, ({"role": "user", "content": "\n\n".join(parts)},), metadata)


def _unquoted(question: str) -> str:
    """The question without the quotation marks that most rows, not always in pairs, set around it."""
    return question.strip().strip('\u201c\u201d"').strip()
