import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from objectives import reference
from objectives.cases import FLOAT32, FLOAT64, Tolerance
from resd.objectives.chunked import Projection
from resd.objectives.divergence import (
    Divergence,
    clip_ratio,
    divergence_terms,
    sampled_token_loss,
    token_divergence,
)
from resd.objectives.losses import SampledTokens, distillation_loss, sampled_loss
from resd.objectives.weighting import importance_ratio
from resd.records import ResdError

Golden = dict[str, Any]


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    data: Golden = json.loads((shared / "spec" / "golden.json").read_text())
    return data


def logits(golden: Golden) -> tuple[Tensor, Tensor]:
    student = torch.tensor(golden["inputs"]["student_logits"][0], dtype=torch.float64, requires_grad=True)
    return student, torch.tensor(golden["inputs"]["teacher_logits"][0], dtype=torch.float64)


def agrees(loss: Tensor, student: Tensor, expected: dict[str, Any]) -> None:
    """Per-token values, their mean, and the gradient of the mean."""
    assert loss.tolist() == pytest.approx(expected["per_token"], abs=1e-8)
    assert loss.mean().item() == pytest.approx(expected["token_mean"], abs=1e-8)
    if "grad" in expected:
        (gradient,) = torch.autograd.grad(loss.mean(), student)
        torch.testing.assert_close(
            gradient, torch.tensor(expected["grad"], dtype=torch.float64), atol=1e-8, rtol=0
        )


def both_ways_agree(student: Tensor, teacher: Tensor, expected: dict[str, Any], **spec: Any) -> None:
    """On logits, and from hidden states: logits as hidden states and a head that is the identity."""
    agrees(token_divergence(student, teacher, **spec), student, expected)
    tokens = SampledTokens(torch.zeros(2, dtype=torch.int64), torch.full((2,), 0.5).double())
    total, stats = distillation_loss(
        as_head(student), [as_head(teacher)], tokens, Divergence(**spec), tile_rows=1
    )
    agrees_in_sum(total, stats["divergence"], student, expected)


def agrees_in_sum(total: Tensor, values: Tensor, student: Tensor, expected: dict[str, Any]) -> None:
    """With a weight of 1/2 each, the sum is the mean."""
    assert values.tolist() == pytest.approx(expected["per_token"], abs=1e-8)
    assert total.item() == pytest.approx(expected["token_mean"], abs=1e-8)
    if "grad" in expected:
        (gradient,) = torch.autograd.grad(total, student)
        torch.testing.assert_close(
            gradient, torch.tensor(expected["grad"], dtype=torch.float64), atol=1e-8, rtol=0
        )


def as_head(values: Tensor) -> Projection:
    return Projection(values, torch.eye(values.shape[-1], dtype=values.dtype))


def chosen(values: Tensor, labels: Tensor) -> Tensor:
    """Log-probs of the labels."""
    return values.log_softmax(-1).gather(-1, labels[:, None])[:, 0]


@pytest.mark.parametrize("alpha", ["0.0", "0.25", "0.5", "1.0"])
@pytest.mark.parametrize("topk", [None, 4, 7])
def test_v1_full_vocabulary(golden: Golden, alpha: str, topk: int | None) -> None:
    student, teacher = logits(golden)
    expected = golden["V1_full_vocabulary_by_alpha"][alpha]
    both_ways_agree(student, teacher, expected, alpha=float(alpha), topk=topk)


@pytest.mark.parametrize("key", ["0.0", "0.5", "1.0", "0.0_renorm", "0.5_renorm", "1.0_renorm"])
def test_v2_top_two_of_the_student(golden: Golden, key: str) -> None:
    student, teacher = logits(golden)
    alpha, _, renormalised = key.partition("_")
    expected = golden["V2_top2_of_student_with_tail_by_alpha"][key]
    both_ways_agree(student, teacher, expected, alpha=float(alpha), topk=2, add_tail=not renormalised)


@pytest.mark.parametrize(
    ("key", "alpha", "high"),
    [
        ("a1.0_min0.2_maxNone", 1.0, None),
        ("a1.0_min0.2_max2.0", 1.0, 2.0),
        ("a0.5_min0.2_maxNone", 0.5, None),
        ("a0.0_min0.2_max2.0", 0.0, 2.0),
    ],
)
def test_v3_ratio_clip(golden: Golden, key: str, alpha: float, high: float | None) -> None:
    student, teacher = logits(golden)
    expected = golden["V3_ratio_clip"][key]
    both_ways_agree(student, teacher, expected, alpha=alpha, topk=2, min_ratio=0.2, max_ratio=high)


