"""Shared by graders of short answers: finding the answer, feedback if there is none, fields of rows.

The answer is the last `<answer>` element after the thinking. If a reply has none, the feedback says why: its
thought never ended, it was cut off, the element was never closed, or there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from resd.chat import THINK_CLOSE, THINK_OPEN
from resd.environments.base import answer_text, reply_text
from resd.records import Problem, ResdError, Response, Verdict

OPEN, CLOSE = "<answer>", "</answer>"
_KEPT = 500  # characters of an answer in a verdict's details


def last_answer(text: str) -> str | None:
    """The content of the last complete `<answer>` element, stripped; of nested ones, the inner one's."""
    end = text.rfind(CLOSE)
    start = text.rfind(OPEN, 0, end) if end >= 0 else -1
    if start < 0:
        return None
    start += len(OPEN)
    return text[start : text.index(CLOSE, start)].strip()


def unanswered(response: Response | str, total: int, form: str, what: str = OPEN) -> Verdict:
    """The verdict on a reply without an answer. `form` says what one looks like, `what` opens it."""
    return unreadable(response, total, f"No answer: {why_unanswered(response, what)} {form}")


def unreadable(response: Response | str, total: int, feedback: str) -> Verdict:
    """The verdict on a reply whose answer cannot be read."""
    return Verdict(0.0, 0, total, feedback, details(response, None))


def details(response: Response | str, answer: str | None) -> dict[str, Any]:
    """What verdicts keep beside the feedback. `answer` is None if none could be read."""
    kept = None if answer is None else clip(answer, _KEPT)
    return {"incorrect_format": answer is None, "truncated": was_cut_off(response), "answer": kept}


def was_cut_off(response: Response | str) -> bool:
    """Whether the length limit ended the reply; unknown, and so False, for plain text."""
    return isinstance(response, Response) and response.finish_reason == "length"


def clip(text: str, limit: int) -> str:
    """At most `limit` characters of a text, for feedback."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def text_of(row: Mapping[str, Any], key: str, where: str) -> str:
    """A field of a row. Raises ResdError where it holds no text."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ResdError(f"row {where}: {key!r} contains no text; every row needs it")
    return value


def wanted(problem: Problem, task: str) -> Mapping[str, Any]:
    """The metadata of a problem of `task`. Raises ResdError for a problem of another environment."""
    metadata: Mapping[str, Any] = problem.metadata
    if metadata.get("task") != task:
        raise ResdError(f"problem {problem.id}: does not belong to {task}; grade it with its own environment")
    return metadata


def check_choice(task: str, option: str, value: str, known: Sequence[str]) -> None:
    """Raises ResdError for an option's value that is not known."""
    if value not in known:
        raise ResdError(f"{task}: {option} {value!r} is not known; choose one of {', '.join(known)}")


def why_unanswered(response: Response | str, what: str) -> str:
    """Why a reply holds no `what`, as the end of a sentence."""
    reply = reply_text(response)
    if THINK_OPEN in reply and THINK_CLOSE not in reply:
        cut = was_cut_off(response)
        end = "the length limit came before the thought ended" if cut else "the thought never ended"
        return f"{end}; what is written inside it does not count."
    if was_cut_off(response):
        return "the reply was cut off at the length limit before its answer was complete."
    if what in answer_text(response):
        return f"{what} was opened and never closed."
    return f"after the thinking there is no {what}." if THINK_CLOSE in reply else f"the reply has no {what}."
