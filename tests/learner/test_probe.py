"""Which models can have their sequences packed: small random ones of several kinds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from learner.kernels import kernels_by_hand
from resd.learner.probe import packs
from resd.learner.student import Student
from resd.records import ResdError

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
KINDS: dict[str, dict[str, Any]] = {
    "qwen3": SHAPE,
    "llama": SHAPE,
    "mistral": SHAPE | {"sliding_window": 2},
    "gemma2": SHAPE,  # soft caps
    "lfm2": SHAPE | {"layer_types": ["conv", "full_attention"]},
}


def make(kind: str) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **KINDS[kind])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 5  # as far from 0 as those of trained models
    return Student(model)


def choose(chosen: bool | None, kind: str) -> bool:
    return packs(chosen, make(kind), torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("kind", ["qwen3", "llama", "mistral"])
def test_what_attends_through_the_interface_is_packed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels_by_hand(monkeypatch)
    assert choose(None, kind)
    assert choose(True, kind)
    assert not choose(False, kind)


@pytest.mark.parametrize("kind", ["gemma2", "lfm2"])
def test_what_would_mix_sequences_is_not_packed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels_by_hand(monkeypatch)
    assert not choose(None, kind)
    with pytest.raises(ResdError, match=r"packing: in \w+ the sequences of one row cannot be kept apart; "):
        choose(True, kind)


def test_without_kernels_packing_is_refused_before_the_first_update() -> None:
    assert not choose(None, "qwen3")
    with pytest.raises(ResdError, match=r"packing: needs a GPU .* on cpu in float32; set it"):
        choose(True, "qwen3")
