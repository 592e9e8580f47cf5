"""Models with adapters are decoded merged, and never change."""

from typing import Any

import pytest
import torch

from generation.engines import model_of, prompts, requests
from resd.config import LoRAConfig
from resd.generation import vllm_runtime
from resd.generation.decoder import Decoder
from resd.generation.engine import generate
from resd.generation.lean import LeanStep
from resd.generation.merging import base_tensors, merge, merged_copy, merging, rounded
from resd.generation.vllm import forward_logprobs
from resd.learner.lora import add_adapters, own_parameters
from resd.records import ResdError
from support import tiny_tokenizer


def grow(model: Any, seed: int = 0) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for _, parameter in own_parameters(model):
            parameter += 0.1 * torch.randn_like(parameter)


@pytest.fixture
def model() -> Any:
    made = model_of(3)
    add_adapters(made, LoRAConfig(rank=2, alpha=4), seed=0, base="tiny")
    grow(made)
    return made


def agrees(decoder: Decoder, model: Any, tolerance: float = 1e-4) -> bool:
    """The decoder's log-probs are those of the module with adapters."""
    (request,) = requests(prompts([20]), max_tokens=12)
    (response,) = generate(decoder, [request])
    expected = forward_logprobs(model, request.prompt_ids, response.token_ids)
    return bool((torch.tensor(response.logprobs) - expected).abs().max() < tolerance)


def test_the_decoder_follows_the_adapters(model: Any) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    decoder = Decoder(model, tiny_tokenizer(), compute_dtype=torch.float32)
    assert agrees(decoder, model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    grow(model, 1)
    assert not agrees(decoder, model, 1e-2)
    for push in range(1, 4):  # nothing adds up from push to push
        decoder.load_weights(own_parameters(model) if push % 2 else ())
        assert agrees(decoder, model)
    with pytest.raises(ResdError, match=r"lora_C"):
        decoder.load_weights([("model.lora_C", torch.zeros(1))])


def test_what_has_no_adapters_is_shared(model: Any) -> None:
    twin = merged_copy(model, torch.float32)
    assert LeanStep.of(twin) is not None
    assert LeanStep.of(model) is None
    own = {p.data_ptr() for p in model.parameters()}
    alone = {name for name, p in twin.named_parameters() if p.data_ptr() not in own}
    assert alone == {name for name, p in twin.named_parameters() if "_proj" in name}
    assert not any(p.requires_grad for p in twin.parameters())
    assert all(p.requires_grad for _, p in own_parameters(model))
    lower = merged_copy(model, torch.bfloat16)
    assert {p.dtype for p in lower.parameters()} == {torch.bfloat16}
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(lower.get_parameter(name).float(), parameter, rtol=2**-7, atol=1e-6)


def test_rounding_keeps_the_sum_on_average() -> None:
    """To one of the two neighbours, which rounding to the nearest is too, but for small steps for nothing."""
    torch.manual_seed(0)
    grid = torch.randn(200_000).bfloat16().float()
    for step in (1e-5, -3e-4):
        exact = grid + step * grid.abs()
        found = rounded(exact, 1).float()
        assert torch.equal(exact.bfloat16().float(), grid)  # all of it would be lost
        neighbours = torch.nextafter(grid.bfloat16(), (grid + step * 1e3 * grid.abs()).bfloat16()).float()
        assert bool(((found == grid) | (found == neighbours)).all())
        kept = (found - grid).sum() / (exact - grid).sum()
        assert kept == pytest.approx(1, abs=0.1 if step == 1e-5 else 0.02)
    assert torch.equal(rounded(grid, 1).float(), grid)
    assert torch.equal(rounded(exact, 1), rounded(exact, 1))
    assert not torch.equal(rounded(exact, 1), rounded(exact, 2))


def test_adapters_that_add_nothing_leave_the_weights_as_they_are() -> None:
    model = model_of(3).bfloat16()
    plain = {name: tensor.clone() for name, tensor in model.named_parameters()}
    add_adapters(model, LoRAConfig(rank=2), seed=0, base="tiny")
    merged = dict(merged_copy(model, torch.bfloat16).named_parameters())
    assert merged.keys() == plain.keys()
    for name, tensor in merged.items():
        assert torch.equal(tensor, plain[name])


def test_the_same_adapters_make_the_same_weights() -> None:
    """In a decoder's copy, pushed to it, for vLLM, and merged for good."""
    model = model_of(3).bfloat16()
    add_adapters(model, LoRAConfig(rank=2), seed=0, base="tiny")
    decoder = Decoder(model, tiny_tokenizer())
    grow(model)
    decoder.load_weights(())
    copied, pushed = (
        dict(m.named_parameters()) for m in (merged_copy(model, torch.bfloat16), decoder._model)
    )
    given = dict(merging(model, base_tensors(dict(model.named_parameters())).items()))
    forever = dict(merge(model).named_parameters())
    for name, tensor in copied.items():
        assert torch.equal(tensor, pushed[name])
        assert torch.equal(tensor, given[name])
        assert torch.equal(tensor, forever[name])


def test_what_vllm_is_given(model: Any) -> None:
    """The names and tensors of the plain model, merged one at a time."""

    class Engine:
        def collective_rpc(self, method: str, kwargs: Any) -> None:
            assert method == "reload_weights"
            self.given = {name: tensor.clone() for name, tensor in kwargs["weights_iterator"]}

        def apply_model(self, _: Any) -> None: ...

    engine = Engine()
    tensors = {name: t.detach() for name, t in vllm_runtime.own_tensors(model).items()}
    vllm_runtime.push(engine, model, tensors)
    expected = vllm_runtime.own_tensors(merged_copy(model, torch.float32))
    assert engine.given.keys() == expected.keys()
    for name, tensor in engine.given.items():
        assert torch.equal(tensor, expected[name])
