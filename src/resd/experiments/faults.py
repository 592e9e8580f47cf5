"""Injected faults in the context engine's replies: how much does a playbook tolerate?

Wrong lessons are the lab's own, each of which teaches a violation (`resd.lab.rules`). The request's id
determines the fault, so that a resumed run has the same faults as an uninterrupted one.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from resd.context.parsing import find_object
from resd.context.seeding import derive_seed
from resd.generation.engine import GenerationEngine
from resd.lab.rules import RULES
from resd.records import Request, Response

OPPOSITE = {"helpful": "harmful", "harmful": "helpful"}


@dataclass(frozen=True)
class Faults:
    """The shares of curations that add a wrong lesson, and of tags that are inverted."""

    wrong_lessons: float = 0.0
    wrong_tags: float = 0.0


class FaultyEngine:
    """A generation engine that injects faults into some of the context engine's replies."""

    def __init__(self, engine: GenerationEngine, faults: Faults, seed: int) -> None:
        self.engine, self.faults, self.seed = engine, faults, seed

    def submit(self, requests: Sequence[Request]) -> Iterator[Response]:
        for response in self.engine.submit(requests):
            yield replace(response, text=self._spoiled(response))

    def cancel(self, ids: Iterable[str]) -> None:
        self.engine.cancel(ids)

    def awake(self) -> AbstractContextManager[None]:
        return self.engine.awake()

    def load_weights(self, named_tensors: Iterable[tuple[str, Any]]) -> None:
        self.engine.load_weights(named_tensors)

    def _spoiled(self, response: Response) -> str:
        draw = random.Random(derive_seed(self.seed, response.request_id, "fault"))
        if not response.request_id.startswith("curate/"):
            return with_wrong_tags(response.text, self.faults.wrong_tags, draw)
        return wrong_curation(draw) if draw.random() < self.faults.wrong_lessons else response.text


def wrong_curation(draw: random.Random) -> str:
    """A curator's reply that adds the wrong lesson of some rule."""
    rule = draw.choice(RULES)
    operation = {"type": "ADD", "section": rule.section, "content": rule.wrong_lesson}
    return json.dumps({"operations": [operation]})


def with_wrong_tags(text: str, share: float, draw: random.Random) -> str:
    """A reflector's or tagger's reply with some tags inverted. Unreadable replies are unchanged."""
    found = find_object(text, ("tags",))
    tags = found["tags"] if found else None
    if not share or not isinstance(tags, list):
        return text
    turned = [
        {**tag, "tag": OPPOSITE[tag["tag"]]}
        if isinstance(tag, dict) and tag.get("tag") in OPPOSITE and draw.random() < share
        else tag
        for tag in tags
    ]
    return json.dumps({**(found or {}), "tags": turned})