def test_v4_token_level(golden: Golden) -> None:
    student, teacher = logits(golden)
    labels = torch.tensor(golden["inputs"]["labels"][0])
    expected = golden["V4_token_level"]
    agrees(sampled_token_loss(chosen(student, labels), chosen(teacher, labels)), student, expected)
    clipped = sampled_token_loss(chosen(student, labels), chosen(teacher, labels), min_ratio=0.2)
    assert clipped.tolist() == pytest.approx([-0.44018970, -0.93678769], abs=1e-8)

    def loss(logprob: Tensor, teacher_logprob: Tensor | None, index: Tensor | slice) -> Tensor:
        assert teacher_logprob is not None
        return sampled_token_loss(logprob, teacher_logprob)

    tokens = SampledTokens(labels, torch.full((2,), 0.5).double())
    total, stats = sampled_loss(as_head(student), tokens, loss, teacher=[as_head(teacher)], tile_rows=1)
    agrees_in_sum(total, stats["token_loss"], student, expected)
    assert stats["logprob"].tolist() == pytest.approx([-0.44018970, -0.58205892], abs=1e-8)
    assert stats["teacher_logprob"].tolist() == pytest.approx([-1.44018970, -3.11144278], abs=1e-8)


def test_v5_importance_ratio_on_the_divergence(golden: Golden) -> None:
    student, teacher = logits(golden)
    labels = torch.tensor(golden["inputs"]["labels"][0])
    old = torch.tensor([0.2, 0.5], dtype=torch.float64).log()
    ratio = importance_ratio(chosen(student, labels), old, cap=2.0)
    expected = golden["V5_is_clip"]
    assert ratio.tolist() == pytest.approx(expected["ratios"], abs=1e-8)
    agrees(token_divergence(student, teacher, alpha=1.0) * ratio, student, expected)
    tokens = SampledTokens(labels, torch.full((2,), 0.5).double(), old, is_cap=2.0)
    total, stats = distillation_loss(as_head(student), [as_head(teacher)], tokens, Divergence(1.0))
    agrees_in_sum(total, 2 * stats["loss"], student, expected)
    assert stats["ratio"].tolist() == pytest.approx(expected["ratios"], abs=1e-8)


def test_v3_ratios_before_the_clip(golden: Golden) -> None:
    """Of the student's two likeliest ids and the tail; which are below 0.2 says how much is clipped."""
    student, teacher = logits(golden)
    expected = torch.tensor(golden["V3_tau_top2_then_tail"], dtype=torch.float64)
    likeliest = torch.tensor([[True, True, False, False], [True, False, False, True]])
    p, q = (
        torch.stack([reference.buckets(row, ids, True) for row, ids in zip(side, likeliest, strict=True)])
        for side in (student.detach().log_softmax(-1), teacher.log_softmax(-1))
    )
    expected[1] = expected[1, [1, 0, 2]]  # by id, where the golden numbers go by the student's probability
    bounded = clip_ratio(q, p, 0.2, 2.0)
    torch.testing.assert_close((bounded - p).exp(), expected.clamp(0.2, 2.0), rtol=0, atol=1e-8)
    tokens = SampledTokens(torch.zeros(2, dtype=torch.int64), torch.ones(2).double())
    spec = Divergence(1.0, topk=2, min_ratio=0.2)
    _, stats = distillation_loss(as_head(student), [as_head(teacher)], tokens, spec)
    assert stats["clipped"].tolist() == pytest.approx([0, p[1, 1].exp().item()], abs=1e-8)
    assert stats["outside"].tolist() == pytest.approx(p[:, 2].exp().tolist(), abs=1e-8)


ratios = st.sampled_from([(None, None), (0.2, None), (None, 3.0), (None, 0.7), (0.5, 1.5), (1.0, 1.0)])


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    tokens=st.integers(1, 4),
    vocabulary=st.integers(1, 12),
    alpha=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    topk=st.none() | st.integers(1, 13),
    add_tail=st.booleans(),
    selector=st.sampled_from(["student", "teacher", "union"]),
    limits=ratios,
)
def test_equals_the_reference(
    seed: int,
    tokens: int,
    vocabulary: int,
    alpha: float,
    topk: int | None,
    add_tail: bool,
    selector: Any,
    limits: tuple[float | None, float | None],
) -> None:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (
        torch.randn(tokens, vocabulary, generator=generator, dtype=torch.float64) * 2 for _ in range(2)
    )
    spec: dict[str, Any] = {"alpha": alpha, "topk": topk, "add_tail": add_tail, "selector": selector}
    spec |= {"min_ratio": limits[0], "max_ratio": limits[1]}
    equals(student, teacher, spec, FLOAT64)
    equals(student.float(), teacher.float(), spec, FLOAT32)
    half = token_divergence(student.bfloat16(), teacher.bfloat16(), **spec)
    rounded = token_divergence(student.bfloat16().float(), teacher.bfloat16().float(), **spec)
    assert half.dtype == torch.float32
    assert torch.equal(half, rounded)
    stacked = token_divergence(student[None, :, None], teacher[None, :, None], **spec)
    torch.testing.assert_close(stacked[0, :, 0], token_divergence(student, teacher, **spec))


