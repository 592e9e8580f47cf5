"""Problems for the objective: made at random, given to the package, and compared with the reference."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from objectives import reference
from objectives.reference import Outcome, Problem, Side, logits
from resd.objectives.chunked import Projection, Stats
from resd.objectives.divergence import Divergence, sampled_token_loss
from resd.objectives.losses import SampledTokens, distillation_loss, sampled_loss
from resd.objectives.policy_gradient import clipped_token_loss

ALPHAS = (0.0, 0.3, 0.5, 1.0)
LIMITS = ((None, None), (0.2, None), (0.3, 1.5))
SELECTORS = ("student", "teacher", "union")
POLICY: dict[str, Any] = {"clip_low": 0.2, "clip_high": 0.28, "dual_clip": 3.0}


@dataclass(frozen=True)
class Tolerance:
    """What an outcome may differ by.

    The absolute part is in units of the tokens' weights: neither a gradient by the logits nor the terms of a
    divergence, before they cancel, are much above 1.
    """

    relative: float
    absolute: float
    gradient: float  # relative to its norm


# In float32 a log-prob of size 10 is rounded by 5e-7, and the terms of a divergence that cancels by as much.
FLOAT32 = Tolerance(relative=1e-5, absolute=1e-6, gradient=1e-5)
FLOAT64 = Tolerance(relative=1e-10, absolute=1e-14, gradient=1e-10)
# Gradients leave in bfloat16, which rounds each entry by up to 2 ** -8 of it.
BFLOAT16 = replace(FLOAT32, gradient=4e-3)


def supports(topk: int) -> list[dict[str, Any]]:
    """The whole vocabulary, and top-k with and without tail of every selector."""
    chosen = [
        {"topk": topk, "add_tail": tail, "selector": selector}
        for tail in (True, False)
        for selector in SELECTORS
    ]
    return [{"topk": None}, *chosen]


def problem(
    seed: int = 0,
    tokens: int = 5,
    vocabulary: int = 37,
    *,
    width: int = 8,
    noise: float | None = None,
    bias: bool = False,
    mixed: bool = False,
    masked: tuple[int, ...] = (),
    rollout: bool = False,
    temperature: float = 1.0,
    top_p: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Problem:
    """Random numbers of ordinary size.

    With `noise` the teacher is the student's head on its hidden states moved that much; `mixed` teachers are
    a trust region's, 0.3 of the student and 0.7 of another.
    """
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    def side() -> Side:
        offset = normal(vocabulary).to(dtype) if bias else None
        return Side(normal(tokens, width).to(dtype), normal(vocabulary, width).to(dtype) / 2, offset)

    student, teacher = side(), side()
    if noise is not None:
        moved = student.hidden.double() + noise * normal(tokens, width)
        teacher = replace(student, hidden=moved.to(dtype))
    sides = (replace(student, scale=0.3), replace(teacher, scale=0.7)) if mixed else (teacher,)
    precise = torch.promote_types(dtype, torch.float32)
    targets = torch.randint(vocabulary, (tokens,), generator=random)
    weights = torch.rand(tokens, generator=random, dtype=torch.float64).to(precise) + 0.1
    weights[list(masked)] = 0
    made = Problem(student, sides, targets, weights, temperature=temperature, top_p=top_p)
    if not rollout:
        return made
    logprobs = logits([student], temperature).double().log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    return replace(made, rollout=(logprobs + normal(tokens)).to(precise), cap=1.5)


def scenes(dtype: torch.dtype, seed: int = 0, **sizes: Any) -> Iterator[Problem]:
    """Strangers, near twins, and everything at once."""
    sampling: dict[str, Any] = {"rollout": True, "temperature": 0.7, "top_p": 0.9}
    yield problem(seed, **sizes, dtype=dtype)
    yield problem(seed + 1, **sizes, dtype=dtype, noise=1e-2)
    yield problem(seed + 2, **sizes, dtype=dtype, bias=True, mixed=True, masked=(1, 3), **sampling)


def extreme(kind: str, dtype: torch.dtype) -> Problem:
    """Hidden states that are logits: the head is the identity."""
    size = {"one word": 1, "two words": 2}.get(kind, 12)
    student = torch.randn(6, size, generator=torch.Generator().manual_seed(2))
    teacher = {
        "identical": student,
        "certain": 60.0 * torch.nn.functional.one_hot(torch.arange(6) % size, size),
        "opposed": -60 * student.sign(),
    }.get(kind, student.flip(0))
    if kind == "opposed":
        student = 60 * student.sign()
    head = torch.eye(size).to(dtype)
    sides = [Side(hidden.to(dtype), head) for hidden in (student, teacher)]
    return Problem(sides[0], (sides[1],), torch.arange(6) % size, torch.ones(6), torch.zeros(6), 2.0)


def moved(given: Problem, device: str) -> Problem:
    """The same tensors on a device."""

    def side(old: Side) -> Side:
        bias = None if old.bias is None else old.bias.to(device)
        return Side(old.hidden.to(device), old.weight.to(device), bias, old.scale)

    rollout = None if given.rollout is None else given.rollout.to(device)
    return replace(
        given,
        student=side(given.student),
        teacher=tuple(side(old) for old in given.teacher),
        targets=given.targets.to(device),
        weights=given.weights.to(device),
        rollout=rollout,
    )


def tokens_of(given: Problem) -> SampledTokens:
    return SampledTokens(
        given.targets, given.weights, given.rollout, given.cap, given.temperature, given.top_p
    )


def projection(side: Side) -> Projection:
    return Projection(side.hidden, side.weight, side.bias, side.scale)


def distilled(given: Problem, spec: dict[str, Any], **options: Any) -> Outcome:
    """What the package makes of it: see `reference.distillation`."""
    teacher = [projection(side) for side in given.teacher]
    return _run(
        given,
        lambda student: distillation_loss(student, teacher, tokens_of(given), Divergence(**spec), **options),
    )


def token_distilled(given: Problem, low: float | None, high: float | None, **options: Any) -> Outcome:
    """The score-function estimate from sampled tokens."""

    def loss(logprob: Tensor, teacher_logprob: Tensor | None, index: Tensor | slice) -> Tensor:
        assert teacher_logprob is not None
        return sampled_token_loss(logprob, teacher_logprob, min_ratio=low, max_ratio=high)

    teacher = [projection(side) for side in given.teacher]
    return _run(
        given, lambda student: sampled_loss(student, tokens_of(given), loss, teacher=teacher, **options)
    )


def policy(given: Problem, old: Tensor, advantages: Tensor, **options: Any) -> Outcome:
    """The clipped policy gradient, without a teacher."""

    def loss(logprob: Tensor, teacher_logprob: Tensor | None, index: Tensor | slice) -> Tensor:
        assert teacher_logprob is None
        return clipped_token_loss(logprob, old[index], advantages[index], **POLICY)

    return _run(given, lambda student: sampled_loss(student, tokens_of(given), loss, **options))


def token_reference(case: Problem, low: float | None, high: float | None) -> Outcome:
    def loss(logprob: Tensor, teacher: Tensor | None, index: int) -> Tensor:
        assert teacher is not None
        constant = logprob.detach()
        return (constant - reference.clipped(teacher, constant, low, high)) * logprob

    return reference.sampled(reference.exact(case), loss)


def policy_inputs(case: Problem) -> tuple[Tensor, Tensor]:
    """Log-probs before the update, some far off, and advantages of both signs."""
    logprobs = logits([reference.exact(case).student], case.temperature).log_softmax(-1)
    chosen = logprobs.gather(-1, case.targets[:, None])[:, 0]
    shifts, signs = zip(*itertools.islice(itertools.cycle(
        itertools.product([-0.5, 0.03, 0.6, -2.0], [1.0, -0.7])), len(chosen)
    ), strict=True)  # fmt: skip
    precise = case.weights.dtype
    return (chosen + torch.tensor(shifts)).to(precise), torch.tensor(signs, dtype=precise)


def policy_reference(case: Problem, old: Tensor, advantages: Tensor) -> Outcome:
    low, high, cap = 1 - POLICY["clip_low"], 1 + POLICY["clip_high"], POLICY["dual_clip"]

    def loss(logprob: Tensor, teacher: Tensor | None, index: int) -> Tensor:
        advantage, ratio = advantages[index].double(), (logprob - old[index].double()).exp()
        value = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(low, high))
        return value if advantage >= 0 else torch.minimum(value, -cap * advantage)

    return reference.sampled(replace(reference.exact(case), teacher=()), loss)


def check(ours: Outcome, expected: Outcome, given: Problem, tolerance: Tolerance) -> None:
    """The loss, every statistic of every token, and every gradient."""
    units, sizes = _units(given, expected), _sizes(expected)
    for name, value in expected.stats.items():
        unit = {"loss": units * sizes, "token_loss": sizes}.get(name, torch.ones_like(value))
        error = (ours.stats[name].cpu().double() - value).abs()
        allowed = tolerance.relative * value.abs() + tolerance.absolute * unit
        assert (error <= allowed).all(), f"{name}: {ours.stats[name].tolist()} is not {value.tolist()}"
    allowed = tolerance.relative * expected.loss.abs() + tolerance.absolute * (units * sizes).sum()
    assert (ours.loss.cpu().double() - expected.loss).abs() <= allowed, (ours.loss, expected.loss)
    names = "hidden", "weight", "bias"
    scales = _gradient_units(given, units)
    for name, mine, theirs, scale in zip(names, ours.gradients, expected.gradients, scales, strict=True):
        if theirs is None or mine is None:
            assert mine is theirs
            continue
        error = (mine.cpu().double() - theirs).norm()
        allowed = tolerance.gradient * theirs.norm() + tolerance.absolute * scale
        assert error <= allowed, f"{name}: off by {error / theirs.norm():.1e} of {theirs.norm():.1e}"


def agree(ours: Outcome, theirs: Outcome, case: Problem, tolerance: Tolerance) -> None:
    """Two outcomes of the package."""

    def double(x: Tensor | None) -> Any:
        return None if x is None else x.cpu().double()

    stats = {name: double(value) for name, value in theirs.stats.items()}
    gradients = tuple(double(gradient) for gradient in theirs.gradients)
    check(ours, Outcome(double(theirs.loss), stats, gradients), case, tolerance)


def _run(given: Problem, loss: Callable[[Projection], tuple[Tensor, Stats]]) -> Outcome:
    side = given.student
    leaves = [
        None if leaf is None else leaf.detach().clone().requires_grad_()
        for leaf in (side.hidden, side.weight, side.bias)
    ]
    assert leaves[0] is not None
    assert leaves[1] is not None
    total, stats = loss(Projection(leaves[0], leaves[1], leaves[2], side.scale))
    total.backward()  # type: ignore[no-untyped-call]
    return Outcome(total.detach(), stats, tuple(None if leaf is None else leaf.grad for leaf in leaves))


def _units(given: Problem, expected: Outcome) -> Tensor:
    """What each token's loss is multiplied by, `[T]`."""
    return given.weights.cpu().double().abs() * expected.stats["ratio"]


def _sizes(expected: Outcome) -> Tensor:
    """At token level a loss is a log-prob times the difference of two, each rounded by its size, `[T]`."""
    size = expected.stats["logprob"].abs()
    return (1 + size) * (1 + size / 8) if "token_loss" in expected.stats else torch.ones_like(size)


def _gradient_units(given: Problem, units: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Norms of the gradients if each token's gradient by the logits had the norm of its weight."""
    side, scale = given.student, given.student.scale / given.temperature
    hidden, weight = (x.detach().cpu().double().norm(dim=-1) for x in (side.hidden, side.weight))
    return scale * units.norm() * weight.max(), scale * (units * hidden).norm(), scale * units.norm()
