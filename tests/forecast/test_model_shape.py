"""Parameter counts from config.json, against the library's own models without weights."""

import json
from pathlib import Path
from typing import Any

import pytest

from resd import lab
from resd.forecast.model_shape import read_shape
from resd.records import ResdError
from shapes import EXPERTS, QWEN3_4B, SMALL


def counted(folder: Path, family: str, **settings: Any) -> tuple[int, int]:
    """Ours and the library's, for a configuration that the library has written."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(family, **settings)
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return read_shape(folder).parameters, model.num_parameters()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["qwen3", "qwen2", "llama", "mistral"])
def test_dense_models(tmp_path: Path, family: str, tied: bool) -> None:
    ours, library = counted(tmp_path, family, **{**SMALL, "head_dim": 8}, tie_word_embeddings=tied)
    assert ours == library


def test_biases_of_attention(tmp_path: Path) -> None:
    for family in ("qwen3", "llama"):
        ours, library = counted(tmp_path, family, **SMALL, attention_bias=True, tie_word_embeddings=True)
        assert ours == library


@pytest.mark.parametrize(
    "layers", [{}, {"decoder_sparse_step": 2}, {"mlp_only_layers": [0]}, {"mlp_only_layers": [0, 1, 2]}]
)
def test_models_with_experts(tmp_path: Path, layers: dict[str, Any]) -> None:
    ours, library = counted(tmp_path, "qwen3_moe", **SMALL, **EXPERTS, **layers, tie_word_embeddings=False)
    assert ours == library


def test_real_sizes(tmp_path: Path) -> None:
    settings = {key: value for key, value in QWEN3_4B.items() if key != "model_type"}
    ours, library = counted(tmp_path, "qwen3", **settings)
    assert ours == library == 4_022_468_096


# As published, with fewer layers and experts; what is left out here is the library's default.
MOE = {"moe_intermediate_size": 1408, "num_experts_per_tok": 6, "vocab_size": 50_000}
FAMILIES: dict[str, dict[str, Any]] = {
    "glm4_moe": {**MOE, "n_routed_experts": 128, "n_shared_experts": 1, "first_k_dense_replace": 1},
    "deepseek_v3": {"n_routed_experts": 32, "num_hidden_layers": 6, "first_k_dense_replace": 3},
    "deepseek_v2": {**MOE, "q_lora_rank": None, "first_k_dense_replace": 1, "n_routed_experts": 64},
    "dots1": {**MOE, "n_routed_experts": 64, "n_shared_experts": 2, "first_k_dense_replace": 1},
    "qwen2_moe": {"num_experts": 60, "shared_expert_intermediate_size": 5632},
    "ernie4_5_moe": {"moe_num_experts": 64, "moe_k": 6, "moe_num_shared_experts": 2},
    "mixtral": {"num_local_experts": 8},
    "olmoe": {"num_experts": 64},
    "granitemoeshared": {"num_local_experts": 8, "shared_intermediate_size": 1024},
    "gpt_oss": {"num_hidden_layers": 4, "num_local_experts": 32},
    "phimoe": {},
    "llama4_text": {"num_hidden_layers": 6, "interleave_moe_layer_step": 2},
    "gpt2": {},
    "opt": {},
    "phi": {"num_hidden_layers": 32, "hidden_size": 2560, "intermediate_size": 10_240},
    "gpt_neox": {"num_hidden_layers": 16, "hidden_size": 2048, "intermediate_size": 8192},
    "gpt_neo": {},
    "gptj": {},
    "bloom": {"hidden_size": 1024, "n_layer": 24, "n_head": 16, "seq_length": 2048},
    "mpt": {},
    "falcon": {},
    "starcoder2": {},
    "gemma2": {},
    "gemma3_text": {},
    "cohere": {},
    "phi3": {},
    "stablelm": {},
    "smollm3": {},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_are_near(tmp_path: Path, family: str) -> None:
    ours, library = counted(tmp_path, family, **FAMILIES[family])
    assert ours == pytest.approx(library, rel=0.001)


def test_active_parameters_of_experts(tmp_path: Path) -> None:
    """Of each layer's five experts a token meets two, and no embedding."""
    ours, _ = counted(tmp_path, "qwen3_moe", **SMALL, **EXPERTS, tie_word_embeddings=False)
    assert read_shape(tmp_path).active == ours - 48 * 101 - 3 * 3 * (3 * 48 * 24)


def test_the_lab_model(tmp_path: Path) -> None:
    from safetensors import safe_open

    with safe_open(lab.weights_path() / "model.safetensors", "pt") as file:
        stored = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    shape = read_shape(lab.weights_path())
    total = 0
    for sizes in stored.values():
        count = 1
        for size in sizes:
            count *= size
        total += count
    assert shape.parameters == total
    assert shape.positions == 2048


def test_a_language_model_inside_another(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": {}, "text_config": QWEN3_4B}))
    assert read_shape(tmp_path).parameters == 4_022_468_096


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "does not define hidden_size"),
        ("[]", "is not a model's configuration"),
        ("{", "is not a model's configuration"),
        (json.dumps({**QWEN3_4B, "vocab_size": "many"}), "is not a model's configuration"),
        (json.dumps({**QWEN3_4B, "num_hidden_layers": 0}), "less than 1"),
        (json.dumps({**QWEN3_4B, "num_experts": 8}), "does not define num_experts_per_tok"),
    ],
)
def test_what_says_too_little(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ResdError, match=words):
        read_shape(tmp_path)


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(ResdError, match="is not a model's configuration"):
        read_shape(tmp_path)
