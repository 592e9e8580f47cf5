"""What GPU kernels are asked for, by definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch


def kernels_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed sequences on a CPU, in any dtype."""
    monkeypatch.setattr("resd.learner.attention.varlen_attn", varlen_by_hand)
    monkeypatch.setattr("resd.learner.probe.packable", lambda device, dtype: True)


def varlen_by_hand(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ends: torch.Tensor,
    key_ends: torch.Tensor,
    longest: int,
    longest_key: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool = True,
    return_aux: Any = None,
) -> Any:
    """What the GPU kernel is asked for, by definition: `[tokens, heads, D]`, and `[heads, tokens]`."""
    assert (longest, longest_key) == (int(ends.diff().max()), int(key_ends.diff().max()))
    left, right = window_size
    assert right in (0, -1)
    of_query, of_key = (torch.repeat_interleave(torch.arange(len(e) - 1), e.diff()) for e in (ends, key_ends))
    seen = of_query[:, None] == of_key[None, :]
    back = torch.arange(len(query))[:, None] - torch.arange(len(key))[None, :]
    if right == 0:
        seen &= back >= 0
    if left >= 0:
        seen &= back <= left
    groups = query.shape[1] // key.shape[1]
    scores = torch.einsum("qhd,khd->hqk", query, key.repeat_interleave(groups, 1)) * scale
    scores = scores.masked_fill(~seen, -torch.inf)
    out = torch.einsum("hqk,khd->qhd", scores.softmax(-1), value.repeat_interleave(groups, 1))
    return out if return_aux is None else (out, scores.logsumexp(-1))
