"""A character tokenizer, an engine that answers by role, and attempts in one call."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from resd.records import Attempt, Problem, Request, Response, Verdict


class CharTokenizer:
    """One token per character; the template may open the thought, as thinking models' templates do."""

    def __init__(self, opens_thinking: bool = False) -> None:
        self.header = "<assistant>" + ("<think>\n" if opens_thinking else "")

    def apply_chat_template(self, messages: Sequence[dict[str, str]], **_: Any) -> list[int]:
        text = "".join(f"<{m['role']}>{m['content']}" for m in messages)
        return self.encode(text + self.header)

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [ord(character) for character in text]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return "".join(map(chr, ids))


Answer = Callable[[str, Request], str]


class ScriptedEngine:
    """Answers each request with `answers[role](prompt text, request)`; keeps the waves that it was sent."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = answers
        self.waves: list[list[Request]] = []

    def submit(self, requests: Sequence[Request]) -> Iterator[Response]:
        self.waves.append(list(requests))
        for request in reversed(requests):  # out of order, as real engines do
            role = request.id.split("/")[0]
            text = self.answers[role](CharTokenizer().decode(request.prompt_ids), request)
            yield Response(request.id, text, tuple(map(ord, text)), (0.0,) * len(text), "stop")

    def cancel(self, ids: Iterable[str]) -> None: ...

    def awake(self) -> AbstractContextManager[None]:
        return nullcontext()

    def load_weights(self, named_tensors: Iterable[tuple[str, Any]]) -> None: ...

    def roles(self) -> list[list[str]]:
        return [[request.id.split("/")[0] for request in wave] for wave in self.waves]


def attempt(
    problem_id: str,
    *,
    solved: bool = False,
    text: str = "my try",
    sample: int = 0,
    feedback: str = "bad tape",
) -> Attempt:
    problem = Problem(problem_id, ({"role": "user", "content": f"question {problem_id}"},))
    verdict = Verdict(float(solved), int(solved), 1, "" if solved else feedback)
    response = Response(problem_id, text, tuple(map(ord, text)), (0.0,) * len(text), "stop")
    return Attempt(problem, sample, (1, 2), response, verdict)


def reflection_json(*lessons: str, error: str = "an error", fix: str = "a fix", **tags: str) -> str:
    """Tags by id with "_" for "-"."""
    listed = [{"id": key.replace("_", "-"), "tag": tag} for key, tag in tags.items()]
    return json.dumps({"error": error, "fix": fix, "lessons": list(lessons), "tags": listed})


def curation_json(*contents: str, section: str = "common_mistakes_to_avoid") -> str:
    operations = [{"type": "ADD", "section": section, "content": content} for content in contents]
    return json.dumps({"operations": operations})