def equals(student: Tensor, teacher: Tensor, spec: dict[str, Any], tolerance: Tolerance) -> None:
    """Each token's loss and its gradient by the logits, each with a factor from above of its own."""
    identity, count = torch.eye(student.shape[-1], dtype=torch.float64), len(student)
    factors = torch.arange(1.0, count + 1, dtype=torch.float64)
    case = reference.Problem(
        reference.Side(student.double(), identity), (reference.Side(teacher.double(), identity),),
        torch.zeros(count, dtype=torch.int64), factors,
    )  # fmt: skip
    expected = reference.distillation(reference.exact(case), **spec)
    leaf = student.clone().requires_grad_()
    loss = token_divergence(leaf, teacher, **spec)
    (gradient,) = torch.autograd.grad((loss * factors.to(loss.dtype)).sum(), leaf)
    torch.testing.assert_close(
        loss.double(), expected.stats["divergence"], rtol=tolerance.relative, atol=tolerance.absolute
    )
    assert expected.gradients[0] is not None
    error = (gradient.double() - expected.gradients[0]).norm()
    assert error <= tolerance.gradient * expected.gradients[0].norm() + tolerance.absolute * factors.norm()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("limits", [(None, None), (0.5, 1.5)])
def test_terms_have_the_derivative_that_autograd_finds(
    alpha: float, limits: tuple[float | None, float | None]
) -> None:
    """Up to a multiple of p, which the gradient by the logits does not depend on."""
    torch.manual_seed(0)
    values = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    log_p, log_q = values.log_softmax(-1), torch.randn(3, 7).double().log_softmax(-1)
    bounded = clip_ratio(log_q, log_p, *limits)
    terms, slope = divergence_terms(log_p.detach(), bounded, alpha)
    losses = [reference.divergence(p, q, alpha) for p, q in zip(log_p, bounded, strict=True)]
    torch.testing.assert_close(terms.sum(-1), torch.stack(losses).detach())
    (expected,) = torch.autograd.grad(torch.stack(losses).sum(), values)
    torch.testing.assert_close(slope - log_p.exp() * slope.sum(-1, keepdim=True), expected)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    "options", [{}, {"topk": 3}, {"topk": 3, "selector": "union"}, {"topk": 2, "add_tail": False}]
)
def test_gradient_equals_finite_differences(alpha: float, options: dict[str, Any]) -> None:
    """Without active clips, whose bound is detached on purpose."""
    torch.manual_seed(3)
    student, teacher = (
        torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True),
        torch.randn(2, 3, 8).double(),
    )
    assert torch.autograd.gradcheck(
        lambda s: token_divergence(s, teacher, alpha=alpha, **options), (student,)
    )


