"""AdamW with linear warm-up and a bound on the gradient's norm."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from resd.config import OptimizerConfig


@dataclass(frozen=True, slots=True)
class StepResult:
    """`grad_norm` is before clipping. `taken` is False when it was not finite and nothing was changed."""

    taken: bool
    grad_norm: float
    learning_rate: float


class Optimizer:
    """One `step()` per global batch, on the gradients that lie on the parameters."""

    def __init__(self, parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> None:
        self.config = config
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.steps = 0
        self.adamw = torch.optim.AdamW(
            self.parameters,
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in self.parameters),
        )

    def learning_rate(self) -> float:
        """Of the next step. The first has 1/warmup of the full rate, not 0."""
        warmup = max(self.config.warmup_updates, 1)
        return self.config.learning_rate * min(1.0, (self.steps + 1) / warmup)

    def step(self) -> StepResult:
        """Clip, step and clear the gradients; skip the step if their global norm is not finite."""
        rate = self.learning_rate()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.grad_clip)
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
        self.adamw.load_state_dict(state["adamw"])
        self.steps = int(state["steps"])
