"""The student: body, head and loss in one forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from resd.learner.layout import Layout
from resd.learner.model import body, projection, record_prefix, response_hidden
from resd.objectives.chunked import Projection, Stats

# Maps the projection of a micro-batch's tokens to its loss, a scalar, and statistics `[tokens]`.
Score = Callable[[Projection], tuple[Tensor, Stats]]
Scored = TypeVar("Scored")


class LossHead(nn.Module):
    """A model's output layer fused with a loss, which uses its weight and never materialises `[T, V]`."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear = linear

    # The loss has its own tiles, kernels and gradients: there is nothing to compile.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, hidden: Tensor, score: Callable[[Projection], Scored]) -> Scored:
        """`hidden` `[tokens, H]`."""
        with torch.autocast(hidden.device.type, enabled=False):  # the loss has its own compute dtype
            return score(projection(self.linear, hidden))


class Student(nn.Module):
    """A causal language model for training: its forward returns the loss (`Score`).

    As a single forward of one module it can be compiled and sharded (`parallel.shard`). A teacher's forward
    returns the projection itself, and runs over the shared prefix first if that is not recorded yet.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.body: nn.Module = body(model)
        self.head = LossHead(model.get_output_embeddings())

    def forward(self, layout: Layout, score: Callable[[Projection], Scored]) -> Scored:
        if layout.sequences is not None and layout.sequences.prefix is not None:
            record_prefix(self.body, layout.sequences.prefix, layout.input_ids.device)
        return self.head(response_hidden(self.body, layout), score)  # type: ignore[no-any-return]
