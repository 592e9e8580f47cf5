"""Models with two sets of rotary frequencies, against transformers on sequences that leave no choice."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch

from generation.engines import prompts, requests
from learner.steps import DISTILLATION, config, examples, gradients
from resd.config import ContextConfig, GenerationConfig, RolloutConfig, RunConfig
from resd.generation.decoder import Decoder
from resd.generation.engine import generate
from resd.generation.forward import max_positions
from resd.generation.rotary import longest_planned, pin
from resd.learner.learner import Learner
from resd.learner.teacher import make_teacher
from resd.records import ResdError
from support import tiny_model, tiny_tokenizer

ORIGINAL, POSITIONS = 32, 96
FACTORS = {"short_factor": [1.0, 1.5, 2.0, 2.5], "long_factor": [3.0, 8.0, 20.0, 40.0]}


def two_sets(kind: str) -> Any:
    """A random model of the kind, with weights large enough that positions matter."""
    from transformers import AutoConfig, AutoModelForCausalLM

    rope = {"rope_type": "longrope", "rope_theta": 100.0, "original_max_position_embeddings": ORIGINAL}
    more = {"short_mscale": 1.2, "long_mscale": 1.4, "num_local_experts": 2} if kind == "phimoe" else {}
    torch.manual_seed(0)
    settings = AutoConfig.for_model(
        kind,
        vocab_size=105,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        original_max_position_embeddings=ORIGINAL,
        rope_parameters={**rope, **FACTORS, **more},
        sliding_window=None,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=1,
        tie_word_embeddings=False,
        **({"num_local_experts": 2} if kind == "phimoe" else {}),
    )
    model = AutoModelForCausalLM.from_config(settings).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(6)
    return model


def planned(prompt: int, reply: int = 8, *, micro_batch_tokens: int = 200, **changes: Any) -> RunConfig:
    run = config(micro_batch_tokens, context=ContextConfig(max_prompt_tokens=prompt), **changes)
    return run.model_copy(update={"algorithm": "sdpo", "rollout": RolloutConfig(max_tokens=reply)})


@torch.no_grad()
def logits(model: Any, tokens: tuple[int, ...]) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    return found


@pytest.mark.parametrize("kind", ["phi3", "phimoe"])
def test_a_long_run_reads_short_texts_as_the_beginning_of_long_ones(kind: str) -> None:
    model = two_sets(kind)
    (long,) = prompts([60])
    expected, short = logits(model, long)[:10], logits(model, long[:10])
    assert not torch.allclose(short, expected, atol=1e-2)
    ours = pin(model, planned(50))
    torch.testing.assert_close(logits(ours, long[:10]), expected, atol=1e-4, rtol=1e-4)
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        torch.testing.assert_close(logits(twin, long[:10]), expected, atol=1e-4, rtol=1e-4)
    assert max_positions(ours) == POSITIONS


def test_a_short_run_takes_no_text_that_would_need_the_long_set() -> None:
    model = two_sets("phi3")
    (text,) = prompts([16])
    expected = logits(model, text)
    ours = pin(model, planned(24))
    assert torch.equal(logits(ours, text), expected)
    assert max_positions(ours) == ORIGINAL
    decoder = Decoder(ours, tiny_tokenizer(), compute_dtype=torch.float32)
    with pytest.raises(ResdError, match="has 32 positions"):
        decoder.submit(requests([text], max_tokens=17))


def test_decoding_goes_on_with_what_the_prompt_was_read_with() -> None:
    """Replies that cross the border, in one batch with others that do not, against one forward of each."""
    model = pin(two_sets("phi3"), planned(50))
    decoder = Decoder(model, tiny_tokenizer(), compute_dtype=torch.float32)
    asked = requests(prompts([4, 15, 25, 40]), max_tokens=12)
    for request, response in zip(asked, generate(decoder, asked), strict=True):
        (rest,) = prompts([40], seed=9)
        whole = logits(two_sets("phi3"), (*request.prompt_ids, *response.token_ids, *rest))
        found = torch.log_softmax(whole, -1)[len(request.prompt_ids) - 1 :]
        expected = found[range(len(response.token_ids)), list(response.token_ids)]
        torch.testing.assert_close(torch.tensor(response.logprobs), expected, atol=1e-3, rtol=0)


def test_micro_batches_do_not_change_the_gradient() -> None:
    batch = examples()
    longest = replace(batch[0], prompt_ids=(7,) * 30, teacher_prompt_ids=(8,) * 40, response_ids=(9, 10))
    batch[0] = replace(longest, rollout_logprobs=(-4.0, -4.0))
    found, plain = [], []
    for micro_batch_tokens in (1, 10_000):
        run = planned(60, micro_batch_tokens=micro_batch_tokens)
        for model, into in ((pin(two_sets("phi3"), run), found), (two_sets("phi3"), plain)):
            learner = Learner(model, make_teacher(run.teacher, model), run, total_updates=9)
            into.append(gradients(learner, batch, DISTILLATION)[0])
    assert (found[0] - found[1]).norm() < 1e-4 * found[0].norm()
    assert (plain[0] - plain[1]).norm() > 1e-2 * plain[0].norm()


def test_what_a_run_plans_for() -> None:
    model = two_sets("phi3")
    assert longest_planned(planned(24), model) == 32
    assert longest_planned(planned(1000), model) == POSITIONS
    context = ContextConfig(max_prompt_tokens=24, max_reflection_tokens=40, max_curation_tokens=32)
    assert (
        longest_planned(planned(24).model_copy(update={"algorithm": "resd", "context": context}), model) == 64
    )
    for limit, expected in ((20, 20), (None, POSITIONS)):
        engine = GenerationConfig(engine="vllm", max_model_len=limit)
        assert longest_planned(planned(24, generation=engine), model) == expected


def test_other_models_stay_as_they_are() -> None:
    model = tiny_model()
    pin(model, planned(24))
    assert max_positions(model) == 4096
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
