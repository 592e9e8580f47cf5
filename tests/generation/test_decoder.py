"""The embedded decoder beside transformers' own `generate` and full forwards."""

from __future__ import annotations

import dataclasses
import random
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from resd.generation.decoder import Decoder
from resd.generation.engine import generate
from resd.generation.forward import cache_argument
from resd.generation.lean import LeanStep
from resd.records import Request, ResdError
from support import tiny_model, tiny_tokenizer

FIRST, LAST = 5, 100  # ordinary tokens


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture
def decoder(model: Any, tokenizer: Any) -> Decoder:
    return Decoder(model, tokenizer, compute_dtype=torch.float32)


def prompts(lengths: list[int], *, shared: int = 0, seed: int = 0) -> list[tuple[int, ...]]:
    source = random.Random(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(source.randint(FIRST, LAST) for _ in range(count))

    prefix = tokens(shared)
    return [prefix + tokens(length) for length in lengths]


def requests(many: list[tuple[int, ...]], **options: Any) -> list[Request]:
    defaults: dict[str, Any] = {"max_tokens": 24, **options}
    return [Request(id=f"r{i}", prompt_ids=p, seed=100 + i, **defaults) for i, p in enumerate(many)]


def reference(model: Any, prompt: tuple[int, ...], max_tokens: int) -> tuple[int, ...]:
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=max_tokens, eos_token_id=1
    )
    return tuple(out[0, len(prompt) :].tolist())


def scored(model: Any, prompt: tuple[int, ...], reply: tuple[int, ...], temperature: float) -> torch.Tensor:
    """`[T]`: log-probs of a reply in one plain forward."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits / temperature, -1).gather(-1, torch.tensor(reply)[:, None])[:, 0]


@pytest.mark.parametrize("shared", [0, 20])
def test_greedy_equals_transformers(model: Any, decoder: Decoder, shared: int) -> None:
    many = prompts([3, 17, 9, 1, 30], shared=shared)
    for request, response in zip(
        requests(many), generate(decoder, requests(many, temperature=0.0)), strict=True
    ):
        assert response.token_ids == reference(model, request.prompt_ids, 24)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_logprobs_equal_a_full_forward(model: Any, decoder: Decoder, temperature: float) -> None:
    asked = requests(prompts([5, 12, 40, 2], shared=10), temperature=temperature)
    for request, response in zip(asked, generate(decoder, asked), strict=True):
        expected = scored(model, request.prompt_ids, response.token_ids, temperature)
        torch.testing.assert_close(torch.tensor(response.logprobs), expected, atol=1e-4, rtol=0)


def test_a_request_does_not_depend_on_its_batch(decoder: Decoder) -> None:
    asked = requests(prompts([5, 12, 40, 2, 8, 8], shared=10), max_tokens=40)
    together = generate(decoder, asked)
    for request, response in zip(asked, together, strict=True):
        (alone,) = generate(decoder, [request])
        assert alone.token_ids == response.token_ids


def test_a_seed_repeats_and_another_differs(decoder: Decoder) -> None:
    (asked,) = requests(prompts([6]))
    other = dataclasses.replace(asked, id="other", seed=7)
    first, second = generate(decoder, [asked, other])
    assert generate(decoder, [asked])[0].token_ids == first.token_ids
    assert first.token_ids != second.token_ids


def stopping_model(token: int = 1, boost: float = 0.4) -> Any:
    """A model in which `token` is likely: its embedding, tied to the head, points along the others' mean."""
    model = tiny_model(3)
    with torch.no_grad():
        hidden = model.model(torch.tensor(prompts([200]))).last_hidden_state[0].mean(0)
        model.model.embed_tokens.weight[token] = boost * hidden
    return model


def test_replies_end_with_the_stop_token_and_come_as_they_finish(tokenizer: Any) -> None:
    decoder = Decoder(stopping_model(), tokenizer, compute_dtype=torch.float32)
    asked = requests(prompts([4] * 24), max_tokens=30)
    responses = list(decoder.submit(asked))
    lengths = [len(r.token_ids) for r in responses]
    assert lengths == sorted(lengths)
    assert {r.finish_reason for r in responses} == {"stop", "length"}
    for r in responses:
        assert (r.token_ids[-1] == 1) == (r.finish_reason == "stop")
        assert 1 not in r.token_ids[:-1]
        assert "<|end|>" not in r.text
        assert len(r.token_ids) == len(r.logprobs) <= 30


