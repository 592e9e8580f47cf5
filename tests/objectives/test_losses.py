"""The losses from hidden states against the float64 reference: every variant, loss, statistics, gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from objectives import reference
from objectives.cases import (
    ALPHAS,
    BFLOAT16,
    FLOAT32,
    FLOAT64,
    LIMITS,
    Tolerance,
    check,
    distilled,
    extreme,
    policy,
    policy_inputs,
    policy_reference,
    problem,
    projection,
    scenes,
    supports,
    token_distilled,
    token_reference,
    tokens_of,
)
from objectives.reference import Outcome, Problem
from resd.objectives import chunked
from resd.objectives.chunked import Projection
from resd.objectives.divergence import Divergence
from resd.objectives.losses import SampledTokens, distillation_loss, sampled_loss, token_statistics
from resd.records import ResdError

PRECISIONS = {
    "float64": (torch.float64, FLOAT64),
    "float32": (torch.float32, FLOAT32),
    "bfloat16": (torch.bfloat16, BFLOAT16),
}
VARIANTS: list[dict[str, Any]] = [
    {"alpha": 0.5},
    {"alpha": 1.0, "topk": 5, "min_ratio": 0.2},
    {"alpha": 0.0, "topk": 5, "selector": "union", "add_tail": False, "max_ratio": 2.0},
]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("support", supports(6), ids=str)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_distillation_equals_the_reference(
    alpha: float, support: dict[str, Any], limits: tuple[float | None, float | None], precision: str
) -> None:
    dtype, tolerance = PRECISIONS[precision]
    spec = {"alpha": alpha, **support, "min_ratio": limits[0], "max_ratio": limits[1]}
    for case in scenes(dtype):
        expected = reference.distillation(reference.exact(case), **spec)
        check(distilled(case, spec, tile_rows=2), expected, case, tolerance)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("limits", LIMITS)
def test_token_level_equals_the_reference(limits: tuple[float | None, float | None], precision: str) -> None:
    dtype, tolerance = PRECISIONS[precision]
    for case in scenes(dtype):
        check(token_distilled(case, *limits, tile_rows=2), token_reference(case, *limits), case, tolerance)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_policy_gradient_equals_the_reference(precision: str) -> None:
    dtype, tolerance = PRECISIONS[precision]
    for case in scenes(dtype, tokens=12):
        old, advantages = policy_inputs(case)
        expected = policy_reference(case, old, advantages)
        assert len(set(expected.stats["token_loss"].sign().tolist())) > 1
        check(policy(case, old, advantages, tile_rows=5), expected, case, tolerance)


@pytest.mark.parametrize("spec", VARIANTS, ids=str)
def test_master_weights_are_rounded_for_the_products_alone(spec: dict[str, Any]) -> None:
    """float32 parameters, bfloat16 products: the numbers of the rounded parameters, gradients in float32."""
    for case in scenes(torch.float32):
        expected = reference.distillation(reference.exact(case, torch.bfloat16), **spec)
        ours = distilled(case, spec, compute_dtype=torch.bfloat16)
        check(ours, expected, case, FLOAT32)
        assert all(gradient is None or gradient.dtype == torch.float32 for gradient in ours.gradients)


@pytest.mark.parametrize("add_tail", [True, False])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_union_may_be_the_whole_vocabulary(alpha: float, add_tail: bool) -> None:
    """Both sides' best make up all ids: the tail is empty, and so nothing."""
    spec: dict[str, Any] = {
        "alpha": alpha,
        "topk": 5,
        "selector": "union",
        "add_tail": add_tail,
        "min_ratio": 0.2,
    }
    head = torch.eye(6)
    student = torch.tensor([[0.0, 0.7, 1.1, 1.9, 2.3, 3.1]])
    sides = (reference.Side(student, head), reference.Side(student.flip(1) * 1.3, head))
    case = Problem(sides[0], sides[1:], torch.tensor([2]), torch.ones(1))
    check(distilled(case, spec), reference.distillation(reference.exact(case), **spec), case, FLOAT32)


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    tokens=st.integers(1, 6),
    vocabulary=st.integers(1, 24),
    tile_rows=st.integers(1, 7),
    masked=st.sets(st.integers(0, 5)),
    alpha=st.sampled_from([0.0, 1.0]) | st.floats(0.05, 0.95),
    topk=st.none() | st.integers(1, 30),
    add_tail=st.booleans(),
    selector=st.sampled_from(["student", "teacher", "union"]),
    low=st.none() | st.floats(0.05, 1.0),
    high=st.none() | st.floats(1.05, 4.0),
    temperature=st.sampled_from([0.6, 1.0, 1.7]),
    top_p=st.sampled_from([1.0, 0.8]),
    bias=st.booleans(),
    mixed=st.booleans(),
    rollout=st.booleans(),
    noise=st.none() | st.just(1e-2),
)
def test_any_distillation_equals_the_reference(
    seed: int,
    tokens: int,
    vocabulary: int,
    tile_rows: int,
    masked: set[int],
    alpha: float,
    topk: int | None,
    add_tail: bool,
    selector: str,
    low: float | None,
    high: float | None,
    **options: Any,
) -> None:
    spec: dict[str, Any] = {"alpha": alpha, "topk": topk, "add_tail": add_tail, "selector": selector}
    spec |= {"min_ratio": low, "max_ratio": high}
    # One token always counts: what a batch without any does has a test of its own.
    zeros = tuple(index for index in masked if 0 < index < tokens)
    for dtype, tolerance in ((torch.float64, FLOAT64), (torch.float32, FLOAT32)):
        case = problem(seed, tokens, vocabulary, masked=zeros, dtype=dtype, **options)
        expected = reference.distillation(reference.exact(case), **spec)
        check(distilled(case, spec, tile_rows=tile_rows), expected, case, tolerance)


