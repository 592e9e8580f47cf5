"""Packed sequences, layers computed again, prefixes computed once: the numbers of padded rows."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from learner.kernels import kernels_by_hand
from learner.steps import DISTILLATION, POLICY, RLSD, SRPO, build, config, examples, gradients
from resd.config import (
    RunConfig,
    TeacherConfig,
)
from resd.learner.learner import Learner
from resd.learner.prefix import SharedPrefix
from resd.learner.teacher import make_teacher
from resd.objectives.objective import Objective


@pytest.mark.parametrize("objective", [DISTILLATION, POLICY])
@pytest.mark.parametrize("long", [0, 1_000_000])
def test_packing_and_recomputing_change_no_numbers(
    objective: Objective, long: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many examples in one row, layers computed twice: gradients and metrics of padded rows."""
    monkeypatch.setattr("resd.learner.attention.LONG", long)
    kernels_by_hand(monkeypatch)
    whole, expected = gradients(build(config(), dtype=torch.float64), examples(), objective)
    for tokens in (1, 60, 10_000):
        run = config(tokens)
        optimizer = run.optimizer.model_copy(update={"packing": True, "activation_checkpointing": True})
        learner = build(run.model_copy(update={"optimizer": optimizer}), dtype=torch.float64)
        ours, metrics = gradients(learner, examples(), objective)
        assert (ours - whole).norm() < 1e-6 * whole.norm()
        assert metrics == pytest.approx(expected, rel=1e-5, abs=1e-7)
        assert learner.model.config._attn_implementation == "sdpa"
        assert not any(module.training for module in learner.model.modules())


@pytest.mark.parametrize("kind", ["ema", "live", "trust_region"])
@pytest.mark.parametrize("objective", [DISTILLATION, RLSD, SRPO])
def test_a_shared_prefix_changes_no_numbers(
    kind: Any, objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Teacher prompts that begin alike are scored with the beginning computed once."""
    kernels_by_hand(monkeypatch)
    start = tuple(range(20, 50))
    batch = [
        replace(e, teacher_prompt_ids=e.teacher_prompt_ids and start + e.teacher_prompt_ids)
        for e in examples()
    ]
    run = config().model_copy(update={"teacher": TeacherConfig(kind=kind, update_rate=0.3)})
    whole, expected = gradients(build(run, dtype=torch.float64), batch, objective)
    seen = spy_on_prefixes(monkeypatch)
    for tokens in (1, 60, 10_000):
        optimizer = run.optimizer.model_copy(update={"packing": True, "micro_batch_tokens": tokens})
        learner = build(run.model_copy(update={"optimizer": optimizer}), dtype=torch.float64)
        ours, metrics = gradients(learner, batch, objective)
        assert (ours - whole).norm() < 1e-6 * whole.norm()
        assert metrics == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert len(seen) == 3 * (2 if kind == "trust_region" else 1)
    assert all(prefix.tokens[: len(start)] == start for prefix in seen)


def test_windows_are_packed_and_share_no_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window that ends inside what the teacher's prompts begin with."""
    start = tuple(range(20, 50))
    batch = [
        replace(e, teacher_prompt_ids=e.teacher_prompt_ids and start + e.teacher_prompt_ids)
        for e in examples()
    ]
    whole, expected = gradients(windowed(config()), batch, DISTILLATION)
    kernels_by_hand(monkeypatch)
    run = config()
    optimizer = run.optimizer.model_copy(update={"packing": True})
    learner = windowed(run.model_copy(update={"optimizer": optimizer}))
    assert learner.packed
    ours, metrics = gradients(learner, batch, DISTILLATION)
    assert (ours - whole).norm() < 1e-6 * whole.norm()
    assert metrics == pytest.approx(expected, rel=1e-5, abs=1e-7)


def windowed(run: RunConfig) -> Learner:
    """Layers of a model that see 33 tokens: more than any suffix, fewer than prefix and suffix."""
    torch.manual_seed(0)
    shape = MistralConfig(
        vocab_size=105,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=33,
    )
    model = MistralForCausalLM(shape).to(torch.float64).eval()
    return Learner(model, make_teacher(run.teacher, model), run, total_updates=100)


def spy_on_prefixes(monkeypatch: pytest.MonkeyPatch) -> list[SharedPrefix]:
    """Those that a body was run over."""
    seen: list[SharedPrefix] = []

    class Spied(list[Any]):
        def __init__(self, prefix: SharedPrefix) -> None:
            super().__init__()
            self.prefix = prefix

        def append(self, body: Any) -> None:
            super().append(body)
            seen.append(self.prefix)

    make = SharedPrefix.__init__

    def init(self: SharedPrefix, tokens: Sequence[int]) -> None:
        make(self, tokens)
        self.bodies = Spied(self)

    monkeypatch.setattr(SharedPrefix, "__init__", init)
    return seen
