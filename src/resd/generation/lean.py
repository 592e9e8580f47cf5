"""One decoding step of the Llama and Qwen families without the library's per-operation overhead.

For a small model, most of a step is overhead, not arithmetic. Weights are read from the module itself, so
nothing needs refreshing. All other models, and those with adapters, use their own `forward`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resd.generation.cache import PreallocatedCache, PreallocatedLayer
from resd.generation.merging import adapted_layers

FAMILIES = ("llama", "qwen2", "qwen3")


class LeanStep:
    """Logits of one new token per row. Same arithmetic as the module up to rounding."""

    def __init__(self, model: Any) -> None:
        decoder = model.model
        self._embedding = decoder.embed_tokens.weight
        self._rotary = decoder.rotary_emb
        self._layers = [_Block.of(layer) for layer in decoder.layers]
        self._norm = _Norm.of(decoder.norm)
        self._head = model.lm_head

    @classmethod
    def of(cls, model: Any) -> LeanStep | None:
        """Build the step, or return None for a model whose forward is not exactly known here."""
        if getattr(model.config, "model_type", None) not in FAMILIES or not hasattr(model, "lm_head"):
            return None
        leaves = [m for m in model.modules() if not list(m.children())]
        parametric = [m for m in leaves if list(m.parameters(recurse=False))]
        known = all(type(m) in (nn.Linear, nn.Embedding) or "RMSNorm" in type(m).__name__ for m in parametric)
        hooked = any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        plain = known and not hooked and not adapted_layers(model)
        return cls(model) if plain and hasattr(model.model, "rotary_emb") else None

    def __call__(self, ids: Tensor, positions: Tensor, bias: Tensor, cache: PreallocatedCache) -> Tensor:
        """`ids`, `positions` `[B]`, added mask `[B, 1, 1, columns]` -> `[B, V]`. Writes the last column."""
        hidden = F.embedding(ids, self._embedding)
        cos, sin = self._rotary(hidden, positions[:, None])
        half = sin.shape[-1] // 2
        # rotate_half(x) * sin, with the sign moved from x to sin.
        turned = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
        for block, layer in zip(self._layers, cache.layers, strict=True):
            hidden = hidden + block.attend(block.before(hidden), cos, turned, bias, layer)
            hidden = hidden + block.transform(block.after(hidden))
        logits: Tensor = self._head(self._norm(hidden))
        return logits


_Affine = tuple[Tensor, Tensor | None]  # weight, bias


@dataclass(frozen=True, slots=True)
class _Norm:
    weight: Tensor
    epsilon: float

    @classmethod
    def of(cls, module: Any) -> _Norm:
        return cls(module.weight, module.variance_epsilon)

    def __call__(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight, self.epsilon)


@dataclass(frozen=True, slots=True)
class _Block:
    """One layer, with its attributes looked up once instead of at every step."""

    before: _Norm
    after: _Norm
    query: _Affine
    key: _Affine
    value: _Affine
    out: _Affine
    norms: tuple[_Norm, _Norm] | None
    gate: _Affine
    up: _Affine
    down: _Affine
    activation: Any
    head_dim: int
    scaling: float

    @classmethod
    def of(cls, layer: Any) -> _Block:
        attention, mlp = layer.self_attn, layer.mlp
        normed = hasattr(attention, "q_norm")
        projections = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
        query, key, value, out = ((p.weight, p.bias) for p in projections)
        gate, up, down = ((p.weight, p.bias) for p in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
        return cls(
            before=_Norm.of(layer.input_layernorm),
            after=_Norm.of(layer.post_attention_layernorm),
            query=query,
            key=key,
            value=value,
            out=out,
            norms=(_Norm.of(attention.q_norm), _Norm.of(attention.k_norm)) if normed else None,
            gate=gate,
            up=up,
            down=down,
            activation=mlp.act_fn,
            head_dim=attention.head_dim,
            scaling=attention.scaling,
        )

    def attend(self, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor, layer: PreallocatedLayer) -> Tensor:
        rows, width = x.shape[0], self.head_dim
        query = F.linear(x, *self.query).view(rows, -1, width)
        key = F.linear(x, *self.key).view(rows, -1, width)
        value = F.linear(x, *self.value).view(rows, -1, 1, width)
        if self.norms is not None:
            query, key = self.norms[0](query), self.norms[1](key)
        query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
        keys, values = layer.update(key[:, :, None], value)
        # On CPU the kernel repeats keys for free; elsewhere heads sharing keys become queries of one head.
        on_cpu = x.device.type == "cpu"
        query = query[:, :, None] if on_cpu else query.view(rows, keys.shape[1], -1, width)
        mixed = F.scaled_dot_product_attention(
            query, keys, values, bias, scale=self.scaling, enable_gqa=on_cpu
        )
        return F.linear(mixed.reshape(rows, -1), *self.out)

    def transform(self, x: Tensor) -> Tensor:
        return F.linear(self.activation(F.linear(x, *self.gate)) * F.linear(x, *self.up), *self.down)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)
