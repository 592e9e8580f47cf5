"""Architectures beside Llama's, decoded in ragged batches, against full forwards of one sequence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from generation.engines import prompts, requests
from resd.generation.decoder import Decoder
from resd.generation.engine import generate
from resd.generation.forward import max_positions
from resd.generation.probe import counts_columns
from resd.records import ResdError
from support import tiny_model, tiny_tokenizer

SIZES: dict[str, dict[str, Any]] = {
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 6,
    },
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 512},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "seq_length": 512},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 8, "n_positions": 512},
}
BY_COLUMNS = ("gpt_neo", "mpt", "bloom", "falcon")


def built(kind: str, **changes: Any) -> Any:
    """With weights large enough that positions matter."""
    from transformers import AutoConfig, AutoModelForCausalLM

    ends = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=105, **ends, **SIZES[kind] | changes)
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(4)
    return model


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("shared", [0, 20])
def test_ragged_batches_are_decoded_as_one_sequence_is(kind: str, shared: int) -> None:
    model = built(kind)
    decoder = Decoder(model, tiny_tokenizer(), compute_dtype=torch.float32)
    (prefix,) = prompts([shared], seed=1)
    asked = requests([prefix + rest for rest in prompts([3, 17, 9, 1])], max_tokens=12)
    for request, response in zip(asked, generate(decoder, asked), strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([request.prompt_ids + response.token_ids])).logits[0]
        found = torch.log_softmax(logits[len(request.prompt_ids) - 1 : -1], -1)
        expected = found.gather(-1, torch.tensor(response.token_ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(response.logprobs), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", SIZES)
def test_who_counts_columns(kind: str, dtype: torch.dtype) -> None:
    assert counts_columns(built(kind).to(dtype)) == (kind in BY_COLUMNS)


def test_a_model_that_cannot_be_decoded_is_told_at_the_start() -> None:
    model, tokenizer = built("gpt2"), tiny_tokenizer()
    model.transformer.wpe.register_forward_hook(lambda _, words, made: made * words[0].shape[-1])
    decoder = Decoder(model, tokenizer, compute_dtype=torch.float32)
    with pytest.raises(ResdError, match=r"model type gpt2: .* off those of a plain forward.* to vllm"):
        decoder.load_weights(())
    with pytest.raises(ResdError, match="model type gpt2"):
        decoder.submit(requests(prompts([4])))


def test_nothing_is_tried_where_the_forward_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resd.generation.decoder.counts_columns", lambda model: pytest.fail("tried"))
    decoder = Decoder(tiny_model(), tiny_tokenizer(), compute_dtype=torch.float32)
    decoder.load_weights(())
    generate(decoder, requests(prompts([4])))


def test_how_long_a_sequence_may_be() -> None:
    assert [max_positions(built(kind)) for kind in ("gpt_neo", "mpt", "bloom")] == [2048, 512, 512]
    nameless = built("bloom")
    del nameless.config.seq_length
    with pytest.raises(ResdError, match=r"model type bloom: .* add max_position_embeddings"):
        max_positions(nameless)
