"""Attention over packed sequences: one row of tokens, without padding or masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.varlen import AuxRequest, varlen_attn

from resd.learner.prefix import SharedPrefix
from resd.records import ResdError

NAME = "resd_packed"
# From this average length on, one call per sequence is faster than one for all. Forward and backward on an
# H200: 15 against 24 ms for one of 16k tokens, 7 against 9 for five of 1k to 8k, 12 against 2 for 32 of 512.
LONG = 1024
# Grouped-query attention: PyTorch 2.11 detects it, 2.13 needs a flag.
ASKS_FOR_GROUPS = "enable_gqa" in signature(varlen_attn).parameters


@dataclass(frozen=True, slots=True)
class Sequences:
    """The boundaries of the sequences in a row of tokens, and the prefix that they share."""

    lengths: tuple[int, ...]
    ends: Tensor  # [sequences + 1], int32: 0, then the end of each
    prefix: SharedPrefix | None = None
    is_prefix: bool = False  # the row is the prefix itself, whose keys and values are recorded

    @classmethod
    def of(
        cls,
        lengths: Sequence[int],
        device: torch.device | str,
        prefix: SharedPrefix | None = None,
        *,
        is_prefix: bool = False,
    ) -> Sequences:
        ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
        return cls(tuple(lengths), ends.to(device), prefix, is_prefix)


def packable(device: torch.device, compute_dtype: torch.dtype) -> bool:
    """Whether there are kernels for packed sequences: on a GPU, in bfloat16 or float16."""
    return device.type == "cuda" and compute_dtype in (torch.bfloat16, torch.float16)


@contextmanager
def packing(bodies: Sequence[Any]) -> Iterator[None]:
    """Let the bodies attend to packed sequences. Include the backward pass, which may recompute layers."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    configs = [body.config for body in bodies]
    chosen = [config._attn_implementation for config in configs]
    for config in configs:
        config._attn_implementation = NAME
    try:
        yield
    finally:
        for config, name in zip(configs, chosen, strict=True):
            config._attn_implementation = name


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    sequences: Sequences,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each sequence, in the interface of `transformers`.

    Maps query, key and value `[1, heads, tokens, D]` to `[1, tokens, heads, D]`. Raises ResdError for
    attention other than a softmax within a window.
    """
    if softcap is not None or s_aux is not None:
        raise ResdError(
            f"attention of {type(module).__name__}: soft caps and sinks cannot be packed; set "
            "optimizer.packing to false"
        )
    longest = max(sequences.lengths)
    behind = 0 if sequences.prefix is None or sequences.is_prefix else len(sequences.prefix)
    window = sliding_window if sliding_window is not None and sliding_window < behind + longest else None
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
    states = tuple(state.to(dtype) for state in (query, key, value))
    if (prefix := sequences.prefix) is not None:
        if window is not None:
            raise ResdError(f"attention of {type(module).__name__}: a shared prefix does not support windows")
        if not sequences.is_prefix:
            return _after_prefix(states, prefix.states[module], sequences.ends, longest, scaling), None
        prefix.keep(module, states[1], states[2])
    if window is None and query.shape[2] >= LONG * len(sequences.lengths):
        return _one_by_one(states, sequences.lengths, scaling), None
    return _all_at_once(states, sequences.ends, longest, scaling, window), None


def _one_by_one(states: tuple[Tensor, ...], lengths: tuple[int, ...], scaling: float | None) -> Tensor:
    attended = [
        F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=True)
        for query, key, value in zip(*(torch.split(s, list(lengths), dim=2) for s in states), strict=True)
    ]
    return torch.cat(attended, dim=2).transpose(1, 2)


def _all_at_once(
    states: tuple[Tensor, ...], ends: Tensor, longest: int, scaling: float | None, window: int | None
) -> Tensor:
    query, key, value = (state[0].transpose(0, 1) for state in states)
    left = -1 if window is None else window - 1  # the window includes the token itself
    settings = _settings(scaling, (left, 0))
    out = varlen_attn(query, key, value, ends, ends, longest, longest, **settings)
    assert isinstance(out, Tensor)
    return out.unsqueeze(0)


def _after_prefix(
    states: tuple[Tensor, ...],
    prefix: tuple[Tensor, Tensor],
    ends: Tensor,
    longest: int,
    scaling: float | None,
) -> Tensor:
    """Causal attention within each sequence, plus full attention to the prefix."""
    query, key, value = (state[0].transpose(0, 1) for state in states)
    before, content = (state[0].transpose(0, 1) for state in prefix)
    whole, all_before = (ends.new_tensor([0, len(part)]) for part in (query, before))
    mass = AuxRequest(lse=True)
    own, own_mass = varlen_attn(
        query, key, value, ends, ends, longest, longest, return_aux=mass, **_settings(scaling, (-1, 0))
    )
    shared, shared_mass = varlen_attn(
        query,
        before,
        content,
        whole,
        all_before,
        len(query),
        len(before),
        return_aux=mass,
        **_settings(scaling, (-1, -1)),
    )
    share = (_by_token(own_mass, own) - _by_token(shared_mass, own)).sigmoid().unsqueeze(-1)
    merged = torch.lerp(shared.to(share.dtype), own.to(share.dtype), share)
    return merged.to(own.dtype).unsqueeze(0)


def _by_token(mass: Tensor, states: Tensor) -> Tensor:
    """Transpose to `[tokens, heads]`, the states' first two dimensions, if necessary (PyTorch 2.11)."""
    return mass if mass.shape == states.shape[:2] else mass.T


def _settings(scaling: float | None, window: tuple[int, int]) -> dict[str, Any]:
    grouped = {"enable_gqa": True} if ASKS_FOR_GROUPS else {}
    return {"scale": scaling, "window_size": window, **grouped}
