"""Multiple choice: rows of SciKnowEval, GPQA and MMLU-Pro.

The published grader of SciKnowEval wants the letter and nothing else; without an `<answer>` element it reads
the whole reply (`strict=True`). By default the last complete element is read, and "b", "B.", "(B)", "**B**"
and "B: the option's text" all count as B.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from resd.environments.answers import (
    CLOSE,
    OPEN,
    clip,
    details,
    last_answer,
    text_of,
    unanswered,
    unreadable,
    wanted,
)
from resd.environments.base import answer_text
from resd.environments.rows import Row, load_rows
from resd.records import Problem, ResdError, Response, Verdict

_TASK = "multiple_choice"
_LETTER = re.compile(r"[\W_]*([A-Za-z])[\W_]*")
_LETTER_AND_TEXT = re.compile(r"[\W_]*([A-Za-z])[\W_]*?[.:)](.*)", re.DOTALL)
_NAMED = re.compile(r"\b([A-Z])[.:)]")
_REQUEST = "Please reason step by step."  # ends the published questions of SciKnowEval
_INCORRECT = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


@dataclass(frozen=True)
class MultipleChoice:
    """One right option. The text of a row is kept; the request for an answer and its letters are ours.

    `domain` keeps only the rows in the subfolder of that name; SciKnowEval has one for each science. `seed`
    shuffles the options of GPQA, whose right answer comes first. `reveal_answer` lets the
    feedback name the right option. `strict` reads replies as the published grader does. A problem's metadata
    hold its options, in order, and the letter of its target.
    """

    path: str | Path | None = None
    domain: str | None = None
    seed: int = 0
    reveal_answer: bool = True
    strict: bool = False

    @property
    def name(self) -> str:
        return _TASK if self.domain is None else f"{_TASK}_{self.domain}"

    def problems(self, split: str) -> list[Problem]:
        """The rows of a split. Raises ResdError, naming it, for a row that cannot be read."""
        rows = load_rows(_TASK, split, self.path)
        if self.domain is not None:
            rows = [(id_, row) for id_, row in rows if self.domain in id_.split("/")[1:-2]]
            if not rows:
                raise ResdError(f"{_TASK}: no folder {self.domain!r} has rows of split {split}; check domain")
        return [_problem(id_, row, self.seed) for id_, row in rows]

    def grade(self, problem: Problem, response: Response | str) -> Verdict:
        """Compare the letter."""
        metadata = wanted(problem, _TASK)
        options = metadata["options"]
        text = answer_text(response)
        answer = _strict_answer(text) if self.strict else last_answer(text)
        if answer is None:
            return unanswered(response, 1, _form(options))
        letter = answer if self.strict else read_letter(answer, options)
        if letter is None or letter not in _letters(options):
            said = f'Wrong: "{clip(answer, 80)}" is not the letter of one option. {_form(options)}'
            return unreadable(response, 1, said)
        right = letter == metadata["target"]
        feedback = "" if right else self._feedback(metadata, letter)
        return Verdict(float(right), int(right), 1, feedback, details(response, letter))

    def solution(self, problem: Problem) -> str:
        """The right letter."""
        return f"{OPEN}{wanted(problem, _TASK)['target']}{CLOSE}"

    def _feedback(self, metadata: Mapping[str, Any], letter: str) -> str:
        said = f"Wrong: {_named(metadata, letter)} is not the right option."
        if not self.reveal_answer:
            return said
        return f"{said} The right option is {_named(metadata, metadata['target'])}."


def read_letter(answer: str, options: Sequence[str]) -> str | None:
    """The letter that an answer names, in upper case: alone, or before a point, colon or bracket and a text.

    None where it names none, and where the text is not the option's and names another option as well.
    """
    if alone := _LETTER.fullmatch(answer):
        return _known(alone[1], options)
    found = _LETTER_AND_TEXT.fullmatch(answer)
    letter = _known(found[1], options) if found else None
    if found is None or letter is None:
        return None
    text = found[2].strip()
    if text.casefold() == options[ascii_uppercase.index(letter)].casefold():
        return letter
    others = {other for other in _NAMED.findall(text) if _known(other, options)}
    return letter if others <= {letter} else None


def _known(letter: str, options: Sequence[str]) -> str | None:
    return letter.upper() if ascii_uppercase.index(letter.upper()) < len(options) else None


def _strict_answer(text: str) -> str:
    """The published reading: after the last opening tag, up to a closing one if there is one."""
    return text.rpartition(OPEN)[2].partition(CLOSE)[0].strip()


def _problem(where: str, row: Row, seed: int) -> Problem:
    question, options, target = _parts(where, row, seed)
    letters = _letters(options)
    if target not in letters:
        raise ResdError(f"row {where}: the answer {target!r} is not one of its options {', '.join(letters)}")
    listed = "\n".join(f"{letter}: {option}" for letter, option in zip(letters, options, strict=True))
    text = (
        f"{question}\n\n{listed}\n\nExactly one of these options is right. Think it through. {_form(options)}"
    )
    metadata = {"task": _TASK, "options": tuple(options), "target": target}
    return Problem(where, ({"role": "user", "content": text},), metadata)


def _parts(where: str, row: Row, seed: int) -> tuple[str, list[str], str]:
    """(question, options, letter of the right one)"""
    if "Correct Answer" in row:
        return _gpqa(where, row, seed)
    if "options" in row:
        return _mmlu_pro(where, row)
    if "prompt" in row:
        return _sciknoweval(where, row)
    raise ResdError(
        f"row {where}: has the fields of no known set: SciKnowEval (prompt, answer), MMLU-Pro (question, "
        "options, answer), GPQA (Question, Correct Answer, Incorrect Answer 1 to 3)"
    )


def _sciknoweval(where: str, row: Row) -> tuple[str, list[str], str]:
    prompt = text_of(row, "prompt", where).strip().removesuffix(_REQUEST).rstrip()
    question, found, listed = ("\n" + prompt).rpartition("\nA: ")
    options = [""]
    for line in listed.split("\n"):
        if len(options) < len(ascii_uppercase) and line.startswith(f"{ascii_uppercase[len(options)]}: "):
            options.append(line[3:])
        else:
            options[-1] += f"\n{line}" if options[-1] else line
    if not found or not question.strip() or len(options) < 2:
        raise ResdError(
            f"row {where}: 'prompt' is not a question with options below (lines that begin with A:, B:, ...)"
        )
    return question.strip(), [option.strip() for option in options], text_of(row, "answer", where).strip()


def _mmlu_pro(where: str, row: Row) -> tuple[str, list[str], str]:
    options = row["options"]
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise ResdError(f"row {where}: 'options' is not a list of texts")
    if not 2 <= len(options) <= len(ascii_uppercase):
        raise ResdError(f"row {where}: has {len(options)} options; give 2 to {len(ascii_uppercase)}")
    if "answer" in row:
        return text_of(row, "question", where), options, text_of(row, "answer", where).strip()
    index = row.get("answer_index")
    if type(index) is not int or not 0 <= index < len(options):
        raise ResdError(
            f"row {where}: has no 'answer' and its 'answer_index' {index!r} does not name an option"
        )
    return text_of(row, "question", where), options, ascii_uppercase[index]


def _gpqa(where: str, row: Row, seed: int) -> tuple[str, list[str], str]:
    options = [text_of(row, key, where).strip() for key in ("Correct Answer", *_INCORRECT)]
    order = list(range(len(options)))
    random.Random(f"{seed}/{where}").shuffle(order)
    question = text_of(row, "Question", where).strip()
    return question, [options[i] for i in order], ascii_uppercase[order.index(0)]


def _letters(options: Sequence[str]) -> list[str]:
    return list(ascii_uppercase[: len(options)])


def _form(options: Sequence[str]) -> str:
    letters = _letters(options)
    some = f"{', '.join(letters[:-1])} or {letters[-1]}"
    return f"Give the letter of your choice, {some}, and nothing else, as {OPEN}letter{CLOSE}."


def _named(metadata: Mapping[str, Any], letter: str) -> str:
    return f"{letter} ({clip(metadata['options'][ascii_uppercase.index(letter)], 300)})"
