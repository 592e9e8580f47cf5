"""The update of a whole batch, against plain loops over its sequences."""

import copy
import math
import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from learner.steps import (
    DISTILLATION,
    JSD,
    NAMES,
    POLICY,
    RLSD,
    SRPO,
    build,
    config,
    examples,
    gradients,
    sequence_logits,
    weights,
)
from resd.config import (
    DistillationConfig,
    PolicyConfig,
    RLSDConfig,
    RolloutConfig,
    SRPOConfig,
    TeacherConfig,
)
from resd.learner.teacher import make_teacher
from resd.objectives.divergence import token_divergence
from resd.objectives.objective import Objective
from resd.objectives.rows import nucleus_log_mass
from resd.records import TrainingExample


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_distillation_gradient_equals_one_sequence_at_a_time(temperature: float) -> None:
    """The spec's formula, (1/B) sum_i w_i mean_t r_it l_it, in a plain float64 loop."""
    batch = examples()
    learner = build(config(temperature=temperature), dtype=torch.float64)
    reference = copy.deepcopy(learner.model)
    total: Any = 0.0
    for one in batch:
        if one.teacher_prompt_ids is None or not one.response_ids:
            continue
        student = sequence_logits(reference, one.prompt_ids, one.response_ids) / temperature
        with torch.no_grad():
            teacher = sequence_logits(reference, one.teacher_prompt_ids, one.response_ids) / temperature
        loss = token_divergence(student, teacher, alpha=1.0, topk=10, min_ratio=0.2)
        chosen = student.detach().log_softmax(-1)[range(len(one.response_ids)), list(one.response_ids)]
        ratio = (chosen - torch.tensor(one.rollout_logprobs)).exp().clamp(max=2.0)
        total = total + one.weight * (ratio * loss).mean() / len(batch)
    total.backward()
    expected = torch.cat([p.grad.flatten() for p in reference.parameters()])
    ours, metrics = gradients(learner, batch, DISTILLATION)
    assert (ours - expected).norm() < 1e-6 * expected.norm()
    assert metrics["actor/loss"] == pytest.approx(total.item(), rel=1e-5)
    assert metrics["actor/grad_norm"] == pytest.approx(expected.norm().item(), rel=1e-5)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_policy_gradient_equals_one_sequence_at_a_time(level: Any) -> None:
    """The importance weight is of each token, or the product over a response's tokens, capped once."""
    batch = examples()
    if level == "sequence":  # products that neither vanish nor all reach the cap
        logprobs = [tuple(-4.6 + 0.05 * (i % 3) for i in range(len(e.response_ids))) for e in batch]
        batch = [replace(e, rollout_logprobs=own) for e, own in zip(batch, logprobs, strict=True)]
    learner = build(config(), dtype=torch.float64)
    reference = copy.deepcopy(learner.model)
    total: Any = 0.0
    for one in batch:
        if not one.response_ids:
            continue
        logprobs = sequence_logits(reference, one.prompt_ids, one.response_ids).log_softmax(-1)
        chosen = logprobs[range(len(one.response_ids)), list(one.response_ids)]
        apart = chosen.detach() - torch.tensor(one.rollout_logprobs)
        ratio = (apart if level == "token" else apart.sum()).exp().clamp(max=2.0)
        total = total - one.weight * one.advantage * (ratio * chosen).mean() / len(batch)
    total.backward()
    expected = torch.cat([p.grad.flatten() for p in reference.parameters()])
    ours, metrics = gradients(learner, batch, Objective(policy=PolicyConfig(is_level=level)))
    assert (ours - expected).norm() < 1e-6 * expected.norm()
    assert metrics["actor/trained_fraction"] == pytest.approx(5 / 7)
    assert 0 < metrics["actor/is_ratio_mean"] < 2


def srpo_example(one: TrainingExample) -> TrainingExample:
    """Distilled examples have no advantage."""
    return one if one.teacher_prompt_ids is None else replace(one, advantage=0.0)


@pytest.mark.parametrize("micro_batch_tokens", [1, 10_000])
def test_srpo_equals_one_sequence_at_a_time(micro_batch_tokens: int) -> None:
    """Token mean over all responses of either loss, distilled tokens weighted by the teacher's certainty."""
    batch = [srpo_example(one) for one in examples()]
    learner = build(config(micro_batch_tokens, loss_aggregation="token_mean"), dtype=torch.float64)
    reference = copy.deepcopy(learner.model)
    terms, weights_of, policy = [], [], 0.0
    for one in batch:
        if not one.response_ids:
            continue
        student = sequence_logits(reference, one.prompt_ids, one.response_ids)
        chosen = student.log_softmax(-1)[range(len(one.response_ids)), list(one.response_ids)]
        ratio = (chosen.detach() - torch.tensor(one.rollout_logprobs)).exp().clamp(max=2.0)
        if one.teacher_prompt_ids is None:
            surrogate = (chosen - chosen.detach()).exp()  # the ratio to the policy before the step
            policy = policy - (one.weight * one.advantage * ratio * surrogate).sum()
            continue
        with torch.no_grad():
            teacher = sequence_logits(reference, one.teacher_prompt_ids, one.response_ids)
        loss = token_divergence(student, teacher, alpha=1.0, topk=10, min_ratio=0.2)
        log_q = teacher.log_softmax(-1)
        weights_of.append((1.5 * (log_q.exp() * log_q).sum(-1)).exp())
        terms.append(one.weight * ratio * loss)
    certainty = torch.cat(weights_of)
    distilled = (torch.cat(terms) * certainty / certainty.mean()).sum()
    total: Any = (distilled + policy) / sum(len(one.response_ids) for one in batch)
    total.backward()
    expected = torch.cat([p.grad.flatten() for p in reference.parameters()])
    objective = Objective(DistillationConfig(topk=10), PolicyConfig(), srpo=SRPOConfig(entropy_beta=1.5))
    ours, metrics = gradients(learner, batch, objective)
    assert (ours - expected).norm() < 1e-6 * expected.norm()
    assert metrics["actor/loss"] == pytest.approx(total.item(), rel=1e-5)
    assert metrics["actor/trained_fraction"] == pytest.approx(6 / 7)


