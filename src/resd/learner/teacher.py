"""Teachers: which weights score the responses after the teacher prompts, and how they follow the student."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Protocol

import torch

from resd.config import TeacherConfig
from resd.learner.layout import Layout
from resd.learner.model import body, projection, record_prefix, response_hidden
from resd.objectives.chunked import Projection

State = dict[str, Any]


class Teacher(Protocol):
    """Scores one micro-batch at a time, just before the student needs it.

    `model` holds the weights that an EMA or a frozen teacher scores with; `update` changes them in place.
    """

    model: Any

    def projections(self, layout: Layout) -> list[Projection]:
        """What the logits of the response tokens are the sum of, in the ambient autocast dtype."""
        ...

    def update(self) -> None:
        """Follow the student. Called once after each optimizer step that was taken."""
        ...

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State) -> None: ...


def make_teacher(config: TeacherConfig, model: Any) -> Teacher:
    """A teacher that starts as `model`, the student."""
    match config.kind:
        case "ema":
            return EMATeacher(model, config.update_rate)
        case "frozen":
            return FrozenTeacher(model)
        case "live":
            return LiveTeacher(model)
        case "trust_region":
            return TrustRegionTeacher(model, config.update_rate)


class LiveTeacher:
    """The student's own current weights."""

    def __init__(self, student: Any) -> None:
        self.model = student

    def projections(self, layout: Layout) -> list[Projection]:
        return [_project(self.model, layout)]

    def update(self) -> None:
        """Nothing to do: the weights are the student's."""

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing is kept."""


class FrozenTeacher(LiveTeacher):
    """The student's first weights, for ever."""

    def __init__(self, student: Any) -> None:
        super().__init__(_frozen_copy(student))

    def state_dict(self) -> State:
        return {"model": self.model.state_dict()}

    def load_state_dict(self, state: State) -> None:
        self.model.load_state_dict(state["model"])


class EMATeacher(FrozenTeacher):
    """A float32 exponential moving average of the student: `teacher += rate * (student - teacher)`.

    At a rate of 1e-4 an average in bfloat16 never moves, and one written as `(1 - rate) * t + rate * s` is
    off by 15 % even in float32; `lerp` by 0.3 %.
    """

    def __init__(self, student: Any, rate: float) -> None:
        super().__init__(student)
        self.model.to(torch.promote_types(self.model.dtype, torch.float32))
        self.rate = rate
        self._pairs = list(zip(self.model.parameters(), student.parameters(), strict=True))

    @torch.no_grad()
    def update(self) -> None:
        averages = [average for average, _ in self._pairs]
        current = [student.detach().to(average.dtype) for average, student in self._pairs]
        torch._foreach_lerp_(averages, current, self.rate)


class TrustRegionTeacher(FrozenTeacher):
    """Logits between those of the first weights and the current ones: `lerp(first, current, rate)` (SDPO)."""

    def __init__(self, student: Any, rate: float) -> None:
        super().__init__(student)
        self.student, self.rate = student, rate

    def projections(self, layout: Layout) -> list[Projection]:
        first, current = _project(self.model, layout), _project(self.student, layout)
        return [replace(first, scale=1.0 - self.rate), replace(current, scale=self.rate)]


@torch.no_grad()
def _project(model: Any, layout: Layout) -> Projection:
    if layout.sequences is not None and layout.sequences.prefix is not None:
        record_prefix(body(model), layout.sequences.prefix, layout.input_ids.device)
    return projection(model.get_output_embeddings(), response_hidden(body(model), layout))


def _frozen_copy(model: Any) -> Any:
    return copy.deepcopy(model).requires_grad_(False).eval()
