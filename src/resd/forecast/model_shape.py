"""A model's shape from its config.json: enough to count parameters without torch and weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resd.records import ResdError

# Families whose layers differ from Llama's in additional attention parameters.
NORMED = ("qwen3", "qwen3_moe")  # queries and keys are normalised per head
BIASED = ("qwen2", "qwen2_moe")  # queries, keys and values have biases, whatever the file says
GPTS = ("gpt2", "gpt_bigcode", "gpt_neo", "gptj", "codegen", "bloom", "mpt", "falcon")
UNGATED = (
    *GPTS,
    "gpt_neox",
    "opt",
    "xglm",
    "biogpt",
    "phi",
    "starcoder2",
    "nemotron",
)  # MLPs of two matrices
PLACED = ("gpt2", "gpt_bigcode", "gpt_neo", "opt", "biogpt")  # learned position embeddings
# Families whose output layer is tied to the embedding by default.
TIED = (
    *("gpt2", "gpt_bigcode", "gpt_neo", "bloom", "mpt", "falcon", "opt", "xglm", "biogpt", "starcoder2"),
    *("gemma", "gemma2", "gemma3_text", "cohere", "cohere2", "smollm3", "ernie4_5", "ernie4_5_moe"),
)
# Alternative names of keys.
NAMES = {
    "hidden_size": ("n_embd", "d_model"),
    "num_hidden_layers": ("n_layer", "num_layers", "n_layers"),
    "num_attention_heads": ("n_head", "num_heads", "n_heads"),
    "num_key_value_heads": ("num_kv_heads",),
    "intermediate_size": ("n_inner", "ffn_dim", "ffn_hidden_size"),
    "max_position_embeddings": ("n_positions", "max_seq_len", "seq_length"),
    "num_experts": ("num_local_experts", "n_routed_experts", "moe_num_experts"),
    "num_experts_per_tok": ("moe_k", "moe_topk"),
    "n_shared_experts": ("moe_num_shared_experts", "num_shared_expert"),
    "shared_expert_intermediate_size": ("shared_intermediate_size",),
}


@dataclass(frozen=True)
class ModelShape:
    """A decoder: grouped or latent attention, MLPs, or experts in `sparse_layers` of them.

    Counts are exact for the Llama, Mistral, Qwen2, Qwen3 and Qwen3-MoE families. Those of the families in
    `tests/forecast/test_model_shape.py` are within 0.1 %; others are counted as Llama.
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
    biases: bool = False  # in the four attention projections
    sparse_layers: int = 0
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate: int = 0
    shared: int = 0  # width of the experts that all tokens go through, in layers that have experts
    latent: int | None = None  # parameters of one layer's attention, where keys and values are compressed

    @property
    def query_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        """The width of a token's keys in one layer, and of its values."""
        return self.kv_heads * self.head_dim

    @property
    def head(self) -> int:
        """Parameters of the output layer, shared with the embedding if `tied`."""
        return self.vocab * self.hidden

    @property
    def embeddings(self) -> int:
        """Embedding and output layer."""
        return self.head if self.tied else 2 * self.head

    @property
    def parameters(self) -> int:
        """The total number of parameters."""
        places = self.positions * self.hidden if self.family in PLACED else 0
        return self.embeddings + places + self.body(self.experts)

    def body(self, experts: float) -> int:
        """Parameters between embedding and output layer, with `experts` experts in each sparse layer."""
        dense = self.layers - self.sparse_layers
        router = self.experts * self.hidden
        mlps = dense * self._mlp(self.intermediate)
        chosen = experts * self._mlp(self.expert_intermediate)
        mlps += round(self.sparse_layers * (router + chosen + self._mlp(self.shared)))
        return self.layers * (self._attention() + 2 * self.hidden) + mlps + self.hidden

    @property
    def linear_layers(self) -> Mapping[str, tuple[int, int, int]]:
        """The linear layers that can have adapters, by name: inputs, outputs, and number of layers."""
        query, key, dense = self.query_width, self.key_width, self.layers - self.sparse_layers
        inward = ("up_proj",) if self.family in UNGATED else ("gate_proj", "up_proj")
        mlps = dict.fromkeys(inward, (self.hidden, self.intermediate, dense))
        mlps["down_proj"] = (self.intermediate, self.hidden, dense)
        return {
            "q_proj": (self.hidden, query, self.layers),
            "k_proj": (self.hidden, key, self.layers),
            "v_proj": (self.hidden, key, self.layers),
            "o_proj": (query, self.hidden, self.layers),
            **({} if self.sparse_layers else mlps),
        }

    @property
    def unadapted(self) -> int:
        """Parameters of experts, and of MLPs beside them: they can have no adapters (`learner.lora`)."""
        if not self.sparse_layers:
            return 0
        experts = self.experts * self._mlp(self.expert_intermediate) + self._mlp(self.shared)
        dense = (self.layers - self.sparse_layers) * self._mlp(self.intermediate)
        return self.sparse_layers * experts + dense

    def adapters(self, rank: int, names: Sequence[str] | None = None) -> int:
        """Parameters of adapters for the linear layers with these names, or for all."""
        chosen = [size for name, size in self.linear_layers.items() if names is None or name in names]
        return sum(rank * (inputs + outputs) * count for inputs, outputs, count in chosen)

    @property
    def active(self) -> int:
        """Parameters active per token: without the embedding, and with the token's own experts only."""
        return self.head + self.body(self.experts_per_token)

    def _mlp(self, width: int) -> int:
        return (2 if self.family in UNGATED else 3) * self.hidden * width

    def _attention(self) -> int:
        if self.latent is not None:
            return self.latent
        query, key = self.query_width, self.key_width
        weights = 2 * self.hidden * (query + key)
        norms = 2 * self.head_dim if self.family in NORMED else 0
        inner = query + 2 * key if self.biases or self.family in BIASED else 0
        outer = self.hidden if self.biases and self.family not in BIASED else 0
        return weights + norms + inner + outer


