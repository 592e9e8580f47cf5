"""Teachers: the weights that score responses after teacher prompts, and how they follow the student."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, cast

import torch

from resd.config import TeacherConfig
from resd.generation.merging import adapted_layers, without_adapters
from resd.learner.layout import Layout
from resd.learner.lora import own_parameters, own_state
from resd.learner.parallel import local, own_part
from resd.learner.shell import fill
from resd.learner.student import Student
from resd.objectives.chunked import Projection

State = dict[str, Any]


class Teacher(Protocol):
    """Scores one micro-batch at a time, just before the student needs it.

    `model` holds the weights of an EMA or frozen teacher; `update` changes them in place. `network` runs it.
    """

    model: Any
    network: Student

    def shard(self, student: Student, shard: Callable[[Student], None]) -> None:
        """Shard the teacher's own weights like those of `student`, which is already sharded.

        Parameters without weights take those of the student.
        """
        ...

    def projections(self, layout: Layout) -> list[Projection]:
        """The projections whose sum is the logits of the response tokens, in the ambient autocast dtype."""
        ...

    def update(self) -> None:
        """Follow the student. Called after each optimizer step taken."""
        ...

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State) -> None: ...


def make_teacher(config: TeacherConfig, model: Any) -> Teacher:
    """Build a teacher that starts as `model`, the student.

    The initial weights of a student with adapters are its base weights.
    """
    match config.kind:
        case "ema":
            return EMATeacher(model, config.update_rate)
        case "frozen":
            return _first(model)
        case "live":
            return LiveTeacher(model)
        case "trust_region":
            return TrustRegionTeacher(_first(model), model, config.update_rate)


class LiveTeacher:
    """The student's own current weights."""

    def __init__(self, student: Any) -> None:
        self.model = student
        self.network = Student(student)

    def shard(self, student: Student, shard: Callable[[Student], None]) -> None:
        self.network = student

    def projections(self, layout: Layout) -> list[Projection]:
        return [_project(self.network, layout)]

    def update(self) -> None:
        """Nothing to do: the weights are the student's."""

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        """There is no state."""


class FrozenTeacher(LiveTeacher):
    """The student's initial weights, never updated."""

    def __init__(self, student: Any) -> None:
        super().__init__(_frozen_copy(student))

    def shard(self, student: Student, shard: Callable[[Student], None]) -> None:
        shard(self.network)
        parts = dict(student.named_parameters())
        fill(self.network, lambda name, _: parts[name].detach().clone())

    def state_dict(self) -> State:
        return {"model": own_state(self.model)}

    def load_state_dict(self, state: State) -> None:
        own = self.model.state_dict()
        kept = {name: own_part(t, own.get(name)) for name, t in state["model"].items() if not t.is_meta}
        self.model.load_state_dict(own | kept)


class EMATeacher(FrozenTeacher):
    """A float32 exponential moving average of the student: `teacher += rate * (student - teacher)`.

    For a student with adapters, only the adapters are averaged; the base weights are shared.

    At a rate of 1e-4 an average in bfloat16 never moves, and `(1 - rate) * t + rate * s` is off by 15 % even
    in float32; `lerp` by 0.3 %.
    """

    def __init__(self, student: Any, rate: float) -> None:
        super().__init__(student)
        self.student, self.rate = student, rate
        for _, average in own_parameters(self.model):
            average.data = average.data.to(torch.promote_types(average.dtype, torch.float32))

    @torch.no_grad()
    def update(self) -> None:
        averages = [local(average) for _, average in own_parameters(self.model)]
        latest = [local(parameter.detach()) for _, parameter in own_parameters(self.student)]
        current = [new.to(average.dtype) for average, new in zip(averages, latest, strict=True)]
        torch._foreach_lerp_(averages, current, self.rate)


class TrustRegionTeacher:
    """Interpolates the logits of initial and current weights: `lerp(first, current, rate)` (SDPO)."""

    def __init__(self, first: Teacher, student: Any, rate: float) -> None:
        self.first, self.current, self.rate = first, Student(student), rate
        self.model, self.network = first.model, first.network

    def shard(self, student: Student, shard: Callable[[Student], None]) -> None:
        self.first.shard(student, shard)
        self.network, self.current = self.first.network, student

    def projections(self, layout: Layout) -> list[Projection]:
        first, current = _project(self.network, layout), _project(self.current, layout)
        return [replace(first, scale=1.0 - self.rate), replace(current, scale=self.rate)]

    def update(self) -> None:
        """Nothing to do: one side is fixed, the other is the student's."""

    def state_dict(self) -> State:
        return self.first.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.first.load_state_dict(state)


@torch.no_grad()
def _project(network: Student, layout: Layout) -> Projection:
    return cast(Projection, network(layout, lambda made: made))


def _first(student: Any) -> Teacher:
    if adapted_layers(student):
        return LiveTeacher(without_adapters(student, student.parameters()))
    return FrozenTeacher(student)


def _frozen_copy(model: Any) -> Any:
    """A frozen copy. Untrained weights (the base of adapters) are shared, not copied."""
    own = {id(parameter) for _, parameter in own_parameters(model)}
    shared = {id(parameter): parameter for parameter in model.parameters() if id(parameter) not in own}
    return copy.deepcopy(model, shared).requires_grad_(False).eval()