@pytest.mark.parametrize("spec", VARIANTS, ids=str)
@pytest.mark.parametrize("count", range(1, 10))
def test_tiles_change_nothing(count: int, spec: dict[str, Any]) -> None:
    case = everything(9)
    same(distilled(case, spec, tile_rows=count), distilled(case, spec))
    same(token_distilled(case, 0.2, None, tile_rows=count), token_distilled(case, 0.2, None))


def test_tiles_in_groups_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles to a product, as on a GPU; the last group and its last tile are shorter."""
    case, spec = everything(11), VARIANTS[1]
    expected = distilled(case, spec)
    monkeypatch.setattr(chunked, "TILES_PER_PRODUCT", {"cpu": 3})
    for count in (1, 2, 3, 4):
        same(distilled(case, spec, tile_rows=count), expected)


@pytest.mark.parametrize("spec", VARIANTS, ids=str)
@pytest.mark.parametrize("first", [0, 1, 4, 9])
def test_a_batch_may_be_split(first: int, spec: dict[str, Any]) -> None:
    case = everything(9)
    expected = distilled(case, spec)
    parts = [distilled(picked(case, rows), spec) for rows in (range(first), range(first, 9))]
    torch.testing.assert_close(parts[0].loss + parts[1].loss, expected.loss)
    hidden, weight, bias = (
        [part.gradients[index] for part in parts if part.gradients[index] is not None] for index in range(3)
    )
    joined = torch.cat([x for x in hidden if x is not None])
    sums = (joined, *(sum(x for x in xs if x is not None) for xs in (weight, bias)))
    torch.testing.assert_close(sums, expected.gradients)
    for name, value in expected.stats.items():
        halves = [part.stats[name] for part in parts if part.stats]
        torch.testing.assert_close(torch.cat(halves), value)


@pytest.mark.parametrize("spec", VARIANTS, ids=str)
def test_the_order_of_tokens_does_not_matter(spec: dict[str, Any]) -> None:
    case = everything(9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1)).tolist()
    expected, ours = distilled(case, spec), distilled(picked(case, order), spec)
    hidden, *shared = expected.gradients
    assert hidden is not None
    permuted = {name: value[order] for name, value in expected.stats.items()}
    same(ours, Outcome(expected.loss, permuted, (hidden[order], *shared)))


@pytest.mark.parametrize("level", ["distribution", "token", "policy"])
def test_tokens_without_weight_are_never_computed(level: str) -> None:
    """NaN in all that belongs to them changes nothing, and what is reported of them is 0."""
    case = everything(9)
    old, advantages = policy_inputs(case)
    spoiled = spoil(case, [1, 4])

    def run(given: Problem) -> Outcome:
        if level == "distribution":
            return distilled(given, VARIANTS[1], tile_rows=3)
        return token_distilled(given, 0.2, None) if level == "token" else policy(given, old, advantages)

    ours = run(spoiled)
    kept = [0, 2, 3, 5, 6, 7, 8]
    expected = run(picked(case, kept)) if level != "policy" else policy(
        picked(case, kept), old[kept], advantages[kept]
    )  # fmt: skip
    hidden, weight, bias = ours.gradients
    assert hidden is not None
    assert not hidden[[1, 4]].any()
    stats = {name: value[kept] for name, value in ours.stats.items()}
    same(Outcome(ours.loss, stats, (hidden[kept], weight, bias)), expected)
    assert not any(value[[1, 4]].any() for value in ours.stats.values())


@pytest.mark.parametrize("level", ["distribution", "token"])
@pytest.mark.parametrize("masked", [False, True])
def test_a_batch_without_tokens_has_a_loss_of_zero(masked: bool, level: str) -> None:
    case = everything(4)
    case = replace(case, weights=torch.zeros(4).double()) if masked else picked(case, [])
    count = len(case.weights)
    ours = distilled(case, VARIANTS[1]) if level == "distribution" else token_distilled(case, None, None)
    assert ours.loss == 0
    for gradient, leaf in zip(ours.gradients, leaves(case), strict=True):
        assert gradient is not None
        assert gradient.shape == leaf.shape
        assert not gradient.any()
    assert {"loss", "logprob", "entropy", "ratio"} <= set(ours.stats)
    assert all(value.shape == (count,) and not value.any() for value in ours.stats.values())


@pytest.mark.parametrize("spec", VARIANTS, ids=str)
@pytest.mark.parametrize("kind", ["identical", "certain", "opposed", "one word", "two words"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extremes_are_finite(dtype: torch.dtype, kind: str, spec: dict[str, Any]) -> None:
    case = extreme(kind, dtype)
    for ours in (distilled(case, spec), token_distilled(case, 0.2, 5.0), token_distilled(case, None, None)):
        found = [ours.loss, *ours.stats.values(), *(x for x in ours.gradients if x is not None)]
        assert all(torch.isfinite(value).all() for value in found)
    if kind in ("identical", "one word"):
        ours = distilled(case, spec)
        assert ours.loss.abs() < 1e-6
        assert all(x is None or x.norm() < 1e-4 for x in ours.gradients)


def test_statistics_alone_equal_the_reference() -> None:
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        case = replace(everything(9, dtype), cap=None)
        expected = reference.distillation(reference.exact(replace(case, weights=case.weights + 1)), alpha=1.0)
        stats = token_statistics([projection(case.student)], tokens_of(case))
        assert set(stats) == {"logprob", "entropy", "log_mass"}
        for name, value in stats.items():
            torch.testing.assert_close(
                value.double(), expected.stats[name], rtol=tolerance, atol=10 * tolerance
            )


def test_statistics_of_no_tokens() -> None:
    case = picked(everything(3), [])
    assert all(value.shape == (0,) for value in token_statistics(
        [projection(case.student)], tokens_of(case)
    ).values())  # fmt: skip


def test_the_teacher_gets_no_gradient() -> None:
    """Not even where it is in part the student's own head, as in a trust region."""
    case = problem(bias=True)
    sides = [replace(projection(case.teacher[0]), scale=0.7)]
    head, hidden = case.student.weight.clone().requires_grad_(), case.student.hidden.clone()
    sides.append(Projection(hidden.requires_grad_(), head, scale=0.3))
    student = Projection(case.student.hidden, head)
    loss, _ = distillation_loss(student, sides, tokens_of(case), Divergence(0.5))
    loss.backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is None
    fixed = tuple(reference.Side(x.hidden.detach(), x.weight.detach(), x.bias, x.scale) for x in sides)
    frozen = replace(case, teacher=fixed, student=replace(case.student, bias=None))
    expected = reference.distillation(reference.exact(frozen), alpha=0.5).gradients[1]
    assert head.grad is not None
    assert expected is not None
    torch.testing.assert_close(head.grad.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("tokens", "vocabulary"), [(4, 11), (2, 11), (3, 12), (3, 10)], ids=["longer", "shorter", "more", "fewer"]
)
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("level", ["distribution", "token", "statistics"])
def test_sides_that_do_not_fit(level: str, mixed: bool, tokens: int, vocabulary: int) -> None:
    """Without the check a longer teacher would be read from its start, and a larger one at the wrong ids."""
    student = Projection(torch.randn(3, 4), torch.randn(11, 4))
    other = Projection(torch.randn(tokens, 4), torch.randn(vocabulary, 4))
    teacher = [replace(student, scale=0.5), other] if mixed else [other]
    sampled = SampledTokens(torch.zeros(3, dtype=torch.int64), torch.ones(3))
    calls: dict[str, Callable[[], Any]] = {
        "distribution": lambda: distillation_loss(student, teacher, sampled, Divergence(1.0, topk=2)),
        "token": lambda: sampled_loss(student, sampled, lambda logprob, *_: logprob, teacher=teacher),
        "statistics": lambda: token_statistics([student, *teacher], sampled),
    }
    with pytest.raises(ResdError, match="score the same tokens"):
        calls[level]()