def read_shape(folder: Path) -> ModelShape:
    """Read `folder`/config.json. Raises ResdError naming a key that is missing or not a number."""
    path = folder / "config.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        shape = shape_of(data.get("text_config") or data)
    except KeyError as error:
        raise ResdError(f"{path} does not define {error.args[0]}") from error
    except (OSError, ValueError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ResdError(f"{path} is not a model's configuration ({error})") from error
    sizes = (shape.layers, shape.hidden, shape.heads, shape.kv_heads, shape.vocab, shape.positions)
    if min(sizes) < 1:
        raise ResdError(f"{path} is not a model's configuration (a size in it is less than 1)")
    return shape


def shape_of(data: Mapping[str, Any]) -> ModelShape:
    """The shape from the contents of a config.json. Raises KeyError for a missing key without default."""
    data, family = _named(data), str(data.get("model_type", ""))
    hidden, heads = int(data["hidden_size"]), int(data["num_attention_heads"])
    layers, experts = int(data["num_hidden_layers"]), int(data.get("num_experts") or 0)
    own = 4 * hidden if family in GPTS else None
    intermediate = int(data.get("intermediate_size") or own or data["intermediate_size"])
    latent = _latent_attention(data, hidden, heads) if data.get("kv_lora_rank") else None
    head_dim = int(data.get("head_dim") or hidden // heads)
    return ModelShape(
        family=family,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=_kv_heads(data, family, heads),
        head_dim=_query_width(data) if latent else head_dim,
        intermediate=int(
            data.get("intermediate_size_mlp") or intermediate
        ),  # Llama 4: width of layers without experts
        vocab=int(data["vocab_size"]),
        tied=bool(data.get("tie_word_embeddings", family in TIED)),
        positions=int(data["max_position_embeddings"]),
        biases=bool(data.get("attention_bias", False)),
        sparse_layers=_sparse_layers(data, layers) if experts else 0,
        experts=experts,
        experts_per_token=int(data["num_experts_per_tok"]) if experts else 0,
        expert_intermediate=int(data.get("moe_intermediate_size") or intermediate) if experts else 0,
        shared=_shared(data, family, intermediate) if experts else 0,
        latent=latent,
    )


def _named(data: Mapping[str, Any]) -> dict[str, Any]:
    """Rename keys to their most common names."""
    found = dict(data)
    for name, others in NAMES.items():
        known = next((data[other] for other in others if data.get(other) is not None), None)
        if known is not None:
            found.setdefault(name, known)
    return found


def _kv_heads(data: Mapping[str, Any], family: str, heads: int) -> int:
    if family in ("falcon", "gpt_bigcode") and not data.get("new_decoder_architecture"):
        return 1 if data.get("multi_query", True) else heads
    return int(data.get("num_key_value_heads") or heads)


def _query_width(data: Mapping[str, Any]) -> int:
    """The query width of a head of latent attention."""
    return int(data["qk_nope_head_dim"]) + int(data["qk_rope_head_dim"])


def _latent_attention(data: Mapping[str, Any], hidden: int, heads: int) -> int:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1), norms included."""
    rank, value = int(data["kv_lora_rank"]), int(data["v_head_dim"])
    queries, small = heads * _query_width(data), int(data.get("q_lora_rank") or 0)
    query = (hidden + 1 + queries) * small if small else hidden * queries
    down = hidden * (rank + int(data["qk_rope_head_dim"])) + rank
    return query + down + rank * heads * (int(data["qk_nope_head_dim"]) + value) + heads * value * hidden


def _shared(data: Mapping[str, Any], family: str, intermediate: int) -> int:
    """Width of the experts that all tokens go through."""
    if data.get("shared_expert_intermediate_size"):
        return int(data["shared_expert_intermediate_size"])
    if family == "llama4_text":
        return intermediate
    return int(data.get("n_shared_experts") or 0) * int(data.get("moe_intermediate_size") or intermediate)


def _sparse_layers(data: Mapping[str, Any], layers: int) -> int:
    """The layers with experts: as listed, or every n-th after the initial dense layers."""
    if kinds := data.get("mlp_layer_types"):
        return sum(kind == "sparse" for kind in kinds)
    if (listed := data.get("moe_layers")) is not None:
        return len(listed)
    step = data.get("decoder_sparse_step") or data.get("moe_layer_interval")
    step = int(step or data.get("interleave_moe_layer_step") or 1)
    dense, first = data.get("mlp_only_layers") or (), data.get("moe_layer_start_index")
    first = int(first or data.get("first_k_dense_replace") or 0)
    return sum((layer + 1) % step == 0 and layer not in dense for layer in range(first, layers))
