import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from resd.objectives.divergence import entropy, sampled_token_loss, token_divergence, token_logprobs
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


@pytest.mark.parametrize("alpha", ["0.0", "0.25", "0.5", "1.0"])
@pytest.mark.parametrize("topk", [None, 4, 7])
def test_v1_full_vocabulary(golden: Golden, alpha: str, topk: int | None) -> None:
    student, teacher = logits(golden)
    loss = token_divergence(student, teacher, alpha=float(alpha), topk=topk)
    agrees(loss, student, golden["V1_full_vocabulary_by_alpha"][alpha])


@pytest.mark.parametrize("key", ["0.0", "0.5", "1.0", "0.0_renorm", "0.5_renorm", "1.0_renorm"])
def test_v2_top_two_of_the_student(golden: Golden, key: str) -> None:
    student, teacher = logits(golden)
    alpha, _, renormalised = key.partition("_")
    loss = token_divergence(student, teacher, alpha=float(alpha), topk=2, add_tail=not renormalised)
    agrees(loss, student, golden["V2_top2_of_student_with_tail_by_alpha"][key])


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
    loss = token_divergence(student, teacher, alpha=alpha, topk=2, min_ratio=0.2, max_ratio=high)
    agrees(loss, student, golden["V3_ratio_clip"][key])


def test_v4_token_level(golden: Golden) -> None:
    student, teacher = logits(golden)
    labels = torch.tensor(golden["inputs"]["labels"][0])
    student_logprob, teacher_logprob = token_logprobs(student, labels), token_logprobs(teacher, labels)
    agrees(sampled_token_loss(student_logprob, teacher_logprob), student, golden["V4_token_level"])
    clipped = sampled_token_loss(student_logprob, teacher_logprob, min_ratio=0.2)
    assert clipped.tolist() == pytest.approx([-0.44018970, -0.93678769], abs=1e-8)


def test_v5_importance_ratio_on_the_divergence(golden: Golden) -> None:
    student, teacher = logits(golden)
    old = torch.tensor([0.2, 0.5], dtype=torch.float64).log()
    ratio = importance_ratio(
        token_logprobs(student, torch.tensor(golden["inputs"]["labels"][0])), old, cap=2.0
    )
    expected = golden["V5_is_clip"]
    assert ratio.tolist() == pytest.approx(expected["ratios"], abs=1e-8)
    agrees(token_divergence(student, teacher, alpha=1.0) * ratio, student, expected)


def naive(
    student: list[float],
    teacher: list[float],
    *,
    alpha: float,
    topk: int | None,
    add_tail: bool,
    selector: str,
    low: float | None,
    high: float | None,
) -> float:
    """The definition, in Python floats and loops over one token."""
    p, q = softmax(student), softmax(teacher)
    ids = support(p, q, topk, selector)
    ps, qs = [p[i] for i in ids], [q[i] for i in ids]
    if len(ids) < len(p) or (topk is not None and topk < len(p)):
        if add_tail:
            ps, qs = [*ps, max(1 - sum(ps), 1e-7)], [*qs, max(1 - sum(qs), 1e-7)]
        else:
            ps, qs = [x / sum(ps) for x in ps], [x / sum(qs) for x in qs]
    total = 0.0
    for a, b in zip(ps, qs, strict=True):
        b = max(b, a * low) if low is not None else b
        b = min(b, a * high) if high is not None else b
        if alpha == 0:
            total += b * math.log(b / a)
        elif alpha == 1:
            total += a * math.log(a / b)
        else:
            m = (1 - alpha) * a + alpha * b
            total += (1 - alpha) * a * math.log(a / m) + alpha * b * math.log(b / m)
    return total


def softmax(row: list[float]) -> list[float]:
    exponentials = [math.exp(x - max(row)) for x in row]
    return [x / sum(exponentials) for x in exponentials]


def support(p: list[float], q: list[float], topk: int | None, selector: str) -> list[int]:
    if topk is None or topk >= len(p):
        return list(range(len(p)))
    best = [sorted(range(len(p)), key=lambda i: -side[i])[:topk] for side in (p, q)]
    chosen = {"student": best[0], "teacher": best[1], "union": [*best[0], *best[1]]}[selector]
    return sorted(set(chosen))


ratios = st.sampled_from([(None, None), (0.2, None), (None, 3.0), (None, 0.7), (0.5, 1.5), (1.0, 1.0)])


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    tokens=st.integers(1, 4),
    vocabulary=st.integers(2, 12),
    alpha=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    topk=st.none() | st.integers(1, 13),
    add_tail=st.booleans(),
    selector=st.sampled_from(["student", "teacher", "union"]),
    limits=ratios,
)
def test_equals_the_naive_loops(
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
    low, high = limits
    options: dict[str, Any] = {"alpha": alpha, "topk": topk, "add_tail": add_tail, "selector": selector}
    ours = token_divergence(student, teacher, min_ratio=low, max_ratio=high, **options)
    expected = [
        naive(s, t, low=low, high=high, **options)
        for s, t in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    assert ours.tolist() == pytest.approx(expected, abs=1e-6)
    half = token_divergence(student.bfloat16(), teacher.bfloat16(), min_ratio=low, max_ratio=high, **options)
    assert half.dtype == torch.float32
    stacked = token_divergence(student[None, :, None], teacher[None, :, None], alpha=alpha)
    torch.testing.assert_close(stacked[0, :, 0], token_divergence(student, teacher, alpha=alpha))


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


def test_no_tokens() -> None:
    assert token_divergence(torch.zeros(0, 5), torch.zeros(0, 5), alpha=1.0, topk=2).shape == (0,)


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
    arguments = {
        "student_logits": torch.zeros(2, 5),
        "teacher_logits": torch.zeros(2, 5),
        "alpha": 1.0,
    } | change
    with pytest.raises(ResdError, match=message):
        token_divergence(**arguments)


def test_logprobs_and_entropy() -> None:
    values = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]], dtype=torch.bfloat16).double()
    torch.testing.assert_close(
        token_logprobs(values, torch.tensor([1, 0])), values.log_softmax(-1)[[0, 1], [1, 0]]
    )
    assert entropy(values)[1].item() == pytest.approx(math.log(2))
