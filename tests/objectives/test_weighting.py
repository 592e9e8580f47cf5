import json
import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resd.objectives.weighting import (
    Aggregation,
    importance_ratio,
    nucleus_log_mass,
    success_rate_weights,
    token_weights,
)
from resd.records import ResdError


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((shared / "spec" / "golden.json").read_text())
    return data


def test_v5_rollout_correction(golden: dict[str, Any]) -> None:
    case = golden["V5_is_clip"]["rollout_is"]
    ratio = importance_ratio(
        torch.tensor(case["logp_old"]), torch.tensor(case["logp_rollout"]), cap=case["cap"]
    )
    assert ratio.tolist() == pytest.approx(case["ratios"], abs=1e-6)


def test_importance_ratio_is_detached_finite_and_optional() -> None:
    logprob = torch.tensor([0.0, -900.0], requires_grad=True)
    ratio = importance_ratio(logprob, torch.tensor([-900.0, 0.0]), cap=1e30)
    assert not ratio.requires_grad
    assert ratio.tolist() == pytest.approx([math.exp(20), math.exp(-20)])
    assert importance_ratio(logprob, torch.zeros(2), cap=None).tolist() == [1, 1]


def test_v6_success_weights(golden: dict[str, Any]) -> None:
    for case in golden["V6_success_weights"]:
        for success in (torch.tensor(case["success"]).bool(), torch.tensor(case["success"]).float()):
            ours = success_rate_weights(success, alpha=case.get("alpha", 1), beta=case.get("beta", 1))
            assert ours.dtype == torch.float32
            assert ours.tolist() == pytest.approx(case["weights"], abs=1e-6)


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.floats(0, 3), st.floats(0, 3))
def test_success_weights_have_mean_one(success: list[bool], alpha: float, beta: float) -> None:
    weights = success_rate_weights(torch.tensor(success), alpha=alpha, beta=beta)
    assert weights.mean().item() == pytest.approx(1, abs=1e-4)
    if len(set(success)) == 2 and alpha == beta == 1:
        rate = sum(success) / len(success)
        solved, failed = weights[success.index(True)], weights[success.index(False)]
        assert (solved / failed).item() == pytest.approx((1 - rate) / rate, rel=1e-4)


def test_success_weights_need_one_dimension() -> None:
    with pytest.raises(ResdError, match="one value per rollout"):
        success_rate_weights(torch.zeros(2, 2))


@pytest.mark.parametrize("mode", get_args(Aggregation))
def test_v7_aggregation(golden: dict[str, Any], mode: Aggregation) -> None:
    case = golden["V7_aggregation"]
    mask = torch.tensor(case["response_mask"])
    scale = token_weights(mode, mask.sum(1), torch.tensor(case["distillation_mask"]), torch.ones(3).double())
    loss = (scale[:, None] * mask * torch.tensor(case["loss"])).sum()
    assert loss.item() == pytest.approx(case[mode], abs=1e-7)


@pytest.mark.parametrize("mode", get_args(Aggregation))
def test_weights_scale_sequences_and_empty_batches_are_zero(mode: Aggregation) -> None:
    lengths, signal = torch.tensor([3, 5, 0]), torch.tensor([True, True, True])
    plain = token_weights(mode, lengths, signal, torch.ones(3))
    weighted = token_weights(mode, lengths, signal, torch.tensor([2.0, 0.5, 7.0]))
    torch.testing.assert_close(weighted, plain * torch.tensor([2.0, 0.5, 0.0]))
    assert token_weights(mode, lengths, torch.zeros(3).bool(), torch.ones(3)).tolist() == [0, 0, 0]


def test_unknown_aggregation() -> None:
    with pytest.raises(ResdError, match="no aggregation"):
        token_weights("mean", torch.ones(1), torch.ones(1), torch.ones(1))  # type: ignore[arg-type]


def test_nucleus_mass_keeps_the_crossing_token() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.97, 0.01, 0.01, 0.01]]).log()
    assert nucleus_log_mass(logits, 0.9).exp().tolist() == pytest.approx([0.95, 0.97], abs=1e-6)
    assert nucleus_log_mass(logits, 0.6).exp().tolist() == pytest.approx([0.8, 0.97], abs=1e-6)
