import copy
from typing import Any

import pytest
import torch
from torch import nn

from resd.config import OptimizerConfig
from resd.learner.optimizer import Optimizer, rate_factor

CONFIG = OptimizerConfig(learning_rate=0.1, warmup_updates=4, weight_decay=0.01, grad_clip=1.0)


def test_warm_up_starts_above_zero() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer, rates = Optimizer([weight], CONFIG, total_steps=50), []
    for _ in range(6):
        weight.grad = torch.ones(3)
        rates.append(optimizer.step().learning_rate)
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    without = OptimizerConfig(learning_rate=0.1, warmup_updates=0)
    assert Optimizer([weight], without, total_steps=50).learning_rate() == 0.1


def test_steps_equal_the_formula_of_adamw() -> None:
    """Decoupled weight decay, bias correction and the norm clip in float64."""
    weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer, (b1, b2) = Optimizer([weight], CONFIG, total_steps=50), CONFIG.betas
    x, m, v = weight.detach().clone(), torch.zeros(2).double(), torch.zeros(2).double()
    for t in range(1, 6):
        gradient = torch.tensor([3.0, -4.0 / t], dtype=torch.float64)
        weight.grad = gradient.clone()
        result = optimizer.step()
        assert result.grad_norm == pytest.approx(gradient.norm().item())
        gradient = gradient * min(1.0, 1.0 / (gradient.norm().item() + 1e-6))
        m, v = b1 * m + (1 - b1) * gradient, b2 * v + (1 - b2) * gradient**2
        x = x * (1 - result.learning_rate * CONFIG.weight_decay)
        x = x - result.learning_rate * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + 1e-8)
        torch.testing.assert_close(weight.detach(), x)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float) -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = Optimizer([weight], CONFIG, total_steps=50)
    weight.grad = torch.ones(2)
    optimizer.step()
    before, state = weight.detach().clone(), copy.deepcopy(optimizer.state_dict())
    weight.grad = torch.tensor([1.0, bad])
    assert not optimizer.step().taken
    assert torch.equal(weight, before)
    assert str(optimizer.state_dict()) == str(state)
    assert weight.grad is None


@pytest.mark.parametrize(
    ("schedule", "final_ratio", "factors"),
    [
        ("constant", 0.0, [0.5, 1, 1, 1, 1, 1, 1]),
        ("linear", 0.0, [0.5, 1, 1, 0.75, 0.5, 0.25, 0]),
        ("linear", 0.2, [0.5, 1, 1, 0.8, 0.6, 0.4, 0.2]),
        # cos(pi / 4) is 0.70710678
        ("cosine", 0.0, [0.5, 1, 1, 0.85355339, 0.5, 0.14644661, 0]),
        ("cosine", 0.5, [0.5, 1, 1, 0.92677670, 0.75, 0.57322330, 0.5]),
    ],
)
def test_schedules_after_a_warm_up_of_two_over_six_steps(
    schedule: Any, final_ratio: float, factors: list[float]
) -> None:
    config = OptimizerConfig(warmup_updates=2, schedule=schedule, final_ratio=final_ratio)
    assert [rate_factor(step, 6, config) for step in range(7)] == pytest.approx(factors)
    assert rate_factor(60, 6, config) == pytest.approx(factors[-1])


def test_a_schedule_without_room() -> None:
    config = OptimizerConfig(warmup_updates=4, schedule="linear")
    assert [rate_factor(step, 3, config) for step in range(3)] == [0.25, 0.5, 0.75]
    assert rate_factor(0, 0, OptimizerConfig(warmup_updates=0, schedule="cosine")) == 1.0


def test_a_resumed_schedule_goes_on_and_follows_a_new_total() -> None:
    config = OptimizerConfig(learning_rate=0.1, warmup_updates=2, schedule="linear")

    def run(optimizer: Optimizer, steps: int) -> list[float]:
        rates = []
        for _ in range(steps):
            weight.grad = torch.ones(1)
            rates.append(optimizer.step().learning_rate)
        return rates

    weight = nn.Parameter(torch.ones(1))
    straight, stopped = (Optimizer([weight], config, total_steps=6) for _ in range(2))
    rates = run(straight, 6)
    run(stopped, 3)
    for total, expected in ((6, rates[3:]), (10, [0.0875, 0.075, 0.0625])):
        resumed = Optimizer([weight], config, total_steps=total)
        resumed.load_state_dict(copy.deepcopy(stopped.state_dict()))
        assert run(resumed, 3) == pytest.approx(expected)


def test_a_large_eps_makes_steps_shrink_with_the_gradient() -> None:
    """The first step of Adam is rate * g / (|g| + eps)."""
    for eps, expected in ((1e-8, 0.1 * 1e-5 / (1e-5 + 1e-8)), (1e-4, 0.1 * 1e-5 / (1e-5 + 1e-4))):
        weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        config = OptimizerConfig(learning_rate=0.1, warmup_updates=0, weight_decay=0, eps=eps)
        optimizer = Optimizer([weight], config, total_steps=1)
        weight.grad = torch.full_like(weight, 1e-5)
        optimizer.step()
        assert -weight.item() == pytest.approx(expected)
