"""The embedded generation engine: a batched decoder over any transformers causal language model."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from resd.generation.batching import batches, check
from resd.generation.forward import check_model, max_positions, text_config
from resd.generation.lean import LeanStep
from resd.generation.merging import adapted_layers, merged_copy, merged_weights
from resd.generation.probe import counts_columns
from resd.generation.replies import Reply
from resd.generation.run import Run
from resd.generation.structured import Grammars
from resd.generation.vocabulary import Vocabulary
from resd.records import Request, ResdError, Response


class Decoder:
    """Generates with a model that usually is the trainer's own module (see `GenerationEngine`).

    `compute_dtype` "auto" decodes float32 weights in bfloat16 if the device supports it natively. If it
    differs from the model's dtype, or the model has adapters (which are merged), the decoder keeps a copy
    that `load_weights` refreshes. If a thinking block is open, a schema applies after `grammar_after` (such
    as "</think>"). At most `max_batch` requests run at once, limited by `cache_bytes` of keys and values.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        compute_dtype: torch.dtype | Literal["auto"] = "auto",
        max_batch: int = 64,
        cache_bytes: int = 4 << 30,
        grammar_after: str | None = None,
    ) -> None:
        check_model(model)
        self._source = model
        self._tokenizer = tokenizer
        dtype = preferred_dtype(model) if compute_dtype == "auto" else compute_dtype
        self._adapted = bool(adapted_layers(model))
        plain = model if dtype == model.dtype or self._adapted else as_dtype(model, dtype)
        self._model = merged_copy(model, dtype) if self._adapted else plain
        self._max_batch = max_batch
        self._max_cached_tokens = max(1, cache_bytes // bytes_per_token(self._model))
        self._grammar_after = grammar_after
        self._stop_ids = stop_ids(model, tokenizer)
        self._open: set[str] = set()
        self._cancelled: set[str] = set()

    @cached_property
    def _grammars(self) -> Grammars:
        return Grammars(Vocabulary.of(self._tokenizer, self._stop_ids), self._grammar_after)

    @cached_property
    def _by_columns(self) -> bool:
        """See `counts_columns`. Tested lazily: the model may get its real weights after construction."""
        return LeanStep.of(self._model) is None and counts_columns(self._source)

    def submit(self, requests: Sequence[Request]) -> Iterator[Response]:
        """Check all requests first (raises ResdError), then yield responses as they finish.

        Within a batch, the tokens that all prompts start with are computed once.
        """
        _ = self._by_columns  # raises for a model that cannot be decoded
        check(requests, max_positions(self._model))
        replies = {r.id: Reply.to(r, self._grammars.constraint(r) if r.schema else None) for r in requests}
        self._open |= set(replies)
        return self._generate(replies)

    def cancel(self, ids: Iterable[str]) -> None:
        """Stop these requests at their next token, or before they start. Unknown ids are ignored."""
        self._cancelled |= set(ids) & self._open

    def awake(self) -> AbstractContextManager[None]:
        """A no-op: memory for keys and values only lives as long as a batch."""
        return nullcontext()

    @torch.no_grad()
    def load_weights(self, named_tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Load tensors by parameter name; weights shared with the trainer cost nothing.

        Without tensors, a decoder that keeps a copy in another dtype reads all of them from its original
        model. Names are those of that model, including adapters. Raises ResdError for an unknown name, a
        wrong shape, or a model that cannot be decoded.
        """
        pushed = _take(self._source if self._adapted else self._model, named_tensors)
        if self._adapted:
            _take(self._model, merged_weights(self._source, self._model.dtype))
        elif not pushed and self._model is not self._source:
            _take(self._model, self._source.state_dict().items())
        _ = self._by_columns

    def _generate(self, replies: dict[str, Reply]) -> Iterator[Response]:
        try:
            requests = [reply.request for reply in replies.values()]
            for batch in batches(requests, self._max_batch, self._max_cached_tokens):
                for reply in self._decode([replies[request.id] for request in batch]):
                    self._open.discard(reply.request.id)
                    self._cancelled.discard(reply.request.id)
                    yield reply.response(self._tokenizer)
        finally:
            self._open -= set(replies)
            self._cancelled -= set(replies)

    def _decode(self, replies: list[Reply]) -> Iterator[Reply]:
        """Run one batch to its end; yields replies as they finish."""
        yield from self._cancel_in(replies)
        replies = [reply for reply in replies if reply.finish_reason is None]
        if not replies:
            return
        run = Run(self._model, replies, self._stop_ids, by_columns=self._by_columns)
        while run.open:
            yield from run.advance()
            yield from self._cancel_in(run.rows)

    def _cancel_in(self, replies: Sequence[Reply]) -> Iterator[Reply]:
        for reply in replies:
            if reply.finish_reason is None and reply.request.id in self._cancelled:
                reply.finish_reason = "cancelled"
                yield reply


def _take(model: Any, named_tensors: Iterable[tuple[str, Tensor]]) -> int:
    """Copy tensors that the model does not share, holding one at a time; return the number of tensors."""
    own, count = dict(model.state_dict(keep_vars=False)), 0
    for name, tensor in named_tensors:
        if name not in own or own[name].shape != tensor.shape:
            raise ResdError(
                f"pushed weight {name!r} of shape {tuple(tensor.shape)} does not fit the decoder's model"
            )
        if own[name].data_ptr() != tensor.data_ptr():
            own[name].copy_(tensor)
        count += 1
    return count


def preferred_dtype(model: Any) -> torch.dtype:
    """bfloat16 for float32 weights if the device supports it natively; else the model's own dtype."""
    own: torch.dtype = model.dtype
    if own != torch.float32:
        return own
    on_cuda = model.device.type == "cuda"
    native = torch.cuda.is_bf16_supported() if on_cuda else torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if native else own


def as_dtype(model: Any, dtype: torch.dtype) -> Any:
    """A copy with parameters in `dtype`. Buffers are not converted: rotary frequencies need float32."""
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    for parameter in twin.parameters():
        parameter.data = parameter.data.to(dtype)
    return twin


def bytes_per_token(model: Any) -> int:
    """Bytes of the keys and values of one token, over all layers."""
    config = text_config(model)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * model.dtype.itemsize)


def stop_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokenizer's end token, then those of the generation config. Raises ResdError if there are none."""
    found = [tokenizer.eos_token_id]
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found += configured if isinstance(configured, list) else [configured]
    known = tuple(dict.fromkeys(int(i) for i in found if i is not None))
    if not known:
        raise ResdError("neither tokenizer nor model defines an end token: set tokenizer.eos_token")
    return known
