"""Adapters: what is trained, against sums by hand on plain models; and what stays as it is."""

import copy
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.func import functional_call

from learner.kernels import kernels_by_hand
from learner.steps import (
    DISTILLATION,
    JSD,
    NAMES,
    POLICY,
    RLSD,
    SRPO,
    adapt,
    build,
    config,
    examples,
    gradients,
)
from resd.config import LoRAConfig, RunConfig, TeacherConfig
from resd.forecast.model_shape import shape_of
from resd.generation.merging import merge
from resd.learner.layout import Layout, build_layout
from resd.learner.learner import Learner
from resd.learner.lora import add_adapters, left_out, load_adapters, own_parameters, save_adapters
from resd.learner.model import load_model, load_student
from resd.learner.teacher import Teacher, make_teacher
from resd.objectives.chunked import LogitTiles
from resd.objectives.divergence import token_divergence
from resd.objectives.objective import Objective
from resd.records import ResdError
from shapes import EXPERTS, SMALL
from support import save_tiny, tiny_model

LORA = LoRAConfig(rank=3, alpha=6)
RUN = config(lora=LORA)


def teaching(kind: Any, run: RunConfig = RUN, rate: float = 0.3) -> RunConfig:
    return run.model_copy(update={"teacher": TeacherConfig(kind=kind, update_rate=rate)})


def base_of(learner: Learner) -> dict[str, torch.Tensor]:
    return {
        name: tensor.clone() for name, tensor in learner.model.state_dict().items() if ".lora_" not in name
    }


def adapters(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in own_parameters(model)}


