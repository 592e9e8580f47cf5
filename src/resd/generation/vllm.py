"""vLLM as a generation engine, in the trainer's process and on its devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from resd.config import GenerationConfig
from resd.generation import vllm_runtime
from resd.generation.batching import check
from resd.generation.decoder import preferred_dtype, stop_ids
from resd.generation.replies import Reply
from resd.generation.structured import Grammars, grammar_text
from resd.generation.vocabulary import Vocabulary
from resd.records import Request, ResdError, Response

# `(prompt, reply)` -> log-probs of the reply's tokens at temperature 1, `[T]`, by the trainer's forward.
Reference = Callable[[Sequence[int], Sequence[int]], Tensor]
PROBE = "A push of weights is only done when both sides say the same."
PROBE_TOKENS = 8
STEPS_AHEAD = 4
# Mean difference of log-probs that rounding can explain. A wrong tensor causes differences of several nats.
APART = {torch.float32: 0.01, torch.bfloat16: 0.1, torch.float16: 0.05}


class VLLMEngine:
    """Generates with a copy of the trainer's model inside vLLM (see `GenerationEngine`).

    On CUDA the engine sleeps outside `awake()` and holds neither weights nor cache; when it wakes, it reloads
    the weights of the last `load_weights`. Those are kept by reference: a trainer that changes them in place
    must call `load_weights` after each change. On other devices it never sleeps. A sharded model is gathered
    one tensor at a time.

    `compute_dtype` is as for the `Decoder`. With `reference`, each weight push is followed by a comparison of
    one reply's log-probs with the trainer's, which raises ResdError if they differ.

    A request's seed determines its randomness; its logits may still depend in the last digits on the rest of
    the batch, which occasionally changes a token. If a model could have opened a thinking block before a
    document and did not, the log-prob of the document's first token is conditional on that.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        config: GenerationConfig,
        *,
        compute_dtype: torch.dtype | Literal["auto"] = "auto",
        grammar_after: str | None = None,
        reference: Reference | None = None,
    ) -> None:
        vllm_runtime.check_vllm(config, model.device.type)
        self._model = model
        self._tokenizer = tokenizer
        self._grammar_after = grammar_after
        self._reference = reference
        self._stop_ids = stop_ids(model, tokenizer)
        self._max_length = vllm_runtime.max_length(model, config)
        self._dtype = preferred_dtype(model) if compute_dtype == "auto" else compute_dtype
        self._open: dict[str, Reply] = {}
        self._serving: dict[str, Reply] = {}  # by vLLM's id
        self._ids = count()
        self._tensors: dict[str, Tensor] = {}
        self._sleeps = vllm_runtime.can_sleep(model)
        self._asleep = False
        self._folder = TemporaryDirectory(prefix="resd-vllm-")
        self._llm = vllm_runtime.start(model, tokenizer, config, self._dtype, Path(self._folder.name))
        self._sleep()
        self.load_weights(())

    @cached_property
    def _grammars(self) -> Grammars:
        return Grammars(Vocabulary.of(self._tokenizer, self._stop_ids), self._grammar_after)

    def submit(self, requests: Sequence[Request]) -> Iterator[Response]:
        """Check all requests first (raises ResdError), then yield responses as they finish."""
        check(requests, self._max_length)
        replies = {r.id: self._reply(r) for r in requests}
        self._open |= replies
        return self._generate(replies)

    def cancel(self, ids: Iterable[str]) -> None:
        """Stop these requests immediately. Unknown ids are ignored."""
        for name in set(ids) & set(self._open):
            reply = self._open[name]
            reply.finish_reason = reply.finish_reason or "cancelled"
        self._drop_finished()

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Hold weights and cache inside this context only, if the platform can release them."""
        self._wake()
        try:
            yield
        finally:
            self._sleep()

    def load_weights(self, named_tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Load tensors by parameter name; all others are read from the original model.

        A sleeping engine loads them when it wakes. Replies in progress must be finished or cancelled first.
        Raises ResdError for an unknown name, a wrong shape, or replies in progress.
        """
        if self._serving:
            raise ResdError("weights were pushed while vLLM is generating: finish or cancel requests first")
        self._tensors = self._checked(named_tensors)
        if not self._asleep:
            self._push()
            self._compare()

    def _reply(self, request: Request) -> Reply:
        constraint = self._grammars.constraint(request) if request.schema else None
        return Reply(request, np.empty(0), constraint)  # vLLM draws its own random numbers

    def _generate(self, replies: dict[str, Reply]) -> Iterator[Response]:
        if self._asleep:
            raise ResdError("the vLLM engine is asleep: generate inside `with engine.awake()`")
        try:
            for reply in replies.values():
                self._start(reply)
            waiting = dict(replies)
            while waiting:
                for name in [name for name, reply in waiting.items() if reply.finish_reason]:
                    self._open.pop(name, None)
                    yield waiting.pop(name).response(self._tokenizer)
                if not any(reply.finish_reason for reply in waiting.values()) and waiting:
                    self._step()
        finally:
            self._abandon(replies)

    def _start(self, reply: Reply) -> None:
        """Have vLLM continue a reply, from its start or from the end of another phase."""
        force_marker(reply, self._stop_ids)
        if reply.finish_reason:
            return
        name = str(next(self._ids))
        self._serving[name] = reply
        prompt = {"prompt_token_ids": [*reply.request.prompt_ids, *reply.token_ids]}
        self._llm.add_request(name, prompt, sampling_params(reply, self._stop_ids))

    def _step(self) -> None:
        for output in self._llm.step():
            if output.request_id in self._serving:
                self._advance(output.request_id, output.outputs[0])

    def _advance(self, name: str, completion: Any) -> None:
        """Append new tokens to a reply; if vLLM's request has finished its phase, start the next one."""
        reply, ended = self._serving[name], completion.finish_reason
        if ended not in (None, "stop", "length"):
            raise RuntimeError(f"vLLM gave up on request {reply.request.id!r}: {ended}")
        phase = phase_of(reply)
        for token, logprobs in zip(completion.token_ids, completion.logprobs, strict=True):
            take(reply, token, logprobs[token].logprob, self._stop_ids)
            if reply.finish_reason or phase_of(reply) != phase:
                break
        else:
            if not ended:
                return
        del self._serving[name]
        if not ended:
            self._llm.abort_request([name])
        if not reply.finish_reason:
            self._start(reply)

    def _drop_finished(self) -> None:
        """Abort vLLM's requests for replies that have finished."""
        over = [name for name, reply in self._serving.items() if reply.finish_reason]
        for name in over:
            del self._serving[name]
        if over:
            self._llm.abort_request(over)

    def _abandon(self, replies: Mapping[str, Reply]) -> None:
        """Abort replies that are no longer needed."""
        for name, reply in replies.items():
            reply.finish_reason = reply.finish_reason or "cancelled"
            if self._open.get(name) is reply:
                del self._open[name]
        self._drop_finished()

    def _checked(self, named_tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
        tensors = vllm_runtime.own_tensors(self._model)
        if any(isinstance(tensor, DTensor) for tensor in tensors.values()):
            # Shards are gathered as they are pushed, so that no rank holds a whole model.
            return {name: tensor.detach() for name, tensor in tensors.items()}
        for name, tensor in named_tensors:
            if name not in tensors or tensors[name].shape != tensor.shape:
                raise ResdError(
                    f"pushed weight {name!r} of shape {tuple(tensor.shape)} does not fit the engine's model"
                )
            tensors[name] = tensor
        return {name: tensor.detach() for name, tensor in tensors.items()}

    def _push(self) -> None:
        vllm_runtime.push(self._llm, self._model, self._tensors)
        if not self._asleep:
            self._forget()

    def _forget(self) -> None:
        """Drop cached keys and values of previous weights."""
        for _ in range(STEPS_AHEAD):
            if self._llm.reset_prefix_cache():
                return
            self._llm.step()  # a step in flight when its requests ended may hold some
        raise RuntimeError("vLLM still caches keys and values of previous weights")

    def _wake(self) -> None:
        """Wake weights first: while they are pushed, the cache's memory is still free."""
        if not self._asleep:
            return
        torch.cuda.empty_cache()  # free what the trainer no longer uses
        self._llm.wake_up(tags=["weights"])
        self._push()
        torch.cuda.empty_cache()
        self._llm.wake_up(tags=["kv_cache"])
        self._forget()
        self._asleep = False
        self._compare()

    def _sleep(self) -> None:
        if self._sleeps:
            self._abandon(dict(self._open))
            self._llm.sleep(level=2)
            self._asleep = True

    def _compare(self) -> None:
        """Compare the log-probs of one reply with the trainer's."""
        if self._reference is None:
            return
        ids = tuple(self._tokenizer.encode(PROBE, add_special_tokens=False))
        (response,) = self.submit([Request("probe of weights", ids, PROBE_TOKENS)])
        expected = self._reference(ids, response.token_ids).float().cpu()
        apart = float((torch.tensor(response.logprobs) - expected).abs().mean())
        if not apart < APART[self._dtype]:
            raise ResdError(
                f"log-probs of vLLM and of the trainer differ by {apart:.3f} after a weight push: this "
                "model's weights are not transferred correctly; set generation.engine to decoder"
            )


def phase_of(reply: Reply) -> Literal["free", "opening", "thought", "document"]:
    """What is being generated: free text, a choice between thinking and document, or one of the two."""
    if reply.constraint is None:
        return "free"
    if reply.constraint.thought is None:
        return "document"
    return "opening" if reply.constraint.thought.optional else "thought"


def sampling_params(reply: Reply, stop: Sequence[int]) -> Any:
    """vLLM's parameters for the reply's current phase.

    Thinking is free text that stop tokens must not end; a document uses the same grammar as in `Constraint`.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    request, limit, special = reply.request, reply.remaining, dict[str, Any]()
    match phase_of(reply):
        case "opening":
            assert reply.constraint is not None
            special["allowed_token_ids"] = np.flatnonzero(reply.constraint.allowed(limit)).tolist()
            limit = 1
        case "thought":
            assert reply.constraint is not None
            assert reply.constraint.thought is not None
            limit -= reply.constraint.thought.kept
            special["min_tokens"] = limit
        case "document":
            assert request.schema is not None
            special["structured_outputs"] = StructuredOutputsParams(grammar=grammar_text(request.schema))
    return SamplingParams(
        temperature=request.temperature,
        top_p=request.top_p,
        seed=request.seed & 0x7FFF_FFFF_FFFF_FFFF,
        max_tokens=limit,
        stop_token_ids=list(stop),
        logprobs=0,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        **special,
    )


def take(reply: Reply, token: int, logprob: float, stop: Sequence[int]) -> None:
    """Append a token drawn by vLLM, or start closing if the document could not be closed in time after it."""
    constraint, length = reply.constraint, len(reply.token_ids)
    if constraint is not None and phase_of(reply) == "opening":
        assert constraint.thought is not None
        if not constraint.thought.allowed(reply.remaining)[token]:
            constraint.thought = None  # a document after all: redrawn with the same seed under its grammar
            return
    reply.take(token, logprob, stop)
    if constraint is not None and reply.token_ids[length] != token:
        while reply.finish_reason is None:
            reply.take(constraint.way_out(reply.remaining), 0.0, stop)


def force_marker(reply: Reply, stop: Sequence[int]) -> None:
    """End thinking that has used up its share."""
    while (
        phase_of(reply) == "thought"
        and reply.constraint is not None
        and reply.constraint.thought is not None
        and reply.remaining <= reply.constraint.thought.kept
    ):
        (token,) = np.flatnonzero(reply.constraint.allowed(reply.remaining))
        reply.take(int(token), 0.0, stop)


def forward_logprobs(model: Any, prompt: Sequence[int], reply: Sequence[int]) -> Tensor:
    """`[T]`: log-probs of the reply's tokens at temperature 1, in one plain forward."""
    ids = torch.tensor([[*prompt, *reply]], device=model.device)
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    targets = ids[0, len(prompt) :, None]
    return torch.log_softmax(logits.float(), -1).gather(-1, targets)[:, 0]