@pytest.mark.parametrize(
    ("weights", "rollout"), [((1,), (3,)), ((4,), (3,)), ((3, 1), (3,)), ((3,), (1,)), ((3,), (4,))]
)
def test_tokens_need_one_value_each(weights: tuple[int, ...], rollout: tuple[int, ...]) -> None:
    with pytest.raises(ResdError, match="one value for each token"):
        SampledTokens(torch.arange(3), torch.ones(weights), torch.zeros(rollout), is_cap=2.0)


def test_a_cap_needs_something_to_cap() -> None:
    with pytest.raises(ResdError, match="without rollout_logprobs"):
        SampledTokens(torch.arange(3), torch.ones(3), is_cap=2.0)


def test_tokens_are_picked_with_all_that_belongs_to_them() -> None:
    tokens = SampledTokens(torch.arange(4), torch.rand(4), torch.rand(4), 2.0, 0.7, 0.9)
    index = torch.tensor([2, 0])
    some = tokens[index]
    assert some.targets.tolist() == [2, 0]
    assert some.rollout_logprobs is not None
    assert tokens.rollout_logprobs is not None
    assert torch.equal(some.rollout_logprobs, tokens.rollout_logprobs[index])
    assert torch.equal(some.weights, tokens.weights[index])
    assert (some.is_cap, some.temperature, some.top_p) == (2.0, 0.7, 0.9)
    assert tokens[1:3].targets.tolist() == [1, 2]