def test_reverse_kl_with_clip_has_the_gradient_of_the_clipped_objective() -> None:
    """alpha 1: d/dtheta sum p (log p - log q~) with q~ detached, by hand."""
    torch.manual_seed(0)
    student = torch.randn(1, 6, dtype=torch.float64, requires_grad=True)
    teacher = 3 * torch.randn(1, 6, dtype=torch.float64)
    loss = token_divergence(student, teacher, alpha=1.0, min_ratio=0.5, max_ratio=2.0)
    p = student.detach().softmax(-1)
    clipped = torch.minimum(torch.maximum(teacher.softmax(-1), 0.5 * p), 2.0 * p)
    advantage = p.log() - clipped.log()
    expected = p * (advantage - (p * advantage).sum(-1, keepdim=True))
    torch.testing.assert_close(torch.autograd.grad(loss.sum(), student)[0], expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("topk", [None, 1, 5, 63])
@pytest.mark.parametrize("selector", ["student", "teacher", "union"])
@pytest.mark.parametrize("limits", [(None, None), (0.2, 5.0)])
def test_extremes_are_finite(
    dtype: torch.dtype, alpha: float, topk: int | None, selector: Any, limits: Any
) -> None:
    torch.manual_seed(1)
    random = torch.randn(64)
    one_hot, other = torch.full((64,), -60.0), torch.full((64,), -60.0)
    one_hot[3], other[7] = 60.0, 60.0
    rows = [random, one_hot, other, torch.zeros(64), 60 * random.sign()]
    pairs = [(a, b) for a in rows for b in rows]
    student = torch.stack([a for a, _ in pairs]).to(dtype).requires_grad_()
    teacher = torch.stack([b for _, b in pairs]).to(dtype)
    for add_tail in (True, False):
        loss = token_divergence(
            student,
            teacher,
            alpha=alpha,
            topk=topk,
            add_tail=add_tail,
            selector=selector,
            min_ratio=limits[0],
            max_ratio=limits[1],
        )
        assert torch.isfinite(loss).all()
        assert torch.isfinite(torch.autograd.grad(loss.sum(), student)[0]).all()
        same = token_divergence(
            student, student, alpha=alpha, topk=topk, add_tail=add_tail, selector=selector
        )
        assert same.abs().max() < 1e-5


def test_union_counts_shared_ids_once() -> None:
    """The supports {5, 2, 9} and {2, 9, 7}: two shared ids, four in the union."""
    student, teacher = torch.zeros(1, 12).double(), torch.zeros(1, 12).double()
    student[0, [5, 2, 9]] = torch.tensor([5.0, 4.0, 3.0]).double()
    teacher[0, [2, 9, 7]] = torch.tensor([5.0, 4.0, 3.0]).double()
    p, q = student.softmax(-1)[0], teacher.softmax(-1)[0]
    ids = torch.tensor([2, 5, 7, 9])
    p, q = (torch.cat([x[ids], 1 - x[ids].sum(0, keepdim=True)]) for x in (p, q))
    loss = token_divergence(student, teacher, alpha=1.0, topk=3, selector="union")
    torch.testing.assert_close(loss[0], (p * (p / q).log()).sum())


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = torch.randn(2, 5, requires_grad=True), torch.randn(2, 5, requires_grad=True)
    for topk in (None, 2):
        token_divergence(student, teacher, alpha=0.5, topk=topk, selector="union").sum().backward()  # type: ignore[no-untyped-call]
    assert teacher.grad is None
    assert student.grad is not None


@pytest.mark.parametrize("vocabulary", [5, 10_000])
@pytest.mark.parametrize("topk", [None, 2])
def test_no_tokens(topk: int | None, vocabulary: int) -> None:
    empty = torch.zeros(0, vocabulary)
    assert token_divergence(empty, empty, alpha=1.0, topk=topk).shape == (0,)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("topk", [None, 1, 3, 5])
@pytest.mark.parametrize("selector", ["student", "teacher", "union"])
@pytest.mark.parametrize("add_tail", [True, False])
def test_forbidden_ids_are_worth_nothing(
    alpha: float, topk: int | None, selector: Any, add_tail: bool
) -> None:
    """Both sides rule out the same ids with the lowest number there is: as if these ids were not there."""
    torch.manual_seed(4)
    student, teacher = torch.randn(3, 6), torch.randn(3, 6)
    low = torch.full((3, 2), torch.finfo(torch.float32).min)
    options: dict[str, Any] = {"alpha": alpha, "selector": selector, "add_tail": add_tail}
    leaf = torch.cat([student, low], dim=-1).requires_grad_()
    loss = token_divergence(leaf, torch.cat([teacher, low], dim=-1), topk=topk, **options)
    shorter = student.clone().requires_grad_()
    expected = token_divergence(shorter, teacher, topk=topk, **options)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    assert (gradient[:, 6:].abs() < 1e-20).all()
    torch.testing.assert_close(gradient[:, :6], torch.autograd.grad(expected.sum(), shorter)[0])


@pytest.mark.parametrize(
    ("topk", "selector"), [(None, "student"), (1, "student"), (1, "union"), (7, "teacher"), (7, "union")]
)
@pytest.mark.parametrize("limits", [(0.2, None), (0.2, 5.0)])
def test_a_clipped_ratio_bounds_ids_that_only_the_student_has(
    topk: int | None, selector: Any, limits: Any
) -> None:
    """Where the teacher forbids what the student is sure of, the loss is log 5 and finite all over."""
    student, teacher = torch.zeros(1, 8), torch.zeros(1, 8)
    student[0, 1:], teacher[0, 0] = torch.finfo(torch.float32).min, torch.finfo(torch.float32).min
    student.requires_grad_()
    loss = token_divergence(
        student, teacher, alpha=1.0, topk=topk, selector=selector, min_ratio=limits[0], max_ratio=limits[1]
    )
    torch.testing.assert_close(loss, torch.tensor([5.0]).log())
    assert torch.isfinite(torch.autograd.grad(loss.sum(), student)[0]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"topk": 0}, "topk is 0"),
        ({"min_ratio": 0.0}, "ratio limits"),
        ({"min_ratio": 0.5, "max_ratio": 0.2}, "ratio limits"),
        ({"teacher_logits": torch.zeros(2, 6)}, "same vocabulary"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "student_logits": torch.zeros(2, 5),
        "teacher_logits": torch.zeros(2, 5),
        "alpha": 1.0,
    } | change
    with pytest.raises(ResdError, match=message):
        token_divergence(**arguments)
