"""The shipped weights: what is in the folder, and that they do what they are for."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors import safe_open

from resd.chat import encode_prompt
from resd.config import ContextConfig
from resd.context.prompts import COMPACT, style
from resd.context.prompts.full import FULL
from resd.context.teacher_prompt import TeacherPromptComposer
from resd.environments.manufactoria import Manufactoria
from resd.generation.decoder import Decoder
from resd.generation.engine import generate
from resd.lab import check_prompts, weights_path
from resd.lab.build import Recipe, make_model
from resd.lab.evaluate import CONTEXT, MAX_TOKENS, full_playbook
from resd.lab.pool import task_of
from resd.lab.programs import STATES, broken_rules
from resd.lab.tokenizer import END, PAD, vocabulary
from resd.records import Problem, Request, ResdError

ENVIRONMENT = Manufactoria(family="has", prompt="compact", states=STATES)
PROBLEMS = ENVIRONMENT.problems("test")[::14]  # 8 of 104


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(weights_path(), dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(weights_path())


@pytest.fixture(scope="module")
def decoder(model: Any, tokenizer: Any) -> Decoder:
    return Decoder(model, tokenizer, compute_dtype=torch.float32)


def test_file_is_small_and_bfloat16() -> None:
    path = weights_path() / "model.safetensors"
    assert path.stat().st_size <= 16_000_000
    with safe_open(path, "pt") as tensors:
        assert {tensors.get_slice(name).get_dtype() for name in tensors.keys()} == {"BF16"}  # noqa: SIM118


def test_model_and_tokenizer_agree(model: Any, tokenizer: Any) -> None:
    tokens = vocabulary()
    assert model.config.vocab_size == len(tokenizer) == len(tokens)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == tokens.index(END)
    assert model.config.pad_token_id == tokenizer.pad_token_id == tokens.index(PAD)
    assert tokenizer.get_vocab() == {token: i for i, token in enumerate(tokens)}


def test_weights_fit_the_model_of_their_recipe(model: Any) -> None:
    recipe = Recipe(**json.loads((weights_path() / "lab.json").read_text())["recipe"])
    fresh = make_model(recipe)
    assert {n: p.shape for n, p in fresh.named_parameters()} == {
        n: p.shape for n, p in model.named_parameters()
    }


def test_weights_know_the_compact_wording_alone() -> None:
    check_prompts(weights_path(), COMPACT.fingerprint())
    with pytest.raises(ResdError, match="lab model"):
        check_prompts(weights_path(), FULL.fingerprint())
    own = style("compact", words={"closing": {"solve": "Go."}})
    with pytest.raises(ResdError, match=r"context\.prompts to null"):
        check_prompts(weights_path(), own.fingerprint())


@pytest.mark.parametrize("text", ["{}", "[]", "null", "", '{"recipe": {}}'])
def test_lab_model_of_unknown_wording_is_refused(tmp_path: Path, text: str) -> None:
    check_prompts(tmp_path, COMPACT.fingerprint())  # no lab model at all
    (tmp_path / "lab.json").write_text(text)
    with pytest.raises(ResdError, match=r'lab\.json: no "prompts" in it'):
        check_prompts(tmp_path, COMPACT.fingerprint())


def solved_greedily(decoder: Decoder, prompts: list[tuple[int, ...]]) -> int:
    """How many of PROBLEMS the most likely program solves; every program is one that the rules allow."""
    requests = [Request(str(i), prompt, MAX_TOKENS, temperature=0.0) for i, prompt in enumerate(prompts)]
    replies = generate(decoder, requests)
    pairs = list(zip(PROBLEMS, replies, strict=True))
    assert all(reply.finish_reason == "stop" for reply in replies)
    outside = [broken_rules(task_of(problem), reply.text) is None for problem, reply in pairs]
    assert sum(outside) <= 1
    return sum(ENVIRONMENT.grade(problem, reply).solved for problem, reply in pairs)


def taught(tokenizer: Any, problem: Problem, seed: int) -> tuple[int, ...]:
    composer = TeacherPromptComposer(CONTEXT, COMPACT, tokenizer, thinking=False)
    prompt = composer.compose(problem, entries=full_playbook(Random(seed)).entries)
    assert prompt is not None
    return prompt.ids


def test_a_full_playbook_makes_most_programs_right(decoder: Decoder, tokenizer: Any) -> None:
    """Greedy, so that it is the same on every machine: each rule is kept with .92, so all are together."""
    prompts = [taught(tokenizer, problem, seed) for seed, problem in enumerate(PROBLEMS)]
    assert solved_greedily(decoder, prompts) >= len(PROBLEMS) - 2


def test_without_help_most_programs_are_wrong(decoder: Decoder, tokenizer: Any) -> None:
    prompts = [encode_prompt(tokenizer, problem.messages, thinking=False) for problem in PROBLEMS]
    assert solved_greedily(decoder, prompts) <= 1


def test_reports_use_the_wording_of_the_weights() -> None:
    assert CONTEXT.style == "compact"
    assert ContextConfig(style="compact").order == CONTEXT.order == COMPACT.order
