"""Forward passes with a preallocated cache: ragged prefill behind a shared prefix, then single steps."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from resd.generation.cache import PreallocatedCache
from resd.generation.lean import LeanStep
from resd.records import ResdError

# Rows are prefilled in slices of about this many tokens, to bound the memory of masks and activations.
PREFILL_TOKENS = 16384
# Its names in configurations (Bloom and MPT among others).
POSITIONS = "max_position_embeddings", "max_seq_len", "seq_length"
SHORT_UNTIL = "resd_short_until"  # attribute of rotary modules: the length they are pinned to (`rotary.pin`)


class BatchForward:
    """One batch and its cache. Columns: shared prefix, left padding, rest of the prompt, reply.

    `suffixes` are the prompts without the shared `prefix`, shortest first and none empty. With `by_columns`
    there must be no prefix, and the model builds its own mask from a padding mask.
    """

    def __init__(
        self,
        model: Any,
        prefix: Sequence[int],
        suffixes: Sequence[Sequence[int]],
        reply: int,
        *,
        by_columns: bool = False,
    ) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self.dtype = next(model.parameters()).dtype
        self._suffixes = suffixes
        self._prefix = prefix
        longest = max(map(len, suffixes))
        self._layers = text_config(model).num_hidden_layers
        self.cache = PreallocatedCache(self._layers, len(suffixes), len(prefix) + longest + reply)
        self._end = len(prefix) + longest  # end of the prompts
        lengths = torch.tensor([len(prefix) + len(suffix) for suffix in suffixes])
        self._positions = lengths.to(self.device)  # positions of the next token
        columns = torch.arange(len(prefix) + longest + reply)
        padding = (columns >= len(prefix)) & (columns < len(prefix) + self._end - lengths[:, None])
        self._visible = ~padding.to(self.device)
        self._bias = self._additive(self._visible)[:, None, None]
        self._by_columns = by_columns
        self._lean = None if by_columns else LeanStep.of(model)

    def prefill(self) -> Tensor:
        """Logits `[B, V]` of the first token of each reply."""
        if self._prefix:
            alone = PreallocatedCache(self._layers, 1, len(self._prefix))
            ids = torch.tensor([list(self._prefix)], device=self.device)
            self._call(ids, torch.arange(len(self._prefix), device=self.device)[None], None, alone)
            self.cache.spread(alone)
        logits = torch.cat([self._prefill_rows(rows) for rows in slices(list(map(len, self._suffixes)))])
        self.cache.seek(self._end)
        return logits

    def _prefill_rows(self, rows: slice) -> Tensor:
        suffixes = self._suffixes[rows]
        width, start = len(suffixes[-1]), self._end - len(suffixes[-1])
        ids = torch.tensor(
            [[0] * (width - len(suffix)) + list(suffix) for suffix in suffixes], device=self.device
        )
        ends = self._positions[rows, None]
        positions = (ends - width + torch.arange(width, device=self.device)).clamp(min=0)
        self.cache.seek(start, rows)
        return self._call(ids, positions, self._prefill_mask(rows, start), self.cache)

    def _prefill_mask(self, rows: slice, start: int) -> Tensor:
        visible = self._visible[rows, : self._end]
        if self._by_columns:
            return visible
        columns = torch.arange(self._end, device=self.device)
        causal = columns <= columns[start:, None]
        return self._additive(visible[:, None, None, :] & causal)

    def step(self, ids: Tensor) -> Tensor:
        """Logits `[B, V]` after one more token per row, `ids` `[B]`."""
        positions = self._positions[:, None]
        self._positions = self._positions + 1
        end = self.cache.length + 1
        if self._lean is not None:
            return self._lean(ids, positions[:, 0], self._bias[..., :end], self.cache)
        mask = self._visible[:, :end] if self._by_columns else self._bias[..., :end]
        return self._call(ids[:, None], positions, mask, self.cache)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows."""
        index = torch.tensor(list(rows), device=self.device)
        self.cache.keep(index)
        self._positions, self._visible, self._bias = (
            tensor[index] for tensor in (self._positions, self._visible, self._bias)
        )

    def _additive(self, visible: Tensor) -> Tensor:
        # A finite minimum: padding rows attend to nothing, and -inf everywhere would give NaN.
        zero = torch.zeros(visible.shape, dtype=self.dtype, device=visible.device)
        return zero.masked_fill_(~visible, torch.finfo(self.dtype).min)

    def _call(self, ids: Tensor, positions: Tensor, mask: Tensor | None, cache: PreallocatedCache) -> Tensor:
        with masked_attention(self.model):
            output = self.model(
                input_ids=ids,
                position_ids=positions,
                attention_mask=mask,
                use_cache=True,
                logits_to_keep=1,
                **{cache_argument(self.model): cache},
            )
        logits: Tensor = output.logits[:, -1]
        return logits


def slices(widths: Sequence[int], limit: int = PREFILL_TOKENS) -> Iterator[slice]:
    """Slice rows of ascending width; each slice, padded, has at most `limit` tokens (or is one row)."""
    start = 0
    for end in range(1, len(widths) + 1):
        if end == len(widths) or widths[end] * (end + 1 - start) > limit:
            yield slice(start, end)
            start = end


def cache_argument(model: Any) -> str:
    """The name of the cache argument: transformers renames `past_key_values` between 5.24 and 5.40."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def text_config(model: Any) -> Any:
    """The configuration of the language model, including inside a multimodal one."""
    return model.config.get_text_config()


def max_positions(model: Any) -> int:
    """The longest sequence that a model supports. Raises ResdError if the configuration does not say."""
    config = text_config(model)
    for name in POSITIONS:
        if isinstance(found := getattr(config, name, None), int):
            return min([found, *_pinned(model)])
    raise ResdError(
        f"model type {config.model_type}: its config.json does not state the maximum sequence length; add "
        "max_position_embeddings to it"
    )


def _pinned(model: Any) -> Iterator[int]:
    return (vars(m)[SHORT_UNTIL] for m in model.modules() if SHORT_UNTIL in vars(m))


def has_windows(model: Any) -> bool:
    """Whether some layers use sliding-window or local attention."""
    config = text_config(model)
    kinds = getattr(config, "layer_types", None)
    if "local" in getattr(config, "attention_layers", ()):  # GPT-Neo
        return True
    return "sliding_attention" in kinds if kinds else getattr(config, "sliding_window", None) is not None


def check_model(model: Any) -> None:
    """Raises ResdError for models whose state is not keys and values."""
    kinds = set(getattr(text_config(model), "layer_types", None) or ()) - {
        "full_attention",
        "sliding_attention",
    }
    if kinds:
        raise ResdError(
            f"the embedded decoder has no cache for layers of type {', '.join(sorted(kinds))}: use vLLM"
        )


@contextmanager
def masked_attention(model: Any) -> Iterator[None]:
    """Use attention that supports an explicit mask, whatever the trainer uses for its own forwards."""
    config = text_config(model)
    chosen = config._attn_implementation
    if chosen in ("sdpa", "eager"):
        yield
        return
    config._attn_implementation = "sdpa"
    try:
        yield
    finally:
        config._attn_implementation = chosen


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Switch to evaluation mode: no dropout or gradient checkpointing (which would disable the cache)."""
    training = model.training
    if training:
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()
