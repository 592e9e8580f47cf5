import json
import math
import statistics
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resd.objectives.policy_gradient import (
    clipped_token_loss,
    group_advantages,
    rlsd_mixing,
    self_distilled_advantage,
)
from resd.records import ResdError


def test_v9_advantages(shared: Path) -> None:
    case = json.loads((shared / "spec" / "golden.json").read_text())["V9_grpo"]
    rewards = [score for group in case["scores"] for score in group]
    groups = [name for name, group in zip("ab", case["scores"], strict=True) for _ in group]
    for key, by_std in (("std_normalised", True), ("centred", False)):
        expected = [value for group in case[key] for value in group]
        ours = group_advantages(torch.tensor(rewards).double(), groups, normalize_by_std=by_std)
        assert ours.tolist() == pytest.approx(expected, abs=1e-6)
        assert group_advantages([1.0], ["alone"], normalize_by_std=by_std).tolist() == [
            case["singleton_score_1"]
        ]


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize("reward", [0.7, 0.1, 1 / 3])
def test_equal_rewards_say_nothing(reward: float, size: int) -> None:
    assert group_advantages([reward] * size, ["a"] * size, normalize_by_std=True).tolist() == [0.0] * size


def test_v9_clipped_loss(shared: Path) -> None:
    case = json.loads((shared / "spec" / "golden.json").read_text())["V9_grpo"]["ppo"]
    limits = {"clip_low": case["clip_low"], "clip_high": case["clip_high"], "dual_clip": case["dual_clip"]}
    ratio = torch.tensor(case["ratios"]).double()
    loss = clipped_token_loss(
        ratio.log(), torch.zeros(4).double(), torch.tensor(case["advantages"]), **limits
    )
    assert loss.tolist() == pytest.approx(case["losses"])


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(-5, 5)), min_size=1, max_size=20),
    st.booleans(),
)
def test_advantages_equal_the_loops(pairs: list[tuple[int, float]], by_std: bool) -> None:
    groups, rewards = [g for g, _ in pairs], [r for _, r in pairs]
    ours = group_advantages(torch.tensor(rewards, dtype=torch.float64), groups, normalize_by_std=by_std)
    for value, group, reward in zip(ours.tolist(), groups, rewards, strict=True):
        peers = [r for g, r in pairs if g == group]
        expected = reward
        if len(peers) > 1:
            expected = reward - statistics.fmean(peers)
            expected /= statistics.stdev(peers) + 1e-6 if by_std else 1.0
        assert value == pytest.approx(expected, abs=1e-6, rel=1e-6)


def test_on_policy_gradient_is_reinforce() -> None:
    logprob = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    advantage = torch.tensor([1.0, -2.0, 0.0])
    loss = clipped_token_loss(
        logprob, logprob.detach(), advantage, clip_low=0.2, clip_high=0.28, dual_clip=3.0
    )
    assert torch.autograd.grad(loss.sum(), logprob)[0].tolist() == [-1.0, 2.0, 0.0]


def test_clipped_tokens_have_no_gradient() -> None:
    logprob = torch.tensor([1.5, 0.5, 4.0]).log().requires_grad_()
    advantage = torch.tensor([1.0, -1.0, -1.0])
    loss = clipped_token_loss(logprob, torch.zeros(3), advantage, clip_low=0.2, clip_high=0.28, dual_clip=3.0)
    assert torch.autograd.grad(loss.sum(), logprob)[0].tolist() == [0, 0, 0]
    without = clipped_token_loss(logprob, torch.zeros(3), advantage, clip_low=0.2, clip_high=0.28)
    assert without.tolist() == pytest.approx([-1.28, 0.8, 4.0])


def test_groups_must_match() -> None:
    with pytest.raises(ResdError, match="2 rewards but 1 groups"):
        group_advantages([1, 0], ["a"], normalize_by_std=True)


LOGPROBS = st.floats(-30, 0)


def self_distilled(advantage: float, p: float, q: float, mixing: float, max_change: float) -> float:
    """By hand, of one token, from probabilities."""
    likelier = math.exp(q) / math.exp(p)
    factor = 1.0 if advantage == 0 else likelier if advantage > 0 else 1 / likelier
    factor = min(max(factor, 1 - max_change), 1 + max_change)
    return (1 - mixing) * advantage + mixing * factor * advantage


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1.5, -0.7, 1e-3]), LOGPROBS, LOGPROBS), min_size=1, max_size=12),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_self_distilled_advantages_equal_the_loop(
    tokens: list[tuple[float, float, float]], mixing: float, max_change: float
) -> None:
    advantage, p, q = torch.tensor(tokens, dtype=torch.float64).T
    ours = self_distilled_advantage(advantage, p, q, mixing=mixing, max_change=max_change)
    assert ours.tolist() == pytest.approx(
        [self_distilled(*token, mixing, max_change) for token in tokens],
        abs=1e-8,  # a log ratio beyond 20 counts as 20
    )
    assert (ours.sign() * advantage.sign() >= 0).all(), "the teacher never turns a token around"
    assert ((ours - advantage).abs() <= mixing * max_change * advantage.abs() + 1e-12).all()


def test_the_teacher_has_its_say_both_ways() -> None:
    q = torch.tensor([0.11, 0.09, 0.9]).log()
    for sign, expected in ((1.0, [1.05, 0.95, 1.1]), (-1.0, [-1 / 1.1 / 2 - 0.5, -1 / 0.9 / 2 - 0.5, -0.9])):
        ours = self_distilled_advantage(
            torch.full((3,), sign), torch.full((3,), 0.1).log(), q, mixing=0.5, max_change=0.2
        )
        assert ours.tolist() == pytest.approx(expected, rel=1e-6)


def test_self_distilled_advantages_are_detached_finite_and_broadcast() -> None:
    logprob = torch.tensor([-1.0, -900.0, 0.0], requires_grad=True)
    teacher = torch.tensor([-1.0, 0.0, -torch.inf], requires_grad=True)
    ours = self_distilled_advantage(
        torch.tensor([[1.0], [-1.0], [0.0]]), logprob, teacher, mixing=1, max_change=0.2
    )
    assert not ours.requires_grad
    torch.testing.assert_close(ours, torch.tensor([[1, 1.2, 0.8], [-1, -0.8, -1.2], [0, 0, 0]]))


def test_rlsd_mixing_is_linear_and_then_stays() -> None:
    found = [rlsd_mixing(step, 0.5, 0.0, 50) for step in (0, 1, 10, 25, 49, 50, 51, 1000)]
    assert found == pytest.approx([0.5, 0.49, 0.4, 0.25, 0.01, 0, 0, 0])
    assert [rlsd_mixing(step, 0.1, 0.7, 1) for step in (0, 1, 2)] == [0.1, 0.7, 0.7]
    assert rlsd_mixing(3, 0.2, 1.0, 4) == pytest.approx(0.8)
