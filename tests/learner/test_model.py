from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resd.learner.layout import build_layout
from resd.learner.model import (
    autocast,
    body,
    load_model,
    load_tokenizer,
    projection,
    recomputing,
    resolve_device,
    resolve_dtype,
    response_hidden,
)
from resd.objectives.chunked import LogitTiles, Projection
from resd.records import ResdError
from support import save_tiny, tiny_model


def logits(part: Projection, compute_dtype: torch.dtype | None = None) -> torch.Tensor:
    return LogitTiles([part], compute_dtype=compute_dtype)(slice(0, len(part.hidden)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def test_a_saved_model_comes_back(folder: Path) -> None:
    model, tokenizer = load_model(str(folder), "cpu"), load_tokenizer(str(folder))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not model.training
    for name, expected in tiny_model().state_dict().items():
        assert torch.equal(model.state_dict()[name], expected)
    assert tokenizer.decode(tokenizer("move").input_ids) == "move"


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_what_is_no_model_is_one_sentence(load: Any, tmp_path: Path) -> None:
    with pytest.raises(ResdError, match="no such folder"):
        load(str(tmp_path / "nowhere"))
    with pytest.raises(ResdError, match="could be loaded"):
        load(str(tmp_path))


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"x" * 999]
)
def test_weights_that_are_cut_off_are_one_sentence(tmp_path: Path, damage: Any) -> None:
    weights = save_tiny(tmp_path) / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(ResdError, match=r"its weights cannot be read .* fetch or save it again"):
        load_model(str(tmp_path))


def test_weights_of_another_size_are_one_sentence(tmp_path: Path) -> None:
    settings = save_tiny(tmp_path) / "config.json"
    settings.write_text(settings.read_text().replace('"hidden_size": 32', '"hidden_size": 40'))
    with pytest.raises(ResdError, match=r"or does not match config\.json"):
        load_model(str(tmp_path))


def test_a_pickle_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    (save_tiny(tmp_path) / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"garbage")
    with pytest.raises(ResdError, match="its weights cannot be read"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_one_sentence(tmp_path: Path, value: float) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] = value
    model.save_pretrained(tmp_path)
    with pytest.raises(ResdError, match=r"layers\.1\.mlp\.up_proj\.weight contains values that are not"):
        load_model(str(tmp_path))


def test_a_model_that_scales_its_logits_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "resd.learner.model.projection", lambda head, hidden: replace(projection(head, hidden), scale=2.0)
    )
    with pytest.raises(ResdError, match="not a linear map"):
        load_model(str(folder))


def test_body_and_head_are_the_model() -> None:
    model, layout = tiny_model(), build_layout([(7, 8)], [(9, 10, 11)], [0])
    with torch.no_grad():
        expected = model(input_ids=layout.input_ids).logits[0, 1:]
        hidden = response_hidden(body(model), layout)
    torch.testing.assert_close(logits(projection(model.get_output_embeddings(), hidden)), expected)


def test_the_head_sums_in_float32_from_bfloat16_inputs() -> None:
    model, hidden = tiny_model(), torch.randn(3, 32)
    with autocast(torch.device("cpu"), torch.bfloat16):
        ours = logits(projection(model.get_output_embeddings(), hidden), torch.bfloat16)
    weight = model.get_output_embeddings().weight.detach()
    expected = hidden.bfloat16().double() @ weight.bfloat16().double().T
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), expected, atol=1e-6, rtol=1e-5)
    assert logits(projection(model.double().get_output_embeddings(), hidden.double())).dtype == torch.float64


def test_a_head_with_adapters_is_the_model() -> None:
    """As `peft` computes it, and gradients reach the adapters alone."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_model(), LoraConfig(target_modules=["q_proj", "lm_head"], r=4, lora_alpha=8))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    layout = build_layout([(7, 8)], [(9, 10, 11)], [0])
    part = projection(model.get_output_embeddings(), response_hidden(body(model), layout))
    torch.testing.assert_close(logits(part), model(input_ids=layout.input_ids).logits[0, 1:])
    part.weight.sum().backward()
    moved = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert {name.split(".")[-2] for name in moved} == {"default"}
    assert any("lm_head.lora_B" in name for name in moved)


def test_device_and_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cpu = resolve_device("auto")
    assert cpu == resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(ResdError, match="no CUDA device"):
        resolve_device("cuda")
    assert resolve_dtype("float32", cpu) == torch.float32
    assert resolve_dtype("bfloat16", cpu) == torch.bfloat16
    assert resolve_dtype("auto", torch.device("cuda")) == torch.bfloat16
    fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert resolve_dtype("auto", cpu) == (torch.bfloat16 if fast else torch.float32)


def test_a_model_that_caps_its_logits_is_refused_however_small_they_are(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {"vocab_size": 105, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    for cap in (30.0, None):
        config = AutoConfig.for_model("gemma2", **shape, **heads, final_logit_softcapping=cap)
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / str(cap))
    with pytest.raises(ResdError, match="not a linear map"):
        load_model(str(tmp_path / "30.0"))
    load_model(str(tmp_path / "None"))
    load_model(str(folder))


def test_computing_again_brings_no_dropout() -> None:
    """Some layers of `transformers` drop out whenever they train, and nothing else does."""
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    sizes = {
        "vocab_size": 105,
        "hidden_size": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "word_embed_proj_dim": 32,
    }
    model = OPTForCausalLM(OPTConfig(**sizes, num_attention_heads=4, dropout=0.5)).eval()
    layout, found = build_layout([(7, 8)], [(9, 10, 11)], [0]), []
    for context in (nullcontext(), recomputing(body(model))):
        model.zero_grad()
        with context:
            response_hidden(body(model), layout).square().sum().backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_tokenizer_must_know_chats(folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ResdError, match="no chat template"):
        load_tokenizer(str(tmp_path))