def test_compaction_changes_nothing(tokenizer: Any) -> None:
    model = stopping_model()
    decoder = Decoder(model, tokenizer, compute_dtype=torch.float32)
    asked = requests(prompts([3, 4, 5, 6, 20, 21, 22, 23], shared=9), max_tokens=40)
    for request, response in zip(asked, generate(decoder, asked), strict=True):
        expected = scored(model, request.prompt_ids, response.token_ids, 1.0)
        torch.testing.assert_close(torch.tensor(response.logprobs), expected, atol=1e-4, rtol=0)


def test_the_model_may_name_more_stop_tokens(tokenizer: Any) -> None:
    model = stopping_model(token=9)
    model.generation_config.eos_token_id = [1, 9]
    decoder = Decoder(model, tokenizer, compute_dtype=torch.float32)
    responses = generate(decoder, requests(prompts([4] * 8), max_tokens=60))
    assert any(r.token_ids[-1] == 9 and r.finish_reason == "stop" for r in responses)


def test_each_request_has_its_own_limit(decoder: Decoder) -> None:
    asked = [dataclasses.replace(r, max_tokens=i + 1) for i, r in enumerate(requests(prompts([5] * 6)))]
    for request, response in zip(asked, generate(decoder, asked), strict=True):
        assert len(response.token_ids) <= request.max_tokens
        assert response.finish_reason == ("stop" if response.token_ids[-1] == 1 else "length")


@pytest.mark.parametrize("limits", [{"max_batch": 2}, {"cache_bytes": 30_000}])
def test_small_batches_give_the_same(model: Any, tokenizer: Any, decoder: Decoder, limits: Any) -> None:
    asked = requests(prompts([5, 30, 7, 2, 14]))
    small = Decoder(model, tokenizer, compute_dtype=torch.float32, **limits)
    assert [r.token_ids for r in generate(small, asked)] == [r.token_ids for r in generate(decoder, asked)]


def test_cancel(decoder: Decoder) -> None:
    asked = requests(prompts([5] * 4), max_tokens=64)
    asked[0] = dataclasses.replace(asked[0], max_tokens=1)
    responses = decoder.submit(asked)
    first = next(responses)
    decoder.cancel(["r1", "r3", "unknown", first.request_id])
    rest = {r.request_id: r for r in responses}
    assert rest["r1"].finish_reason == rest["r3"].finish_reason == "cancelled"
    assert len(rest["r1"].token_ids) == 1
    assert rest["r2"].finish_reason != "cancelled"
    assert generate(decoder, asked[1:2])[0].finish_reason != "cancelled"


def test_cancel_before_the_start(model: Any, tokenizer: Any) -> None:
    decoder = Decoder(model, tokenizer, max_batch=1, compute_dtype=torch.float32)
    responses = decoder.submit(requests(prompts([5] * 3)))
    decoder.cancel(["r0", "r1", "r2"])
    assert [(r.finish_reason, r.token_ids) for r in responses] == [("cancelled", ())] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_ids": ()}, "empty prompt"),
        ({"max_tokens": 4092}, "4096 positions"),
        ({"max_tokens": 0}, "max_tokens 0"),
        ({"top_p": 0.0}, "top_p"),
    ],
)
def test_bad_requests_fail_before_anything_runs(decoder: Decoder, changes: Any, message: str) -> None:
    (good,) = requests(prompts([5]))
    with pytest.raises(ResdError, match=message):
        decoder.submit([good, dataclasses.replace(good, id="bad", **changes)])


def test_ids_are_distinct(decoder: Decoder) -> None:
    with pytest.raises(ResdError, match="same id"):
        decoder.submit(requests(prompts([5])) * 2)


def test_no_requests(decoder: Decoder) -> None:
    assert list(decoder.submit([])) == []


