"""The records that flow through one training step, in order of creation.

`Problem` -> `Request` -> `Response` -> `Verdict` -> `Attempt` -> `TrainingExample`. Everything here is frozen
and free of torch, so that it can be journalled, compared and sent between processes unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Message = dict[str, str]
FinishReason = Literal["stop", "length", "cancelled"]


class ResdError(Exception):
    """An error the user can fix. The message says what, where and what to do, in one sentence."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One task: the chat that the student sees, and what its grader needs to know."""

    id: str
    messages: tuple[Message, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def question(self) -> str:
        """The last user message: the text that teacher prompts and reflections quote."""
        return next(m["content"] for m in reversed(self.messages) if m["role"] == "user")


@dataclass(frozen=True, slots=True)
class Request:
    """One generation: prompt tokens in, at most `max_tokens` out (the response limit, not prompt + response).

    `schema` is a JSON schema that the reply must follow; engines close it before the limit. The randomness of
    this request depends on `seed` alone, whatever else is in its batch.
    """

    id: str
    prompt_ids: tuple[int, ...]
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """The reply to a request. `token_ids` end with the stop token when `finish_reason` is "stop".

    `logprobs` (one per token) are those of the distribution that was sampled: after temperature, top-p and
    grammar. `text` is decoded without special tokens.
    """

    request_id: str
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class Verdict:
    """An environment's grade of a response. `feedback` is "" exactly when every test passed."""

    reward: float
    passed: int
    total: int
    feedback: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def solved(self) -> bool:
        return self.total > 0 and self.passed == self.total

    @property
    def pass_rate(self) -> float:
        return self.passed / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One graded attempt. `sample` numbers the attempts at one problem within one step, from 0."""

    problem: Problem
    sample: int
    prompt_ids: tuple[int, ...]
    response: Response
    verdict: Verdict

    @property
    def key(self) -> str:
        """Unique within a step."""
        return f"{self.problem.id}#{self.sample}"


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """An attempt as the learner sees it.

    If `teacher_prompt_ids` is None, there is nothing to distil, but the example still counts in the
    denominator of `seq_mean_including_empty`. `advantage` is for policy-gradient objectives.
    """

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    rollout_logprobs: tuple[float, ...]
    teacher_prompt_ids: tuple[int, ...] | None = None
    weight: float = 1.0
    advantage: float = 0.0