def everything(tokens: int, dtype: torch.dtype = torch.float64) -> Problem:
    return problem(5, tokens, dtype=dtype, bias=True, mixed=True, rollout=True, temperature=0.7, top_p=0.9)


def leaves(case: Problem) -> tuple[Tensor, Tensor, Tensor]:
    side = case.student
    assert side.bias is not None
    return side.hidden, side.weight, side.bias


def picked(case: Problem, index: Any) -> Problem:
    """The tokens `index` of a batch."""
    rows = torch.tensor(list(index), dtype=torch.int64)
    return replace(
        case,
        student=replace(case.student, hidden=case.student.hidden[rows]),
        teacher=tuple(replace(side, hidden=side.hidden[rows]) for side in case.teacher),
        targets=case.targets[rows],
        weights=case.weights[rows],
        rollout=None if case.rollout is None else case.rollout[rows],
    )


def spoil(case: Problem, index: list[int]) -> Problem:
    """These tokens get weight 0 and NaN everywhere else."""
    case = picked(case, range(len(case.targets)))
    for side in (case.student, *case.teacher):
        side.hidden[index] = torch.nan
    assert case.rollout is not None
    case.rollout[index] = torch.nan
    case.weights[index] = 0
    return case


def same(ours: Outcome, expected: Outcome, tolerance: Tolerance = FLOAT64) -> None:
    """Up to rounding in float64."""
    for mine, theirs in [
        (ours.loss, expected.loss),
        *((ours.stats[name], value) for name, value in expected.stats.items()),
        *zip(ours.gradients, expected.gradients, strict=True),
    ]:
        torch.testing.assert_close(mine, theirs, rtol=tolerance.relative, atol=1e-13)