def agrees(decoder: Decoder, model: Any, tolerance: float) -> bool:
    (request,) = requests(prompts([20]), max_tokens=12)
    (response,) = generate(decoder, [request])
    expected = scored(model, request.prompt_ids, response.token_ids, 1.0)
    return bool((torch.tensor(response.logprobs) - expected).abs().max() < tolerance)


def test_weights_are_pushed_by_name(tokenizer: Any) -> None:
    decoder, trained = Decoder(tiny_model(0), tokenizer, compute_dtype=torch.float32), tiny_model(1)
    assert not agrees(decoder, trained, 1e-2)
    decoder.load_weights(trained.named_parameters())
    assert agrees(decoder, trained, 1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_shared_module_needs_no_tensors(tokenizer: Any, dtype: torch.dtype) -> None:
    model = tiny_model(0)
    decoder = Decoder(model, tokenizer, compute_dtype=dtype)
    generate(decoder, requests(prompts([4])))
    with torch.no_grad():
        for parameter, other in zip(model.parameters(), tiny_model(1).parameters(), strict=True):
            parameter.copy_(other)
    decoder.load_weights(())
    assert agrees(decoder, model, 1e-4 if dtype == torch.float32 else 0.1)
    with torch.no_grad():
        model.model.norm.weight.mul_(2)
    decoder.load_weights(model.named_parameters())
    assert agrees(decoder, model, 1e-4 if dtype == torch.float32 else 0.1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_one_sentence(
    tokenizer: Any, value: float, temperature: float
) -> None:
    model = tiny_model()
    decoder = Decoder(model, tokenizer, compute_dtype=torch.float32)
    with torch.no_grad():
        model.model.norm.weight[2] = value
    with pytest.raises(ResdError, match="request 'r0': the model's logits are not finite"):
        generate(decoder, requests(prompts([4]), temperature=temperature))


def test_unknown_weights_are_refused(decoder: Decoder) -> None:
    with pytest.raises(ResdError, match=r"model\.nothing"):
        decoder.load_weights([("model.nothing", torch.zeros(1))])


def test_a_module_in_training_mode_stays_so(tokenizer: Any) -> None:
    model = tiny_model().train()
    model.gradient_checkpointing_enable()
    decoder = Decoder(model, tokenizer, compute_dtype=torch.float32)
    (response,) = generate(decoder, requests(prompts([9]), temperature=0.0))
    assert model.training
    assert response.token_ids == reference(model.eval(), prompts([9])[0], 24)


def test_the_lean_step_is_for_plain_known_models() -> None:
    model = tiny_model()
    assert LeanStep.of(model) is not None
    hook = model.model.layers[0].register_forward_hook(lambda *_: None)
    assert LeanStep.of(model) is None
    hook.remove()
    assert LeanStep.of(small("mistral")) is None


def small(kind: str) -> Any:
    """Other architectures: windows of the past, partial rotation, learned positions and biases."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shape: dict[str, Any] = {
        "vocab_size": 105,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 1,
    }
    if kind in ("mistral", "gemma3_text"):
        shape["sliding_window"] = 6
    if kind == "gemma3_text":
        shape["layer_types"] = ["sliding_attention", "full_attention"]
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape)).eval()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "gemma3_text", "gpt_neox"])
@pytest.mark.parametrize("shared", [0, 20])
def test_other_architectures(tokenizer: Any, kind: str, shared: int) -> None:
    model = small(kind)
    decoder = Decoder(model, tokenizer, compute_dtype=torch.float32)
    asked = requests(prompts([3, 17, 9, 1], shared=shared))
    for request, response in zip(asked, generate(decoder, asked), strict=True):
        expected = scored(model, request.prompt_ids, response.token_ids, 1.0)
        torch.testing.assert_close(torch.tensor(response.logprobs), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "gpt_neox"])
def test_the_cache_has_the_name_that_the_model_knows(tokenizer: Any, kind: str) -> None:
    """Both before and after transformers renames it: nothing that is on its way out is used."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        generate(Decoder(small(kind), tokenizer), requests(prompts([3, 5])))
    before = SimpleNamespace(forward=lambda input_ids, past_key_values=None: None)
    after = SimpleNamespace(forward=lambda input_ids, cache=None: None)
    assert [cache_argument(before), cache_argument(after)] == ["past_key_values", "cache"]
