"""Decoding one batch, from its prompts to the end of its last reply."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resd.generation.batching import common_prefix
from resd.generation.forward import BatchForward, evaluating
from resd.generation.replies import Reply
from resd.generation.sampling import SamplingParameters, draw, log_probabilities
from resd.records import ResdError

# Finished rows are dropped once they make up this share of the batch.
COMPACT_AT = 0.25


class Run:
    """Advances all rows of a batch by one token at a time. `replies` are sorted by prompt, shortest first.

    `by_columns`: the model measures distances in columns (`probe.counts_columns`).
    """

    def __init__(
        self, model: Any, replies: Sequence[Reply], stop_ids: Sequence[int], *, by_columns: bool = False
    ) -> None:
        self._model = model
        self._stop_ids = stop_ids
        self.rows = list(replies)
        prompts = [row.request.prompt_ids for row in self.rows]
        # If columns count, there must be no padding between prefix and suffix.
        shared = 0 if by_columns else common_prefix(prompts)
        reply = max(row.request.max_tokens for row in self.rows)
        self._forward = BatchForward(
            model,
            prompts[0][:shared],
            [prompt[shared:] for prompt in prompts],
            reply,
            by_columns=by_columns,
        )
        self._device = self._forward.device
        self._steps = 0
        self._uniforms = self._padded_uniforms(reply)
        self._parameters = self._sampling_parameters()
        self._last: Tensor | None = None

    @property
    def open(self) -> bool:
        """Whether any reply is unfinished."""
        return any(row.finish_reason is None for row in self.rows)

    @torch.inference_mode()
    def advance(self) -> list[Reply]:
        """Generate one token for every open row; returns the replies that finished."""
        with evaluating(self._model):
            logits = self._logits()
        logprobs = log_probabilities(logits, self._parameters, self._allowed(logits.shape[-1]))
        ids, chosen = draw(logprobs, self._uniforms[:, self._steps], self._parameters)
        self._steps += 1
        active = [row for row in self.rows if row.finish_reason is None]
        for row, token, logprob in zip(self.rows, ids.tolist(), chosen.tolist(), strict=True):
            if row.finish_reason is None:
                _check_finite(logprob, row)
                row.take(token, logprob, self._stop_ids)
        self._last = ids
        return [row for row in active if row.finish_reason is not None]

    def _logits(self) -> Tensor:
        if self._last is None:
            return self._forward.prefill()
        self._compact()
        return self._forward.step(self._last)

    def _compact(self) -> None:
        """Occasionally drop finished rows; read back tokens that grammars have replaced."""
        kept = [i for i, row in enumerate(self.rows) if row.finish_reason is None]
        if len(kept) <= (1 - COMPACT_AT) * len(self.rows):
            self._forward.keep(kept)
            self._uniforms = self._uniforms[kept]
            self.rows = [self.rows[i] for i in kept]
            self._parameters = self._sampling_parameters()
            self._last = self._newest()
        elif any(row.constraint for row in self.rows):
            self._last = self._newest()

    def _newest(self) -> Tensor:
        return torch.tensor(
            [row.token_ids[-1] if row.token_ids else 0 for row in self.rows], device=self._device
        )

    def _allowed(self, vocabulary: int) -> Tensor | None:
        if not any(row.constraint for row in self.rows):
            return None
        allowed = np.ones((len(self.rows), vocabulary), dtype=bool)
        for mask, row in zip(allowed, self.rows, strict=True):
            if row.finish_reason is None and (known := row.allowed()) is not None:
                # The model's vocabulary may be larger or smaller than the tokenizer's.
                mask[:] = False
                mask[: len(known)] = known[:vocabulary]
        return torch.from_numpy(allowed).to(self._device)

    def _padded_uniforms(self, width: int) -> Tensor:
        table = np.zeros((len(self.rows), width))
        for i, row in enumerate(self.rows):
            table[i, : len(row.uniforms)] = row.uniforms
        return torch.from_numpy(table).to(self._device)

    def _sampling_parameters(self) -> SamplingParameters:
        requests = [row.request for row in self.rows]
        return SamplingParameters.of(
            [r.temperature for r in requests], [r.top_p for r in requests], self._device
        )


def _check_finite(logprob: float, row: Reply) -> None:
    if not math.isfinite(logprob):
        raise ResdError(
            f"request {row.request.id!r}: the model's logits are not finite (NaN or infinite) after "
            f"{len(row.token_ids)} tokens; lower optimizer.learning_rate and resume from an earlier "
            "checkpoint or, for published weights, set compute_dtype to float32"
        )
