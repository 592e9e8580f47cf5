"""A loaded model that works on one problem after another, each from the initial weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from resd import environments
from resd.config import RunConfig
from resd.context.seeding import derive_seed
from resd.environments.base import Environment
from resd.generation.engine import GenerationEngine
from resd.generation.rotary import pin
from resd.learner.learner import Learner
from resd.learner.model import load_model, load_tokenizer, weights_dtype
from resd.learner.parallel import ALONE
from resd.records import Attempt, Problem, Request, Response
from resd.training import setup
from resd.training.leader import Start
from resd.training.lengths import longest_sequence
from resd.training.rollout import PromptIds, Sampling, roll_out


class Metered:
    """An engine that counts the tokens it generates."""

    def __init__(self, engine: GenerationEngine) -> None:
        self.engine, self.tokens = engine, 0

    def submit(self, requests: Sequence[Request]) -> Iterator[Response]:
        return self._count(self.engine.submit(requests))

    def cancel(self, ids: Iterable[str]) -> None:
        self.engine.cancel(ids)

    def awake(self) -> AbstractContextManager[None]:
        return self.engine.awake()

    def load_weights(self, named_tensors: Iterable[tuple[str, Tensor]]) -> None:
        self.engine.load_weights(named_tensors)

    def _count(self, responses: Iterator[Response]) -> Iterator[Response]:
        for response in responses:
            self.tokens += len(response.token_ids)
            yield response


@dataclass
class Bench:
    """What every method works with. `learner` is None if the weights are not trained.

    `author` decodes reflections with the teacher's weights; None if `engine` does. `prompt_tokens` is the
    maximum length of a growing prompt.
    """

    config: RunConfig
    environment: Environment
    tokenizer: Any
    model: Any
    engine: Metered
    author: Metered | None
    learner: Learner | None
    prompt_tokens: int
    _first: dict[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.learner:
            self._first = on_cpu({"model": self.learner.model_state(), "learner": self.learner.state_dict()})

    @property
    def tokens(self) -> int:
        """Tokens generated so far, for any purpose."""
        return self.engine.tokens + (self.author.tokens if self.author else 0)

    def reset(self, updates: int) -> None:
        """Restore the initial weights, teacher and optimizer, for at most `updates` updates."""
        if self.learner is None:
            return
        self.learner.optimizer.total_steps = updates
        if self.learner.version:
            self.learner.model.load_state_dict(self._first["model"], strict=False)  # adapters are a part
            self.learner.load_state_dict(self._first["learner"])
        self.load_weights()

    def load_weights(self) -> None:
        """Give the engines the current weights."""
        assert self.learner is not None
        self.engine.load_weights(self.learner.weights())
        if self.author:
            self.author.load_weights(self.learner.teacher_weights())

    def attempt(
        self,
        problems: Sequence[Problem],
        seed: int,
        first: int,
        count: int,
        prompt_ids: PromptIds | None = None,
    ) -> list[Attempt]:
        """Attempts number `first` to `first + count - 1` at each problem, graded.

        The draws depend on the seed, the problem, the number and the weights, but not on the method.
        """
        rollout = self.config.rollout
        with self.engine.awake():
            return roll_out(
                problems,
                self.engine,
                self.environment,
                self.tokenizer,
                Sampling(count, rollout.max_tokens, rollout.temperature, rollout.top_p, rollout.thinking),
                seed=lambda problem, sample: derive_seed(seed, "attempt", problem.id, first + sample),
                prompt_ids=prompt_ids,
            )


def open_bench(config: RunConfig, *, learns: bool, environment: Environment | None = None) -> Bench:
    """Load the model, with optimizer and teacher if it `learns`, and the environment unless it is given.

    Raises ResdError like a run.
    """
    device = setup.find_device(config)
    environment = environment or environments.load(config.environment.name, **config.environment.options)
    tokenizer = load_tokenizer(config.model)
    learner, author = None, None
    if learns:
        learner, model, teacher = setup.make_learner(Start(config, None, updates=0), ALONE)
        author = setup.make_author(teacher, tokenizer, config)
    else:
        model = pin(load_model(config.model, device, dtype=weights_dtype(config, device)), config)
    engine = setup.make_engine(model, tokenizer, config)
    room = longest_sequence(config, model) - config.rollout.max_tokens
    return Bench(
        config=config,
        environment=environment,
        tokenizer=tokenizer,
        model=model,
        engine=Metered(engine),
        author=Metered(author) if author else None,
        learner=learner,
        prompt_tokens=min(config.context.max_prompt_tokens, room),
    )


def on_cpu(state: Any) -> Any:
    """A checkpoint in memory: a copy that further training does not change."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, Mapping):
        return {name: on_cpu(value) for name, value in state.items()}
    return copy.deepcopy(state)
