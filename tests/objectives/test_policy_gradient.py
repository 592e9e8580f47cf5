import json
import statistics
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resd.objectives.policy_gradient import clipped_token_loss, group_advantages
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
