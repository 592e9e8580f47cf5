"""A toy task that a random model sometimes solves, and a run on it that can be killed at any moment."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch

from resd import environments
from resd.config import RunConfig, check_config
from resd.generation.engine import GenerationEngine
from resd.records import Problem, Request, ResdError, Response, Verdict
from resd.training import setup
from resd.training.stream import Stream

LETTERS = "etaoinshrdlu"


class Letters:
    """Reply with a text that holds the letter: 7 letters to train on, 3 to test."""

    name = "letters"

    def problems(self, split: str) -> list[Problem]:
        if split not in ("train", "test"):
            raise ResdError(f"split {split!r} is not known")
        letters = LETTERS[:7] if split == "train" else LETTERS[7:10]
        return [Problem(f"{split}/{x}", ({"role": "user", "content": f"Write {x}."},)) for x in letters]

    def grade(self, problem: Problem, response: Response | str) -> Verdict:
        text = response if isinstance(response, str) else response.text
        passed = (problem.id[-1] in text) + bool(text.strip())
        return Verdict(float(passed == 2), passed, 2, "" if passed == 2 else f"Passed {passed} of 2 tests.")


class ScriptedWords:
    """Replies to requests with a schema come from a script that only the seed decides; others are decoded."""

    def __init__(self, engine: GenerationEngine) -> None:
        self.engine = engine

    def submit(self, requests: Sequence[Request]) -> Iterator[Response]:
        for request in requests:
            if request.schema is not None:
                text = json.dumps(scripted(request))
                yield Response(request.id, text, (1,), (0.0,), "stop")
        yield from self.engine.submit([request for request in requests if request.schema is None])

    def cancel(self, ids: Iterable[str]) -> None:
        self.engine.cancel(ids)

    def awake(self) -> AbstractContextManager[None]:
        return self.engine.awake()

    def load_weights(self, named_tensors: Iterable[tuple[str, Any]]) -> None:
        self.engine.load_weights(named_tensors)


def scripted(request: Request) -> dict[str, Any]:
    """A reply that fits the request's schema."""
    lesson = f"Lesson {request.seed % 9}."
    replies = {
        "error": "Wrong letter.",
        "fix": "Write the right one.",
        "lessons": [lesson],
        "tags": [],
        "operations": [{"type": "ADD", "section": "others", "content": lesson}],
    }
    assert request.schema is not None
    return {key: replies[key] for key in request.schema["properties"]}


def toy_config(model: Path, output: Path, **changes: Any) -> RunConfig:
    """A run of seconds: 3 batches of 2 problems, 2 updates each. `changes` are whole sections or values."""
    data = {
        "model": str(model),
        "output": str(output),
        "device": "cpu",
        "compute_dtype": "float32",
        "environment": {"name": "letters"},
        "rollout": {"n": 2, "max_tokens": 8},
        "stream": {"batch_size": 2, "updates_per_batch": 2},
        "context": {"style": "compact", "max_prompt_tokens": 2048, "concise_frequency": 2, "max_entries": 5},
        "teacher": {"update_rate": 0.1},
        "optimizer": {"learning_rate": 1e-2, "warmup_updates": 2},
        "evaluation": {"samples": 2},
        "checkpoint": {"every_updates": 2},
    }
    return check_config(data | changes, where="toy")


@contextmanager
def in_place() -> Iterator[None]:
    """The toy environment and the scripted context replies in place of what a configuration names."""
    load, make_engine = environments.load, setup.make_engine
    environments.load = lambda name, **options: Letters()
    setup.make_engine = lambda *parts: ScriptedWords(make_engine(*parts))
    try:
        yield
    finally:
        environments.load, setup.make_engine = load, make_engine


def build_toy(config: RunConfig, *, resume: bool = False) -> Stream:
    """`setup.build` with the toy."""
    with in_place():
        return setup.build(config, resume=resume)


def run_until_killed(config: dict[str, Any], kill_at: int | None) -> None:
    """Train or resume; SIGKILL this process before the `kill_at`-th touch of the run's files."""
    torch.set_num_threads(1)  # this is a process of its own, and may share the cores with others
    touches = 0

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal touches
        if event in ("open", "os.rename", "os.truncate", "os.mkdir", "os.remove", "os.rmdir", "os.listdir"):
            touches += str(arguments[0]).startswith(config["output"])
            if touches == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    if kill_at is not None:
        sys.addaudithook(audit)
    build_toy(check_config(config, where="toy"), resume=True).train()
