"""How rank 0 drives all ranks: the learner's methods, and generation.

Rank 0 broadcasts every collective call, by name and arguments, before doing its own part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from resd.config import RunConfig, TeacherConfig
from resd.generation.engine import GenerationEngine
from resd.learner.learner import Learner, State, Tokens
from resd.learner.model import load_student, resolve_device
from resd.learner.parallel import Ranks, partition, take_device
from resd.learner.shell import Weights, read
from resd.learner.teacher import make_teacher
from resd.learner.totals import Metrics
from resd.objectives.objective import Objective
from resd.records import Request, Response, TrainingExample
from resd.training import checkpoint

# Whose weights an engine has, named by the learner's method that yields them.
Whose = Literal["weights", "teacher_weights"]


@dataclass(frozen=True)
class Start:
    """Everything needed to build a learner. `found` is the checkpoint to resume from."""

    config: RunConfig
    found: Path | None
    updates: int

    def load_model(self, ranks: Ranks) -> tuple[Any, Weights | None]:
        """Load the student; a shell and its weights if it will be sharded."""
        device = take_device(resolve_device(self.config.device), ranks)
        if ranks.shared and self.config.lora.rank is None:
            return read(lambda: load_student(self.config, self.found, "cpu"), device, ranks)
        return load_student(self.config, self.found, device), None

    def learner(self, model: Any, ranks: Ranks, weights: Weights | None = None) -> Learner:
        teacher = make_teacher(_teacher(self.config), model)
        learner = Learner(
            model, teacher, self.config, total_updates=self.updates, ranks=ranks, weights=weights
        )
        if self.found:
            learner.load(self.found / checkpoint.STATE)
        return learner


class Leader:
    """Rank 0's learner; each call runs on all ranks."""

    def __init__(self, learner: Learner, ranks: Ranks) -> None:
        self.learner, self.ranks = learner, ranks
        self.model: Any = learner.model

    @property
    def version(self) -> int:
        return self.learner.version

    def update(self, examples: Sequence[TrainingExample], objective: Objective) -> Metrics:
        metrics: Metrics = self._everywhere("update", examples, objective)
        return metrics

    def divergences(self, examples: Sequence[TrainingExample], objective: Objective) -> list[list[float]]:
        values: list[list[float]] = self._everywhere("divergences", examples, objective)
        return values

    def score(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> list[float]:
        scores: list[float] = self._everywhere("score", pairs)
        return scores

    def logprobs(self, prompt: Sequence[int], reply: Sequence[int]) -> Tensor:
        """Not broadcast: each rank's engine calls its own learner."""
        return self.learner.logprobs(prompt, reply)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """For a `DistributedEngine`, which makes all ranks gather each tensor together."""
        return self.learner.weights()

    def teacher_weights(self) -> Iterator[tuple[str, Tensor]]:
        """For a `DistributedEngine`, like `weights`."""
        return self.learner.teacher_weights()

    def model_state(self) -> State:
        state: State = self._everywhere("model_state")
        return state

    def save(self, folder: Path) -> None:
        self._everywhere("save", folder)

    def memory(self) -> float:
        """The memory of rank 0, which also generates."""
        return self.learner.memory()

    def _everywhere(self, method: str, *words: Any) -> Any:
        self.ranks.broadcast((method, words))
        return getattr(self.learner, method)(*words)


class DistributedEngine:
    """Distributes the requests to rank 0's engine over all ranks, each of which has an engine.

    With tensor parallelism, `parts` neighbouring ranks share an engine: they get the same requests and run in
    lockstep.
    """

    def __init__(self, engine: GenerationEngine, whose: Whose, ranks: Ranks, parts: int = 1) -> None:
        self.engine, self.whose, self.ranks, self.parts = engine, whose, ranks, parts

    def submit(self, requests: Sequence[Request]) -> Iterator[Response]:
        """Yield rank 0's own responses as they finish, then those of the others."""
        lengths = [len(request.prompt_ids) + request.max_tokens for request in requests]
        indices = partition(lengths, self.ranks.size // self.parts)
        shares = [[requests[i] for i in share] for share in indices for _ in range(self.parts)]
        self.ranks.broadcast(("generate", (self.whose, shares)))
        return self._collect(self.engine.submit(shares[0]))

    def cancel(self, ids: Iterable[str]) -> None:
        """Other ranks' requests, and those shared with rank 0, still run to their end."""
        if self.parts == 1:
            self.engine.cancel(ids)

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Wake all ranks at once, since a waking engine may gather weights from all of them."""
        self.ranks.broadcast(("wake", (self.whose,)))
        with self.engine.awake():
            yield
            self.ranks.broadcast(("sleep", (self.whose,)))  # not after an error, which ends all ranks

    def load_weights(self, named_tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Load the weights of a `Leader`; the other ranks load theirs as tensors are gathered."""
        self.ranks.broadcast(("load", (self.whose,)))
        self.engine.load_weights(named_tensors)

    def _collect(self, own: Iterator[Response]) -> Iterator[Response]:
        yield from own
        for responses in self.ranks.collect([])[:: self.parts]:
            yield from responses


def _teacher(config: RunConfig) -> TeacherConfig:
    """The configured teacher; if no algorithm uses one, the live one, which costs no memory."""
    return config.teacher if config.has_teacher else TeacherConfig(kind="live")
