import json
import math
import statistics
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resd.config import RunConfig
from resd.objectives.weighting import (
    Aggregation,
    entropy_weights,
    importance_ratio,
    sequence_importance_ratio,
    success_rate_weights,
    token_weights,
)
from resd.records import ResdError

SUM_NORM: Aggregation = "seq_mean_token_sum_norm"


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


@pytest.mark.parametrize("mode", [mode for mode in get_args(Aggregation) if mode != SUM_NORM])
def test_v7_aggregation(golden: dict[str, Any], mode: Aggregation) -> None:
    case = golden["V7_aggregation"]
    mask = torch.tensor(case["response_mask"])
    scale = token_weights(mode, mask.sum(1), torch.tensor(case["distillation_mask"]), torch.ones(3).double())
    loss = (scale[:, None] * mask * torch.tensor(case["loss"])).sum()
    assert loss.item() == pytest.approx(case[mode], abs=1e-7)


@pytest.mark.parametrize("mode", get_args(Aggregation))
def test_weights_scale_sequences_and_empty_batches_are_zero(mode: Aggregation) -> None:
    lengths, signal = torch.tensor([3, 5, 0]), torch.tensor([True, True, True])
    plain = token_weights(mode, lengths, signal, torch.ones(3), max_length=8)
    weighted = token_weights(mode, lengths, signal, torch.tensor([2.0, 0.5, 7.0]), max_length=8)
    torch.testing.assert_close(weighted, plain * torch.tensor([2.0, 0.5, 0.0]))
    none = token_weights(mode, lengths, torch.zeros(3).bool(), torch.ones(3), max_length=8)
    assert none.tolist() == [0, 0, 0]


def test_v7_released_sum_norm_is_ours_times_the_rollouts(golden: dict[str, Any]) -> None:
    case = golden["V7_aggregation"]
    mask = torch.tensor(case["response_mask"])
    padded, signal = mask.shape[1], torch.tensor(case["distillation_mask"])
    scale = token_weights(SUM_NORM, mask.sum(1), signal, torch.ones(3).double(), max_length=padded)
    loss = (scale[:, None] * mask * torch.tensor(case["loss"])).sum()
    assert loss.item() * len(mask) == pytest.approx(case[SUM_NORM], abs=1e-7)


def by_hand(mode: str, rows: list[tuple[list[float], bool, float]], longest: int) -> float:
    """The loss of `(token losses, has signal, weight)` per sequence, as each mode is defined."""
    kept = [(losses, weight) for losses, signal, weight in rows if signal and losses]
    if not kept:
        return 0.0
    sums = [weight * math.fsum(losses) for losses, weight in kept]
    means = [weight * statistics.fmean(losses) for losses, weight in kept]
    return {
        "token_mean": math.fsum(sums) / sum(len(losses) for losses, _ in kept),
        "seq_mean_token_mean": math.fsum(means) / len(kept),
        "seq_mean_token_sum": math.fsum(sums) / len(kept),
        "seq_mean_including_empty": math.fsum(means) / len(rows),
        "seq_mean_token_sum_norm": math.fsum(sums) / longest / len(rows),
    }[mode]


@pytest.mark.parametrize("mode", get_args(Aggregation))
@given(
    st.lists(
        st.tuples(st.lists(st.floats(-5, 5), max_size=9), st.booleans(), st.floats(0, 3)),
        min_size=1,
        max_size=8,
    ),
    st.integers(9, 40),
)
def test_every_aggregation_equals_its_definition(
    mode: Aggregation, rows: list[tuple[list[float], bool, float]], longest: int
) -> None:
    scale = token_weights(
        mode,
        torch.tensor([len(losses) for losses, _, _ in rows]),
        torch.tensor([signal for _, signal, _ in rows]),
        torch.tensor([weight for _, _, weight in rows], dtype=torch.float64),
        max_length=longest,
    )
    ours = sum(s * math.fsum(losses) for s, (losses, _, _) in zip(scale.tolist(), rows, strict=True))
    assert ours == pytest.approx(by_hand(mode, rows, longest), abs=1e-9)


@pytest.mark.parametrize("length", [None, 0])
def test_sum_norm_needs_a_length(length: int | None) -> None:
    with pytest.raises(ResdError, match="give max_length"):
        token_weights(SUM_NORM, torch.ones(1), torch.ones(1), torch.ones(1), max_length=length)


def test_the_configuration_knows_every_aggregation() -> None:
    assert get_args(RunConfig.model_fields["loss_aggregation"].annotation) == get_args(Aggregation)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.floats(-3, 0), st.floats(-3, 0)), min_size=1, max_size=30),
    st.floats(0.1, 50),
)
def test_sequence_ratios_are_capped_products(tokens: list[tuple[int, float, float]], cap: float) -> None:
    sequence = torch.tensor([index for index, _, _ in tokens])
    p, behaviour = torch.tensor([pair for _, *pair in tokens], dtype=torch.float64).T
    ours = sequence_importance_ratio(p, behaviour, sequence, 5, cap=cap)
    for found, (index, _, _) in zip(ours.tolist(), tokens, strict=True):
        product = math.prod(math.exp(a) / math.exp(b) for other, a, b in tokens if other == index)
        assert found == pytest.approx(min(max(min(product, math.exp(20)), math.exp(-20)), cap))


def test_sequence_ratios_are_detached_finite_and_optional() -> None:
    logprob = torch.tensor([-5.0, -900.0, 0.0, -5.0, 0.0], requires_grad=True)
    behaviour, sequence = torch.tensor([-5.0, 0.0, -900.0, -5.1, -0.2]), torch.tensor([1, 0, 2, 1, 1])
    ratio = sequence_importance_ratio(logprob, behaviour, sequence, 3, cap=1e30)
    assert (ratio.requires_grad, ratio.dtype) == (False, torch.float32)
    shared = math.exp(0.1 + 0.2)
    expected = [shared, math.exp(-20), math.exp(20), shared, shared]
    assert ratio.tolist() == pytest.approx(expected, rel=1e-6)
    assert sequence_importance_ratio(logprob, behaviour, sequence, 3, cap=None).tolist() == [1] * 5


def test_a_sequence_of_one_token_has_the_tokens_ratio() -> None:
    logprob, behaviour = torch.tensor([-0.5, -3, -1]), torch.tensor([-0.45, -4, -1.02])
    single = sequence_importance_ratio(logprob, behaviour, torch.arange(3), 3, cap=2.0)
    torch.testing.assert_close(single, importance_ratio(logprob, behaviour, cap=2.0))


@given(st.lists(st.floats(0, 12), min_size=1, max_size=10), st.floats(0, 4))
def test_entropy_weights_equal_the_loop(entropies: list[float], beta: float) -> None:
    entropy = torch.tensor(entropies, dtype=torch.float64, requires_grad=True)
    ours = entropy_weights(entropy, beta=beta)
    assert not ours.requires_grad
    alone = [math.e ** -(beta * h) for h in entropies]
    assert ours.tolist() == pytest.approx([weight * len(alone) / sum(alone) for weight in alone])


def test_entropy_weights_that_are_all_tiny_have_mean_1() -> None:
    ours = entropy_weights(torch.tensor([5.0, 5.01, 9.0]), beta=300.0)
    assert ours.tolist() == pytest.approx([3 / (1 + math.e**-3), 3 / (1 + math.e**3), 0.0], rel=1e-4)


def test_unknown_aggregation() -> None:
    with pytest.raises(ResdError, match="not an aggregation"):
        token_weights("mean", torch.ones(1), torch.ones(1), torch.ones(1))  # type: ignore[arg-type]
