"""What a model's config.json says of its size: enough to count parameters without torch and weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resd.records import ResdError

# Families whose layers differ from Llama's in what they add to attention.
NORMED = ("qwen3", "qwen3_moe")  # queries and keys have a norm of their own, per head
BIASED = ("qwen2", "qwen2_moe")  # queries, keys and values have biases, whatever the file says


@dataclass(frozen=True)
class ModelShape:
    """A decoder of the Llama kind: grouped attention, gated MLPs, or experts in `sparse_layers` of them.

    Counts are exact for the Llama, Mistral, Qwen2, Qwen3 and Qwen3-MoE families; others are counted as Llama.
    """

    family: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool
    positions: int
    biases: bool = False  # of the four projections of attention
    sparse_layers: int = 0
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate: int = 0

    @property
    def query_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Of the keys of a token in one layer; the values have the same."""
        return self.kv_heads * self.head_dim

    @property
    def head(self) -> int:
        """Parameters of the output layer, which are the embedding's where `tied`."""
        return self.vocab * self.hidden

    @property
    def embeddings(self) -> int:
        """Embedding and output layer."""
        return self.head if self.tied else 2 * self.head

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.embeddings + self.body(self.experts)

    def body(self, experts: float) -> int:
        """Parameters between embedding and output layer, with so many experts in each layer that has any."""
        dense = self.layers - self.sparse_layers
        router = self.experts * self.hidden
        mlps = dense * self._mlp(self.intermediate)
        mlps += round(self.sparse_layers * (router + experts * self._mlp(self.expert_intermediate)))
        return self.layers * (self._attention() + 2 * self.hidden) + mlps + self.hidden

    @property
    def linear_layers(self) -> Mapping[str, tuple[int, int, int]]:
        """Those that can have adapters, by name: inputs, outputs, and in how many layers."""
        query, key, dense = self.query_width, self.key_width, self.layers - self.sparse_layers
        return {
            "q_proj": (self.hidden, query, self.layers),
            "k_proj": (self.hidden, key, self.layers),
            "v_proj": (self.hidden, key, self.layers),
            "o_proj": (query, self.hidden, self.layers),
            "gate_proj": (self.hidden, self.intermediate, dense),
            "up_proj": (self.hidden, self.intermediate, dense),
            "down_proj": (self.intermediate, self.hidden, dense),
        }

    def adapters(self, rank: int, names: Sequence[str] | None = None) -> int:
        """Parameters of adapters beside linear layers of these names, or all."""
        chosen = [size for name, size in self.linear_layers.items() if names is None or name in names]
        return sum(rank * (inputs + outputs) * count for inputs, outputs, count in chosen)

    @property
    def active(self) -> int:
        """Parameters that a token is multiplied by: without the embedding, with its own experts alone."""
        return self.head + self.body(self.experts_per_token)

    def _mlp(self, width: int) -> int:
        return 3 * self.hidden * width

    def _attention(self) -> int:
        query, key = self.query_width, self.key_width
        weights = 2 * self.hidden * (query + key)
        norms = 2 * self.head_dim if self.family in NORMED else 0
        inner = query + 2 * key if self.biases or self.family in BIASED else 0
        outer = self.hidden if self.biases and self.family not in BIASED else 0
        return weights + norms + inner + outer


def read_shape(folder: Path) -> ModelShape:
    """From `folder`/config.json. Raises ResdError, naming what is missing or no number."""
    path = folder / "config.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        shape = shape_of(data.get("text_config") or data)
    except KeyError as error:
        raise ResdError(f"{path} does not say {error.args[0]}") from error
    except (OSError, ValueError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ResdError(f"{path} is no model's configuration ({error})") from error
    sizes = (shape.layers, shape.hidden, shape.heads, shape.kv_heads, shape.vocab, shape.positions)
    if min(sizes) < 1:
        raise ResdError(f"{path} is no model's configuration (a size in it is less than 1)")
    return shape


def shape_of(data: Mapping[str, Any]) -> ModelShape:
    """From the contents of a config.json. Raises KeyError for what has no default."""
    hidden, heads = int(data["hidden_size"]), int(data["num_attention_heads"])
    layers = int(data["num_hidden_layers"])
    experts = int(data.get("num_experts") or data.get("num_local_experts") or 0)
    intermediate = int(data["intermediate_size"])
    return ModelShape(
        family=str(data.get("model_type", "")),
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=int(data.get("num_key_value_heads") or heads),
        head_dim=int(data.get("head_dim") or hidden // heads),
        intermediate=intermediate,
        vocab=int(data["vocab_size"]),
        tied=bool(data.get("tie_word_embeddings", False)),
        positions=int(data["max_position_embeddings"]),
        biases=bool(data.get("attention_bias", False)),
        sparse_layers=_sparse_layers(data, layers) if experts else 0,
        experts=experts,
        experts_per_token=int(data["num_experts_per_tok"]) if experts else 0,
        expert_intermediate=int(data.get("moe_intermediate_size") or intermediate) if experts else 0,
    )


def _sparse_layers(data: Mapping[str, Any], layers: int) -> int:
    """Every `decoder_sparse_step`-th layer has experts, but for those of `mlp_only_layers`."""
    step, dense = int(data.get("decoder_sparse_step") or 1), data.get("mlp_only_layers") or ()
    return sum((layer + 1) % step == 0 and layer not in dense for layer in range(layers))