@pytest.mark.parametrize("updates", [0, 5, 50])
def test_rlsd_equals_one_sequence_at_a_time(updates: int) -> None:
    """The teacher changes the size of advantages, less and less; without a prompt for it nothing changes."""
    batch = examples()
    learner = build(config(), dtype=torch.float64)
    learner.optimizer.steps = updates
    mixing = {0: 0.6, 5: 0.35, 50: 0.1}[updates]
    reference = copy.deepcopy(learner.model)
    total: Any = 0.0
    for one in batch:
        if not one.response_ids:
            continue
        index = (range(len(one.response_ids)), list(one.response_ids))
        chosen = sequence_logits(reference, one.prompt_ids, one.response_ids).log_softmax(-1)[index]
        ratio = (chosen.detach() - torch.tensor(one.rollout_logprobs)).exp().clamp(max=2.0)
        factor = torch.ones_like(ratio)
        if one.teacher_prompt_ids is not None:
            with torch.no_grad():
                teacher = sequence_logits(reference, one.teacher_prompt_ids, one.response_ids)
            preference = teacher.log_softmax(-1)[index] - chosen.detach()
            towards = (math.copysign(1.0, one.advantage) * preference).exp().clamp(0.7, 1.3)
            factor = (1 - mixing) + mixing * towards
        total = total - one.weight * (one.advantage * factor * ratio * chosen).mean() / len(batch)
    total.backward()
    expected = torch.cat([p.grad.flatten() for p in reference.parameters()])
    rlsd = RLSDConfig(mixing=0.6, final_mixing=0.1, decay_updates=10, max_change=0.3)
    ours, metrics = gradients(learner, batch, Objective(policy=PolicyConfig(), rlsd=rlsd))
    assert (ours - expected).norm() < 1e-6 * expected.norm()
    assert metrics["self_distillation/teacher_equals_student"] == 0
    assert metrics["self_distillation/logits_differ_fraction"] > 0


@pytest.mark.parametrize("objective", [DISTILLATION, POLICY, JSD, SRPO, RLSD], ids=NAMES)
@pytest.mark.parametrize(
    "mode",
    [
        "seq_mean_including_empty",
        "token_mean",
        "seq_mean_token_mean",
        "seq_mean_token_sum",
        "seq_mean_token_sum_norm",
    ],
)
def test_micro_batches_and_order_do_not_change_the_gradient(objective: Objective, mode: Any) -> None:
    batch = examples()
    whole, expected = gradients(
        build(config(10_000, loss_aggregation=mode), dtype=torch.float64), batch, objective
    )
    shuffled = random.Random(0).sample(batch, len(batch))
    for tokens, order in ((1, batch), (50, shuffled)):
        ours, metrics = gradients(
            build(config(tokens, loss_aggregation=mode), dtype=torch.float64), order, objective
        )
        assert (ours - whole).norm() < 1e-6 * whole.norm()
        assert metrics == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_learning_closes_the_gap_to_a_frozen_teacher() -> None:
    run = config()
    learner, batch = build(run.model_copy(update={"teacher": TeacherConfig(kind="frozen")})), examples(3)
    metrics = [learner.update(batch, DISTILLATION) for _ in range(15)]
    first, last = (m["self_distillation/teacher_student_gap"] for m in (metrics[0], metrics[-1]))
    assert last < 0.5 * first
    assert learner.version == 15


def test_metrics_say_what_happened() -> None:
    learner, batch = build(config()), examples()
    metrics = learner.update(batch, DISTILLATION)
    assert metrics["actor/trained_tokens"] == sum(
        len(e.response_ids) for e in batch if e.teacher_prompt_ids is not None
    )
    assert metrics["actor/lr"] == pytest.approx(1e-4)
    assert metrics["actor/skipped"] == metrics["self_distillation/teacher_equals_student"] == 0
    assert 0 < metrics["actor/entropy"] <= math.log(105)
    assert 0 < metrics["self_distillation/teacher_entropy"] <= math.log(105)
    assert 0 < metrics["actor/is_ratio_mean"] <= 2
    assert learner.version == 1
    assert "self_distillation/teacher_entropy" not in learner.update(batch, POLICY)


