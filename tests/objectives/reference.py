"""The objective as it is defined, in float64: whole logits, one token at a time, gradients by autograd.

Written from the formulas alone and shares no code with the package. Nothing is done for speed or for numbers
at the edge: it is for small inputs of ordinary size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Values = dict[str, Tensor]


@dataclass(frozen=True)
class Side:
    """Logits `scale * (hidden @ weight.T + bias)`."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0


@dataclass(frozen=True)
class Problem:
    """A batch of T tokens and how they were sampled. The importance ratio needs both `rollout` and `cap`."""

    student: Side
    teacher: tuple[Side, ...]
    targets: Tensor
    weights: Tensor
    rollout: Tensor | None = None
    cap: float | None = None
    temperature: float = 1.0
    top_p: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """The loss, what is reported of each token, and the gradients by hidden states, weight and bias."""

    loss: Tensor
    stats: Values
    gradients: tuple[Tensor | None, ...]


def distillation(
    problem: Problem,
    *,
    alpha: float,
    topk: int | None = None,
    add_tail: bool = True,
    selector: str = "student",
    min_ratio: float | None = None,
    max_ratio: float | None = None,
) -> Outcome:
    """The divergence of each token, weighted and summed."""

    def token(log_p: Tensor, log_q: Tensor, target: int, index: int) -> Values:
        chosen = support(log_p.detach(), log_q, topk, selector)
        p_log, q_log = (buckets(side, chosen, add_tail) for side in (log_p, log_q))
        bounded = clipped(q_log, p_log.detach(), min_ratio, max_ratio)
        return {
            "divergence": divergence(p_log, bounded, alpha),
            "clipped": p_log.exp()[(bounded - q_log).abs() > 1e-12].sum(),
            "outside": log_p.exp()[~chosen].sum(),
            "teacher_logprob": log_q[target],
            "teacher_entropy": entropy(log_q),
        }

    return _outcome(problem, token, "divergence")


def sampled(problem: Problem, loss: Callable[[Tensor, Tensor | None, int], Tensor]) -> Outcome:
    """A loss on the sampled tokens' log-probs: `loss(student's, teacher's or None, which token)`."""

    def token(log_p: Tensor, log_q: Tensor | None, target: int, index: int) -> Values:
        teacher = None if log_q is None else log_q[target]
        values = {"token_loss": loss(log_p[target], teacher, index)}
        if log_q is not None:
            values |= {"teacher_logprob": log_q[target], "teacher_entropy": entropy(log_q)}
        return values

    return _outcome(problem, token, "token_loss")


def support(log_p: Tensor, log_q: Tensor, topk: int | None, selector: str) -> Tensor:
    """Which ids are compared one by one, `[V]`."""
    chosen = torch.zeros(len(log_p), dtype=torch.bool)
    if topk is None or topk >= len(log_p):
        return ~chosen
    for side, logprobs in (("student", log_p), ("teacher", log_q)):
        if selector in (side, "union"):
            chosen[logprobs.topk(topk).indices] = True
    return chosen


def buckets(logprobs: Tensor, chosen: Tensor, add_tail: bool) -> Tensor:
    """Log-probs that sum to 1: of the chosen ids and of the rest, or of the chosen among themselves."""
    inside, others = logprobs[chosen], logprobs[~chosen]
    if not add_tail:
        return inside.log_softmax(0)
    return torch.cat([inside, others.logsumexp(0, keepdim=True)]) if len(others) else inside


def clipped(log_q: Tensor, log_p: Tensor, low: float | None, high: float | None) -> Tensor:
    """q kept within `[low p, high p]`."""
    if low is not None:
        log_q = torch.maximum(log_q, log_p + math.log(low))
    if high is not None:
        log_q = torch.minimum(log_q, log_p + math.log(high))
    return log_q


def divergence(log_p: Tensor, log_q: Tensor, alpha: float) -> Tensor:
    p, q = log_p.exp(), log_q.exp()
    if alpha == 0:
        return (q * (log_q - log_p)).sum()
    if alpha == 1:
        return (p * (log_p - log_q)).sum()
    log_m = ((1 - alpha) * p + alpha * q).log()
    return ((1 - alpha) * p * (log_p - log_m)).sum() + (alpha * q * (log_q - log_m)).sum()


def entropy(logprobs: Tensor) -> Tensor:
    return -(logprobs.exp() * logprobs).sum()


def nucleus_mass(logprobs: Tensor, top_p: float) -> float:
    """What is kept: from the likeliest id down, as long as the ids before have less than `top_p` together."""
    kept = 0.0
    for probability in sorted(logprobs.exp().tolist(), reverse=True):
        if kept >= top_p:
            break
        kept += probability
    return kept if top_p < 1 else 1.0


def importance(logprob: Tensor, problem: Problem, index: int) -> Tensor:
    if problem.rollout is None or problem.cap is None:
        return torch.ones_like(logprob)
    return (logprob - problem.rollout[index]).clamp(-20, 20).exp().clamp(max=problem.cap)


def logits(sides: Sequence[Side], temperature: float) -> Tensor:
    products = [side.scale * (side.hidden @ side.weight.T) for side in sides]
    offsets = [side.scale * side.bias for side in sides if side.bias is not None]
    return torch.stack(products).sum(0) / temperature + sum(offsets) / temperature


def exact(problem: Problem, dtype: torch.dtype | None = None) -> Problem:
    """The same numbers in float64 on the CPU, matrices rounded to `dtype` before."""

    def matrix(values: Tensor) -> Tensor:
        return values.detach().to(dtype or values.dtype).cpu().double()

    def side(given: Side) -> Side:
        bias = None if given.bias is None else given.bias.detach().cpu().double()
        return Side(matrix(given.hidden), matrix(given.weight), bias, given.scale)

    rollout = None if problem.rollout is None else problem.rollout.cpu().double()
    return Problem(
        side(problem.student), tuple(side(given) for given in problem.teacher), problem.targets.cpu(),
        problem.weights.cpu().double(), rollout, problem.cap, problem.temperature, problem.top_p,
    )  # fmt: skip


def _outcome(problem: Problem, token: Callable[..., Values], name: str) -> Outcome:
    """Weighted sums over the tokens of what `token` calls `name`."""
    student = problem.student
    leaves = [x if x is None else x.requires_grad_() for x in (student.hidden, student.weight, student.bias)]
    ours = logits([student], problem.temperature).log_softmax(-1)
    theirs = (
        logits(problem.teacher, problem.temperature).log_softmax(-1).detach() if problem.teacher else None
    )
    rows: list[Values] = []
    for index, (target, weight) in enumerate(zip(problem.targets.tolist(), problem.weights, strict=True)):
        log_p = ours[index]
        log_mass = log_p.new_tensor(math.log(nucleus_mass(log_p.detach(), problem.top_p)))
        values = token(log_p, None if theirs is None else theirs[index], target, index)
        ratio = importance(log_p[target].detach() - log_mass, problem, index)
        values |= {
            "loss": weight * ratio * values[name],
            "logprob": log_p[target],
            "entropy": entropy(log_p),
            "ratio": ratio,
            "log_mass": log_mass,
        }
        rows.append(values if weight != 0 else {key: 0 * value for key, value in values.items()})
    stats = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
    loss = stats["loss"].sum()
    given: Any = [leaf for leaf in leaves if leaf is not None]
    gradients = iter(torch.autograd.grad(loss, given))
    found = tuple(None if leaf is None else next(gradients) for leaf in leaves)
    return Outcome(loss.detach(), {key: value.detach() for key, value in stats.items()}, found)