def by_hand(base: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of a plain model: W + alpha / rank * B A."""
    weights = {name.replace(".base_layer", ""): tensor for name, tensor in base.items()}
    for name, up in own.items():
        if ".lora_B." in name:
            down = own[name.replace("lora_B", "lora_A")]
            layer = name.partition(".lora_B")[0]
            weights[f"{layer}.weight"] = weights[f"{layer}.weight"] + 6 / 3 * up @ down
    return weights


def logits_by_hand(weights: Mapping[str, torch.Tensor], prompt: Any, response: Any) -> torch.Tensor:
    model = tiny_model().to(torch.float64)
    ids = torch.tensor([prompt + response])
    untied = {name: tensor for name, tensor in weights.items() if name != "lm_head.weight"}
    logits: torch.Tensor = functional_call(model, untied, kwargs={"input_ids": ids}).logits
    return logits[0, len(prompt) - 1 : -1]


@pytest.mark.parametrize("kind", ["ema", "frozen"])
def test_the_gradient_is_that_of_merged_weights(kind: str) -> None:
    """One sequence at a time in float64; the frozen teacher is the model without adapters."""
    learner, batch = build(teaching(kind), dtype=torch.float64), examples()
    base, own = base_of(learner), adapters(learner.model)
    for tensor in own.values():
        tensor.requires_grad_()
    total: Any = 0.0
    for one in batch:
        if one.teacher_prompt_ids is None or not one.response_ids:
            continue
        student = logits_by_hand(by_hand(base, own), one.prompt_ids, one.response_ids)
        with torch.no_grad():
            shown = by_hand(base, own if kind == "ema" else {})
            teacher = logits_by_hand(shown, one.teacher_prompt_ids, one.response_ids)
        loss = token_divergence(student, teacher, alpha=1.0, topk=10, min_ratio=0.2)
        chosen = student.detach().log_softmax(-1)[range(len(one.response_ids)), list(one.response_ids)]
        ratio = (chosen - torch.tensor(one.rollout_logprobs)).exp().clamp(max=2.0)
        total = total + one.weight * (ratio * loss).mean() / len(batch)
    total.backward()
    expected = torch.cat([tensor.grad.flatten() for tensor in own.values() if tensor.grad is not None])
    ours, metrics = gradients(learner, batch, DISTILLATION)
    assert (ours - expected).norm() < 1e-6 * expected.norm()
    assert metrics["actor/loss"] == pytest.approx(total.item(), rel=1e-5)
    assert metrics["actor/grad_norm"] == pytest.approx(expected.norm().item(), rel=1e-5)


def test_the_step_is_adamws_on_the_adapters_alone() -> None:
    learner = build(RUN)
    expected = copy.deepcopy(list(adapters(learner.model).values()))
    base = base_of(learner)
    adamw = torch.optim.AdamW(expected, lr=1e-3 / 10, weight_decay=0.01)  # the first of ten that warm up
    flat, _ = gradients(learner, examples(), DISTILLATION)
    flat = flat / max(1.0, float(flat.norm()))
    for tensor, gradient in zip(expected, flat.split([t.numel() for t in expected]), strict=True):
        tensor.grad = gradient.view_as(tensor).clone()
    adamw.step()
    for ours, theirs in zip(adapters(learner.model).values(), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)
    assert len(learner.optimizer.adamw.state) == len(expected) == 2 * 2 * 7
    assert_untouched(learner, base)


def assert_untouched(learner: Learner, base: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in base_of(learner).items():
        assert torch.equal(tensor, base[name]), name


@pytest.mark.parametrize("objective", [DISTILLATION, POLICY, JSD, SRPO, RLSD], ids=NAMES)
@pytest.mark.parametrize("mode", ["seq_mean_including_empty", "token_mean"])
def test_micro_batches_and_order_do_not_change_the_gradient(objective: Objective, mode: Any) -> None:
    batch = examples()

    def run(tokens: int) -> RunConfig:
        return teaching("frozen", config(tokens, loss_aggregation=mode, lora=LORA))

    whole, expected = gradients(build(run(10_000), dtype=torch.float64), batch, objective)
    shuffled = random.Random(0).sample(batch, len(batch))
    for tokens, order in ((1, batch), (50, shuffled)):
        ours, metrics = gradients(build(run(tokens), dtype=torch.float64), order, objective)
        assert (ours - whole).norm() < 1e-6 * whole.norm()
        assert metrics == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("kind", ["ema", "frozen", "live", "trust_region"])
def test_packing_prefixes_and_recomputing_change_no_numbers(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels_by_hand(monkeypatch)
    start = tuple(range(20, 50))
    batch = [
        replace(e, teacher_prompt_ids=e.teacher_prompt_ids and start + e.teacher_prompt_ids)
        for e in examples()
    ]
    run = teaching(kind)
    whole, expected = gradients(build(run, dtype=torch.float64), batch, DISTILLATION)
    for tokens in (1, 10_000):
        changes = {"packing": True, "micro_batch_tokens": tokens, "activation_checkpointing": True}
        optimizer = run.optimizer.model_copy(update=changes)
        learner = build(run.model_copy(update={"optimizer": optimizer}), dtype=torch.float64)
        assert learner.prefixed
        ours, metrics = gradients(learner, batch, DISTILLATION)
        assert (ours - whole).norm() < 1e-6 * whole.norm()
        assert metrics == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.fixture
def layout() -> Layout:
    return build_layout([(5, 6, 7), (9,)], [(8, 9), (10, 11, 12)], [0, 1])


def logits(teacher: Teacher, layout: Layout) -> torch.Tensor:
    return LogitTiles(teacher.projections(layout))(slice(0, len(layout.targets))).clone()


def test_the_average_is_of_adapters_beside_the_same_weights() -> None:
    learner = build(teaching("ema", rate=0.2))
    before = adapters(learner.teacher.model)
    learner.update(examples(), DISTILLATION)
    after, student = adapters(learner.teacher.model), adapters(learner.model)
    for name, tensor in after.items():
        torch.testing.assert_close(tensor, before[name] + 0.2 * (student[name] - before[name]))
    assert not torch.equal(torch.cat([t.flatten() for t in after.values()]), flat(before))
    own = {id(p) for _, p in own_parameters(learner.teacher.model)}
    held = {id(p) for p in learner.model.parameters()}
    assert all((id(p) in held) != (id(p) in own) for p in learner.teacher.model.parameters())


def flat(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


@pytest.mark.parametrize("kind", ["ema", "frozen", "live", "trust_region"])
def test_who_follows_the_student(kind: Any, layout: Layout) -> None:
    """From adapters that add nothing on: the first student is the base model."""
    model, plain = tiny_model(), tiny_model()
    add_adapters(model, LORA, seed=0, base="tiny")
    teacher = make_teacher(TeacherConfig(kind=kind, update_rate=0.3), model)
    live = make_teacher(TeacherConfig(kind="live"), model)
    base = logits(make_teacher(TeacherConfig(kind="live"), plain), layout)
    assert torch.equal(logits(live, layout), base)
    assert torch.equal(logits(make_teacher(TeacherConfig(kind="frozen"), model), layout), base)
    torch.testing.assert_close(logits(teacher, layout), base)
    torch.manual_seed(0)
    with torch.no_grad():
        for _, parameter in own_parameters(model):
            parameter += 0.1 * torch.randn_like(parameter)
    teacher.update()
    now, scored = logits(live, layout), logits(teacher, layout)
    assert not torch.allclose(now, base)
    if kind == "ema":
        assert not torch.allclose(scored, base)
        assert not torch.allclose(scored, now)
    else:
        share = {"frozen": 0.0, "live": 1.0, "trust_region": 0.3}[kind]
        torch.testing.assert_close(scored, torch.lerp(base, now, share))
    assert all(p.requires_grad for _, p in own_parameters(model))
    extra = [p for p in teacher.model.parameters() if id(p) not in {id(q) for q in model.parameters()}]
    assert len(extra) == (28 if kind == "ema" else 0)


@pytest.mark.parametrize("kind", ["ema", "frozen", "trust_region"])
def test_resuming_equals_never_having_stopped(kind: Any, tmp_path: Path) -> None:
    """From files: the base by its name, the adapters from their folder."""
    run = teaching(kind).model_copy(update={"model": str(save_tiny(tmp_path / "base"))})

    def learner(found: Path | None) -> Learner:
        model = load_student(run, found, "cpu")
        return Learner(model, make_teacher(run.teacher, model), run, total_updates=100)

    straight, stopped = learner(None), learner(None)
    for seed in range(2):
        straight.update(examples(seed=seed), DISTILLATION)
        stopped.update(examples(seed=seed), DISTILLATION)
    (tmp_path / "saved").mkdir()
    save_adapters(stopped.model, stopped.model_state(), tmp_path / "saved")
    torch.save(stopped.state_dict(), tmp_path / "learner.pt")
    resumed = learner(tmp_path / "saved")
    resumed.load_state_dict(torch.load(tmp_path / "learner.pt", weights_only=True))
    for seed in range(2, 4):
        expected = straight.update(examples(seed=seed), DISTILLATION)
        assert resumed.update(examples(seed=seed), DISTILLATION) == expected
    for one, other in ((resumed.model, straight.model), (resumed.teacher.model, straight.teacher.model)):
        assert torch.equal(flat(one.state_dict()), flat(other.state_dict()))
    kept = 2 * 14 if kind == "ema" else 0
    assert len(stopped.state_dict()["teacher"].get("model", {})) == kept


def test_a_folder_of_adapters_is_one_that_others_read(tmp_path: Path) -> None:
    """`peft` and `transformers` give the trainer's logits, and so does our own loading, merged."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run = RUN.model_copy(update={"model": str(save_tiny(tmp_path / "base"))})
    model = load_student(run, None, "cpu")
    with torch.no_grad():
        for _, parameter in own_parameters(model):
            parameter += 0.1 * torch.randn_like(parameter)
    folder = tmp_path / "adapters"
    folder.mkdir()
    save_adapters(model, adapters(model), folder)
    ids = torch.tensor([[5, 6, 7, 8]])
    expected = model(input_ids=ids).logits
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert not torch.allclose(base(input_ids=ids).logits, expected, atol=1e-3)
    ours = load_model(str(folder))
    assert ours.state_dict().keys() == base.state_dict().keys()
    torch.testing.assert_close(ours(input_ids=ids).logits, expected)
    for theirs in (PeftModel.from_pretrained(base, folder), AutoModelForCausalLM.from_pretrained(folder)):
        torch.testing.assert_close(theirs(input_ids=ids).logits, expected)
    assert {path.name for path in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert (folder / "adapter_model.safetensors").stat().st_size < 60_000


def test_adapters_of_another_rank_are_refused(tmp_path: Path) -> None:
    run = RUN.model_copy(update={"model": str(save_tiny(tmp_path / "base"))})
    model = load_student(run, None, "cpu")
    save_adapters(model, adapters(model), tmp_path)
    other = load_student(run.model_copy(update={"lora": LoRAConfig(rank=4)}), None, "cpu")
    with pytest.raises(ResdError, match="are not for this model, or of another rank"):
        load_adapters(other, tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ResdError, match="cannot be read"):
        load_adapters(model, tmp_path)
    weights.unlink()
    with pytest.raises(ResdError, match="cannot be read"):
        load_adapters(model, tmp_path)


def test_what_has_adapters() -> None:
    model = tiny_model()
    add_adapters(model, LoRAConfig(rank=2, target_modules=("q_proj", "mlp.up_proj")), seed=0, base="tiny")
    names = {name.partition(".lora_")[0].rpartition(".")[2] for name, _ in own_parameters(model)}
    assert names == {"q_proj", "up_proj"}
    for name in ("lm_head", "proj", "norm"):
        with pytest.raises(ResdError, match=f"{name} is not a linear layer .* down_proj, gate_proj"):
            add_adapters(tiny_model(), LoRAConfig(rank=2, target_modules=(name,)), seed=0, base="tiny")


@pytest.mark.parametrize("dense", [0, 1])
def test_experts_in_one_tensor_are_counted_as_left_out(dense: int) -> None:
    """Against sizes by hand, and engines know how to merge what is adapted."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    sizes: dict[str, Any] = {**SMALL, **EXPERTS, "mlp_only_layers": list(range(dense))}
    model, plain = (Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes)).eval() for _ in range(2))
    plain.load_state_dict(model.state_dict())
    width = (3 - dense) * EXPERTS["num_experts"] * EXPERTS["moe_intermediate_size"]
    expected = 3 * SMALL["hidden_size"] * (width + dense * SMALL["intermediate_size"])
    add_adapters(model, LORA, seed=0, base="tiny")
    shape = shape_of({**sizes, "model_type": "qwen3_moe"})
    assert left_out(model, LORA) == expected == shape.unadapted
    assert LORA.rank is not None
    assert sum(p.numel() for _, p in own_parameters(model)) == shape.adapters(LORA.rank)
    chosen = LoRAConfig(rank=2, target_modules=("q_proj",))
    assert [left_out(model, chosen), left_out(model, LoRAConfig()), left_out(tiny_model(), LORA)] == [0, 0, 0]
    merged = merge(model)
    assert all(torch.equal(tensor, plain.state_dict()[name]) for name, tensor in merged.state_dict().items())
    with pytest.raises(ResdError, match="up_proj is not a linear layer"):
        add_adapters(plain, LoRAConfig(rank=2, target_modules=("up_proj",)), seed=0, base="tiny")


def test_the_seed_decides_how_adapters_begin() -> None:
    models = [tiny_model() for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        torch.rand(7)  # whatever has been drawn before
        add_adapters(model, LORA, seed=seed, base="tiny")
    one, same, other = (flat(adapters(model)) for model in models)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_bfloat16_weights_beside_float32_adapters() -> None:
    """Near the float32 gradient, and the weights stay bfloat16 to the bit."""
    exact, _ = gradients(build(RUN), examples(), DISTILLATION)
    learner = build(config(compute_dtype="bfloat16", lora=LORA), dtype=torch.bfloat16)
    base = base_of(learner)
    ours, _ = gradients(learner, examples(), DISTILLATION)
    assert ours.dtype == torch.float32
    assert {p.dtype for _, p in own_parameters(learner.model)} == {torch.float32}
    assert {p.dtype for _, p in own_parameters(learner.teacher.model)} == {torch.float32}
    assert {tensor.dtype for tensor in base.values()} == {torch.bfloat16}
    assert torch.nn.functional.cosine_similarity(ours, exact, dim=0) > 0.95
    assert_untouched(learner, base)


def test_merging_for_good_is_the_sum() -> None:
    model = tiny_model().to(torch.float64)
    adapt(model, RUN)
    expected = by_hand({n: t for n, t in model.state_dict().items() if ".lora_" not in n}, adapters(model))
    plain = merge(model)
    assert plain.state_dict().keys() == expected.keys()
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(tensor, expected[name])
