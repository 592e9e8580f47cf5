import copy

import pytest
import torch
from torch import nn

from resd.config import OptimizerConfig
from resd.learner.optimizer import Optimizer

CONFIG = OptimizerConfig(learning_rate=0.1, warmup_updates=4, weight_decay=0.01, grad_clip=1.0)


def test_warm_up_starts_above_zero() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer, rates = Optimizer([weight], CONFIG), []
    for _ in range(6):
        weight.grad = torch.ones(3)
        rates.append(optimizer.step().learning_rate)
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    without = OptimizerConfig(learning_rate=0.1, warmup_updates=0)
    assert Optimizer([weight], without).learning_rate() == 0.1


def test_steps_equal_the_formula_of_adamw() -> None:
    """Decoupled weight decay, bias correction and the norm clip in float64."""
    weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer, (b1, b2) = Optimizer([weight], CONFIG), CONFIG.betas
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
    optimizer = Optimizer([weight], CONFIG)
    weight.grad = torch.ones(2)
    optimizer.step()
    before, state = weight.detach().clone(), copy.deepcopy(optimizer.state_dict())
    weight.grad = torch.tensor([1.0, bad])
    assert not optimizer.step().taken
    assert torch.equal(weight, before)
    assert str(optimizer.state_dict()) == str(state)
    assert weight.grad is None
