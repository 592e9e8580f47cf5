"""The same numbers on a GPU as on a CPU. Run with `pytest -m gpu` on a machine that has one."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from learner import steps
from resd.config import DistillationConfig, LoRAConfig, OptimizerConfig, RunConfig, TeacherConfig
from resd.generation.decoder import Decoder
from resd.generation.engine import generate
from resd.learner.learner import Learner
from resd.learner.teacher import make_teacher
from resd.objectives.objective import Objective
from resd.records import Request, TrainingExample
from support import save_tiny, tiny_model, tiny_tokenizer

pytestmark = pytest.mark.gpu
LAB = Path(__file__).parents[2] / "examples" / "lab.yaml"


def examples() -> list[TrainingExample]:
    """Ragged prompts and responses, one without anything to distil."""
    generator = torch.Generator().manual_seed(0)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(5, 100, (length,), generator=generator).tolist())

    return [
        TrainingExample(ids(5 + i), ids(3 * i + 2), (-3.0,) * (3 * i + 2), ids(9 + 2 * i) if i else None)
        for i in range(6)
    ]


def gradients(device: str, kind: str, rank: int | None = None) -> dict[str, torch.Tensor]:
    """Parameters after one update with plain SGD-like AdamW: what the gradients did to them."""
    model = copy.deepcopy(tiny_model())
    config = RunConfig(
        compute_dtype="float32",
        teacher=TeacherConfig(kind=kind, update_rate=0.05),
        lora=LoRAConfig(rank=rank, alpha=4),
        # A large eps makes AdamW's first step proportional to the gradient.
        optimizer=OptimizerConfig(learning_rate=1.0, eps=1.0, warmup_updates=0, weight_decay=0.0),
    )
    if rank:
        steps.adapt(model, config)
    model = model.to(device)
    learner = Learner(model, make_teacher(config.teacher, model), config, total_updates=1)
    learner.update(examples(), Objective(distillation=DistillationConfig(topk=20)))
    return {name: parameter.detach().cpu() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("kind", ["ema", "live", "trust_region"])
def test_an_update_is_the_same_as_on_the_cpu(kind: str) -> None:
    here, there = gradients("cpu", kind), gradients("cuda", kind)
    for name, expected in here.items():
        torch.testing.assert_close(there[name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["ema", "frozen"])
def test_adapters_learn_the_same_as_on_the_cpu(kind: str) -> None:
    here, there = gradients("cpu", kind, rank=2), gradients("cuda", kind, rank=2)
    for name, expected in here.items():
        torch.testing.assert_close(there[name], expected, rtol=1e-4, atol=1e-6)


def test_adapters_learn_beside_bfloat16_weights() -> None:
    """Packed, from weights in bfloat16: near the float32 gradient, and the weights stay as they are."""
    lora = LoRAConfig(rank=3, alpha=6)
    exact, _ = steps.gradients(steps.build(steps.config(lora=lora)), steps.examples(), steps.DISTILLATION)
    run = steps.config(compute_dtype="bfloat16", lora=lora)
    learner = steps.build(run, dtype=torch.bfloat16, device="cuda")
    assert learner.packed
    before = {name: p.clone() for name, p in learner.model.named_parameters() if not p.requires_grad}
    ours, _ = steps.gradients(learner, steps.examples(), steps.DISTILLATION)
    assert torch.nn.functional.cosine_similarity(ours.cpu(), exact, dim=0) > 0.95
    for name, tensor in before.items():
        assert torch.equal(learner.model.get_parameter(name), tensor)


def test_greedy_decoding_is_the_same_as_on_the_cpu() -> None:
    requests = [
        Request(str(i), tuple(range(10, 20 + i)), max_tokens=24, temperature=0.0, seed=i) for i in range(5)
    ]
    replies = [
        generate(Decoder(tiny_model().to(device), tiny_tokenizer(), compute_dtype=torch.float32), requests)
        for device in ("cpu", "cuda")
    ]
    assert [r.token_ids for r in replies[0]] == [r.token_ids for r in replies[1]]


def test_a_run_trains_on_the_gpu(tmp_path: Path) -> None:
    from resd.config import load_config
    from resd.training.setup import build

    overrides = [
        f"output={tmp_path}/run", "device=cuda", "stream.batch_size=4", "stream.max_updates=2",
        "evaluation.limit=2", "evaluation.samples=1",
    ]  # fmt: skip
    stream = build(load_config(LAB, overrides))
    stream.train()
    assert stream.learner.version == 2
    assert next(stream.learner.model.parameters()).device.type == "cuda"


def test_saved_on_a_gpu_loads_on_a_cpu(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = save_tiny(tmp_path / "tiny")
    model = AutoModelForCausalLM.from_pretrained(folder).to("cuda")
    model.save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one.cpu(), other)
