"""The state of one request during generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resd.generation.sampling import uniforms
from resd.generation.structured import Constraint
from resd.records import FinishReason, Request, Response


@dataclass(slots=True)
class Reply:
    """Grows by one token per step until `finish_reason` is set."""

    request: Request
    uniforms: NDArray[np.float64]
    constraint: Constraint | None = None
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    @classmethod
    def to(cls, request: Request, constraint: Constraint | None = None) -> Reply:
        return cls(request, uniforms(request.seed, request.max_tokens), constraint)

    @property
    def remaining(self) -> int:
        """The number of tokens that may still be generated."""
        return self.request.max_tokens - len(self.token_ids)

    def allowed(self) -> NDArray[np.bool_] | None:
        """The mask of tokens that the grammar allows next; None if unconstrained."""
        return self.constraint.allowed(self.remaining) if self.constraint else None

    def take(self, token: int, logprob: float, stop_ids: Sequence[int]) -> None:
        """Append the drawn token, or its replacement by a grammar near its limit; check for the end."""
        if self.constraint is not None:
            token, stands = self.constraint.commit(token, self.remaining)
            logprob = logprob if stands else 0.0
        self._append(token, logprob)
        if self.constraint is not None and self.constraint.finished and token not in stop_ids:
            self._append(stop_ids[0], 0.0)  # nothing else can follow: no forward needed
        if self.token_ids[-1] in stop_ids:
            self.finish_reason = "stop"
        elif self.remaining == 0:
            self.finish_reason = "length"

    def _append(self, token: int, logprob: float) -> None:
        self.token_ids.append(token)
        self.logprobs.append(logprob)

    def response(self, tokenizer: Any) -> Response:
        """The finished response."""
        assert self.finish_reason is not None
        return Response(
            request_id=self.request.id,
            text=tokenizer.decode(
                self.token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            ),
            token_ids=tuple(self.token_ids),
            logprobs=tuple(self.logprobs),
            finish_reason=self.finish_reason,
        )