def test_alarm_when_the_teacher_ignores_its_prompts() -> None:
    learner, batch = build(config()), examples()
    same = [replace(e, teacher_prompt_ids=e.prompt_ids) for e in batch]
    assert learner.update(same, DISTILLATION)["self_distillation/teacher_equals_student"] == 0
    deaf = build(config())
    with torch.no_grad():
        deaf.model.get_output_embeddings().weight.zero_()
    deaf.teacher = make_teacher(TeacherConfig(kind="live"), deaf.model)
    assert deaf.update(batch, DISTILLATION)["self_distillation/teacher_equals_student"] == 1


@pytest.mark.parametrize("objective", [DISTILLATION, POLICY])
def test_without_signal_nothing_changes(objective: Objective) -> None:
    learner = build(config())
    learner.update(examples(), objective)
    before, state = weights(learner), copy.deepcopy(learner.state_dict())
    silent = [replace(e, teacher_prompt_ids=None, advantage=0.0) for e in examples()]
    for batch in (silent, []):
        metrics = learner.update(batch, objective)
        assert metrics["actor/skipped"] == 1
        assert metrics["actor/loss"] == metrics["actor/trained_fraction"] == 0
    assert torch.equal(weights(learner), before)
    assert_same(learner.state_dict(), state)
    assert learner.version == 1


def test_a_gradient_that_is_not_finite_skips_student_and_teacher() -> None:
    learner, batch = build(config()), examples()
    learner.update(batch, DISTILLATION)
    before, state = weights(learner), copy.deepcopy(learner.state_dict())
    broken = [replace(e, weight=float("inf")) for e in batch]
    metrics = learner.update(broken, DISTILLATION)
    assert metrics["actor/skipped"] == 1
    assert not math.isfinite(metrics["actor/grad_norm"])
    assert torch.equal(weights(learner), before)
    assert_same(learner.state_dict(), state)
    assert learner.update(batch, DISTILLATION)["actor/skipped"] == 0


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("ema", "float32"), ("ema", "bfloat16"), ("trust_region", "float32"), ("frozen", "float32")],
)
def test_resuming_equals_never_having_stopped(kind: Any, dtype: str) -> None:
    run = config(compute_dtype=dtype).model_copy(
        update={"teacher": TeacherConfig(kind=kind, update_rate=0.2)}
    )
    straight, stopped = build(run), build(run)
    for seed in range(2):
        straight.update(examples(seed=seed), DISTILLATION)
        stopped.update(examples(seed=seed), DISTILLATION)
    model, state = copy.deepcopy(stopped.model.state_dict()), copy.deepcopy(stopped.state_dict())
    resumed = build(run, seed=9)
    resumed.model.load_state_dict(model)
    resumed.load_state_dict(state)
    assert resumed.version == 2
    for seed in range(2, 4):
        expected = straight.update(examples(seed=seed), DISTILLATION)
        assert resumed.update(examples(seed=seed), DISTILLATION) == expected
    assert torch.equal(weights(resumed), weights(straight))
    assert_same(resumed.state_dict(), straight.state_dict())


def test_truncated_sampling_is_compared_on_its_support() -> None:
    """Log-probs of an engine that samples from the nucleus give a ratio of 1."""
    learner = build(config().model_copy(update={"rollout": RolloutConfig(top_p=0.9)}))
    one = examples()[0]
    with torch.no_grad():
        logits = sequence_logits(learner.model, one.prompt_ids, one.response_ids)
        logprobs = logits.log_softmax(-1)[range(len(one.response_ids)), list(one.response_ids)]
        sampled = tuple((logprobs - nucleus_log_mass(logits, 0.9)).tolist())
    metrics = learner.update([replace(one, rollout_logprobs=sampled)], DISTILLATION)
    assert metrics["actor/is_ratio_mean"] == pytest.approx(1, abs=1e-4)
    assert metrics["actor/rollout_logprob_gap"] < 1e-4


@pytest.mark.parametrize("kind", ["ema", "live", "trust_region"])
def test_bfloat16_follows_float32(kind: Any) -> None:
    """Also where the teacher runs the student's own weights without gradients, under the same autocast."""
    exact, _ = gradients(build(config()), examples(), DISTILLATION)
    run = config(compute_dtype="bfloat16").model_copy(update={"teacher": TeacherConfig(kind=kind)})
    learner = build(run)
    ours, _ = gradients(learner, examples(), DISTILLATION)
    assert ours.dtype == torch.float32
    assert {p.dtype for p in learner.model.parameters()} == {torch.float32}
    assert torch.nn.functional.cosine_similarity(ours, exact, dim=0) > 0.95


def test_token_level_distillation_learns_something() -> None:
    learner = build(config())
    metrics = learner.update(examples(), Objective(distillation=DistillationConfig(token_level=True)))
    assert metrics["actor/grad_norm"] > 0
    assert metrics["actor/skipped"] == 0


def assert_same(a: Any, b: Any) -> None:
    """Equal to the last bit, through nested dicts and lists."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b
