"""FiNER: US GAAP tags of four figures in financial reports (Loukas et al., FinLoRA; the subset of ACE).

The score is the published one, with one difference: thinking ends at the last closing tag, and an answer
inside a thought that never ends does not count.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    wanted,
)
from resd.environments.base import answer_text
from resd.environments.rows import Patterns, Row, load_rows
from resd.records import Problem, ResdError, Response, Verdict

REWARDS = ("pass_rate", "all_or_nothing")
# The published train file is not always at hand: the other published file, which shares no sentence with the
# validation file, then serves as one.
FILES: Patterns = {
    "train": ("finer*train*", "train.*", "finer*test*"),
    "test": ("finer*val*", "test.*"),
}
_MAX_TAG = 160  # the longest of the options has 137
_MAX_SHOWN = 8  # positions named in feedback
_AROUND = 80  # characters of a sentence on either side of its entity

_QUESTION = re.compile(
    r'^\d+\. What is best tag for entity "(?P<entity>.*?)" in sentence: "(?P<sentence>.*?)"[ \t]*$'
    r"(?=\n\d+\. What is best tag|\nOutput US GAAP tags:|\s*\Z)",
    re.DOTALL | re.MULTILINE,
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
        return [_problem(id_, row) for id_, row in load_rows(self.name, split, self.path, FILES)]

    def grade(self, problem: Problem, response: Response | str) -> Verdict:
        """Compare position by position. Tags beyond the last position are ignored, as published."""
        metadata = wanted(problem, self.name)
        target: Sequence[str] = metadata["target"]
        answer = last_answer(answer_text(response))
        if answer is None:
            return unanswered(response, len(target), _form(len(target)))
        given = read_tags(answer)
        wrong = wrong_positions(given, target)
        passed = len(target) - len(wrong)
        feedback = _feedback(metadata, given, wrong, self.reveal_answer) if wrong else ""
        reward = passed / len(target) if self.reward == "pass_rate" else float(not wrong)
        return Verdict(reward, passed, len(target), feedback, details(response, answer))

    def solution(self, problem: Problem) -> str:
        """The right tags."""
        return f"<answer>{', '.join(wanted(problem, self.name)['target'])}</answer>"


def read_tags(answer: str) -> list[str]:
    """The tags of an answer, as they are written; none of an empty one."""
    return [tag.strip() for tag in answer.split(",")] if answer.strip() else []


def wrong_positions(given: Sequence[str], target: Sequence[str]) -> list[int]:
    """Positions, from 0, whose tag differs from the target's, ignoring case."""
    return [i for i, tag in enumerate(target) if i >= len(given) or given[i].lower() != tag.strip().lower()]


def _problem(where: str, row: Row) -> Problem:
    context, target = text_of(row, "context", where), read_tags(text_of(row, "target", where))
    head, found, questions = context.partition("Answer the following")
    options = _options(head)
    asked = [(m["entity"], m["sentence"].removesuffix("?").strip()) for m in _QUESTION.finditer(questions)]
    if not found or not options or not asked:
        raise ResdError(f"row {where}: 'context' is not a FiNER question (options, then numbered questions)")
    if len(asked) != len(target):
        raise ResdError(f"row {where}: has {len(asked)} questions and {len(target)} tags in 'target'")
    if unknown := [tag for tag in target if tag not in options]:
        raise ResdError(
            f"row {where}: the tag {clip(unknown[0], 80)!r} of 'target' is not one of the options"
        )
    metadata = {
        "task": "finer",
        "entities": tuple(entity for entity, _ in asked),
        "sentences": tuple(sentence for _, sentence in asked),
        "options": options,
        "target": tuple(target),
    }
    return Problem(where, ({"role": "user", "content": _question(options, asked)},), metadata)


@lru_cache(maxsize=16)  # all rows of a file share one list of options
def _options(head: str) -> tuple[str, ...]:
    listed = head.partition("options:")[2].strip().rstrip(".")
    return tuple(tag.strip() for tag in listed.split(",") if tag.strip())


@lru_cache(maxsize=16)
def _lowered(options: tuple[str, ...]) -> frozenset[str]:
    return frozenset(tag.lower() for tag in options)


def _question(options: Sequence[str], asked: Sequence[tuple[str, str]]) -> str:
    numbered = "\n".join(f'{i}. "{entity}" in: {text}' for i, (entity, text) in enumerate(asked, start=1))
    return (
        "Figures in financial reports carry US GAAP tags (XBRL), which say what they measure. Below are the "
        f"tags to choose from, then {len(asked)} figures, each in its sentence. Find the tag that fits each "
        "figure best. The figures are independent of each other, and may have the same tag.\n\n"
        f"Tags: {', '.join(options)}\n\nFigures:\n{numbered}\n\n"
        f"Think about each figure first if you like. {_form(len(asked))}"
    )


def _form(count: int) -> str:
    places = ", ".join(f"tag {i}" for i in range(1, count + 1))
    return (
        f"Give {count} tags as <answer>{places}</answer>: tags alone, in the order of the figures, with "
        "commas between them."
    )


def _feedback(metadata: Mapping[str, Any], given: Sequence[str], wrong: Sequence[int], reveal: bool) -> str:
    total = len(metadata["target"])
    shown = wrong[:_MAX_SHOWN]
    numbers = ", ".join(str(i + 1) for i in shown) + (", ..." if len(wrong) > len(shown) else "")
    lines = [f"{total - len(wrong)} of {total} tags are right. Wrong: {numbers}."]
    if len(given) != total:
        lines.append(f"Wrong count: the answer, split at its commas, has {len(given)} and not {total} tags.")
    lines += [_position(metadata, given, i, reveal) for i in shown]
    return "\n".join(lines)


def _position(metadata: Mapping[str, Any], given: Sequence[str], i: int, reveal: bool) -> str:
    entity, sentence = metadata["entities"][i], metadata["sentences"][i]
    tag = " ".join(given[i].split()) if i < len(given) else ""
    if not tag:
        fault = "no tag is given"
    elif tag.lower() in _lowered(metadata["options"]):
        fault = f"{tag} is wrong"
    else:
        fault = f"{clip(tag, _MAX_TAG)} is none of the tags to choose from"
    right = f"; the right tag is {metadata['target'][i]}" if reveal else ""
    return f'{i + 1}. "{clip(entity, 40)}" in "{_excerpt(sentence, entity)}": {fault}{right}.'


def _excerpt(sentence: str, entity: str) -> str:
    """The words around an entity, which is delimited by blanks."""
    at = max(f" {sentence} ".find(f" {entity} "), 0)
    start, end = max(at - _AROUND, 0), at + min(len(entity), 40) + _AROUND
    return ("..." if start else "") + sentence[start:end] + ("..." if end < len(sentence) else "")
