"""AdamW with linear warm-up, a schedule to the end of the run, and gradient clipping by norm."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from resd.config import OptimizerConfig
from resd.learner.parallel import own_part, whole


@dataclass(frozen=True, slots=True)
class StepResult:
    """`grad_norm` is before clipping. `taken` is False if it was not finite and the step was skipped."""

    taken: bool
    grad_norm: float
    learning_rate: float


class Optimizer:
    """One `step()` per global batch, on the gradients stored in the parameters.

    The schedule is spread over `total_steps`, including warm-up. This is not part of the state: a run resumed
    with another total follows the schedule of that total.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], config: OptimizerConfig, *, total_steps: int
    ) -> None:
        self.config, self.total_steps = config, total_steps
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.steps = 0
        self.adamw = torch.optim.AdamW(
            self.parameters,
            lr=config.learning_rate,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
            fused=all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in self.parameters),
        )

    def learning_rate(self) -> float:
        """The learning rate of the next step. The first step has 1/warmup of the full rate, not 0."""
        return self.config.learning_rate * rate_factor(self.steps, self.total_steps, self.config)

    def step(self) -> StepResult:
        """Clip, step and clear the gradients; skip the step if their global norm is not finite."""
        rate = self.learning_rate()
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = whole(nn.utils.get_total_norm(gradients))
        nn.utils.clip_grads_with_norm_(self.parameters, self.config.grad_clip, norm)
        taken = bool(torch.isfinite(norm))
        if taken:
            for group in self.adamw.param_groups:
                group["lr"] = rate
            self.adamw.step()
            self.steps += 1
        self.clear()
        return StepResult(taken, float(norm), rate)

    def clear(self) -> None:
        self.adamw.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {"adamw": self.adamw.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        kept = {
            index: {name: own_part(value, self.parameters[index]) for name, value in values.items()}
            for index, values in state["adamw"]["state"].items()
        }
        self.adamw.load_state_dict({**state["adamw"], "state": kept})
        self.steps = int(state["steps"])


def rate_factor(step: int, total: int, config: OptimizerConfig) -> float:
    """The fraction of the full rate at `step` (from 0) of `total`.

    The warm-up rises linearly to 1. The step after it still has 1, and `final_ratio` would be reached one
    step after the last, so that no step has a rate of 0.
    """
    warmup = config.warmup_updates
    if step < warmup:
        return (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(total - warmup, 1))
    match config.schedule:
        case "constant":
            return 1.0
        case "linear":
            left = 1.0 - done
        case "cosine":
            left = (1.0 + math.cos(math.pi * done)) / 2
    return config.final_ratio + (1.0 - config.final_ratio) * left
