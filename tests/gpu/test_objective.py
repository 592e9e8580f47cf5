"""The objective on a GPU: its kernels against the float64 reference and against the PyTorch code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from objectives import reference
from objectives.cases import (
    ALPHAS,
    BFLOAT16,
    FLOAT32,
    LIMITS,
    Tolerance,
    agree,
    check,
    distilled,
    extreme,
    moved,
    policy,
    policy_inputs,
    policy_reference,
    problem,
    scenes,
    supports,
    token_distilled,
    token_reference,
)
from resd.objectives import kernels
from resd.objectives.rows import nucleus_log_mass, row_sums, top_ids

pytestmark = pytest.mark.gpu

# bfloat16 rounds each gradient by a logit before the products, and the gradients by hidden states and weight
# after them, each time by up to 2 ** -8. Losses are as in float32, since logits are.
PRECISIONS = {
    "float32": (torch.float32, FLOAT32),
    "bfloat16": (torch.bfloat16, replace(BFLOAT16, gradient=8e-3)),
}
QWEN3 = 151_936
VARIANTS: list[dict[str, Any]] = [
    {"alpha": 0.0, "min_ratio": 0.2},
    {"alpha": 0.5},
    {"alpha": 1.0, "min_ratio": 0.3, "max_ratio": 1.5},
    {"alpha": 1.0, "topk": 100, "min_ratio": 0.2},
    {"alpha": 0.5, "topk": 100, "selector": "teacher", "add_tail": False},
    {"alpha": 0.0, "topk": 20, "selector": "union"},
]


@pytest.fixture(autouse=True, scope="module")
def exact_products() -> Any:
    """float32 products in float32, not in TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("support", supports(6), ids=str)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_small_vocabularies(
    alpha: float, support: dict[str, Any], limits: tuple[float | None, float | None], precision: str
) -> None:
    dtype, tolerance = PRECISIONS[precision]
    spec = {"alpha": alpha, **support, "min_ratio": limits[0], "max_ratio": limits[1]}
    for case in scenes(dtype, vocabulary=104, width=16):
        expected = reference.distillation(reference.exact(case), **spec)
        check(distilled(moved(case, "cuda"), spec, tile_rows=2), expected, case, tolerance)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("vocabulary", [kernels.PAIR_BLOCK + 1, 20_008, QWEN3])
@pytest.mark.parametrize("spec", VARIANTS, ids=str)
def test_real_vocabularies(spec: dict[str, Any], vocabulary: int, precision: str) -> None:
    """Whole blocks and a part of one; the highest are searched by blocks."""
    dtype, tolerance = PRECISIONS[precision]
    for case in scenes(dtype, vocabulary=vocabulary, width=16):
        expected = reference.distillation(reference.exact(case), **spec)
        check(distilled(moved(case, "cuda"), spec, tile_rows=3), expected, case, tolerance)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("vocabulary", [104, QWEN3])
def test_distillation_of_sampled_tokens(vocabulary: int, precision: str) -> None:
    dtype, tolerance = PRECISIONS[precision]
    for case in scenes(dtype, vocabulary=vocabulary, width=16, tokens=8):
        expected = token_reference(case, 0.2, None)
        check(token_distilled(moved(case, "cuda"), 0.2, None, tile_rows=3), expected, case, tolerance)
        old, advantages = policy_inputs(case)
        ours = policy(moved(case, "cuda"), old.cuda(), advantages.cuda(), tile_rows=3)
        check(ours, policy_reference(case, old, advantages), case, tolerance)


@pytest.mark.parametrize("spec", VARIANTS, ids=str)
def test_rounded_products_of_float32_parameters(spec: dict[str, Any]) -> None:
    """Gradients are summed in float32 and leave in it; what was rounded are their operands."""
    tolerance = Tolerance(FLOAT32.relative, FLOAT32.absolute, gradient=4e-3)
    for case in scenes(torch.float32, vocabulary=20_008, width=16):
        expected = reference.distillation(reference.exact(case, torch.bfloat16), **spec)
        ours = distilled(moved(case, "cuda"), spec, compute_dtype=torch.bfloat16)
        check(ours, expected, case, tolerance)


@pytest.mark.parametrize("tokens", [64, 700])
@pytest.mark.parametrize("spec", VARIANTS, ids=str)
def test_equals_pytorch(monkeypatch: pytest.MonkeyPatch, spec: dict[str, Any], tokens: int) -> None:
    """The same tensors, on the same device, with and without kernels."""
    case = moved(
        problem(tokens=tokens, vocabulary=20_011, width=32, bias=True, rollout=True, top_p=0.9), "cuda"
    )
    ours = [distilled(case, spec, tile_rows=48), token_distilled(case, 0.2, None, tile_rows=48)]
    monkeypatch.setattr(kernels, "usable", lambda logits: False)
    theirs = [distilled(case, spec, tile_rows=48), token_distilled(case, 0.2, None, tile_rows=48)]
    for one, other in zip(ours, theirs, strict=True):
        agree(one, other, case, FLOAT32)


@pytest.mark.parametrize("kind", ["identical", "certain", "opposed", "one word", "two words"])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("topk", [None, 1, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extremes_are_finite(dtype: torch.dtype, topk: int | None, alpha: float, kind: str) -> None:
    case = moved(extreme(kind, dtype), "cuda")
    spec = {"alpha": alpha, "topk": topk, "selector": "union", "min_ratio": 0.2}
    for ours in (distilled(case, spec), token_distilled(case, 0.2, 5.0)):
        found = [ours.loss, *ours.stats.values(), *(x for x in ours.gradients if x is not None)]
        assert all(torch.isfinite(value).all() for value in found)


@pytest.mark.parametrize("vocabulary", [104, QWEN3])
@pytest.mark.parametrize("topk", [None, 100])
def test_a_masked_batch(topk: int | None, vocabulary: int) -> None:
    case = moved(problem(tokens=3, vocabulary=vocabulary, masked=(0, 1, 2)), "cuda")
    ours = distilled(case, {"alpha": 1.0, "topk": topk})
    assert ours.loss == 0
    assert all(gradient is None or not gradient.any() for gradient in ours.gradients)


@pytest.mark.parametrize("columns", [8192, 8193, 20_011, QWEN3])
@pytest.mark.parametrize("k", [1, 20, 100, 128, 255])
@pytest.mark.parametrize("kind", ["random", "negative", "rounded", "equal"])
def test_the_highest(kind: str, k: int, columns: int) -> None:
    logits = 3 * torch.randn(37, columns, generator=torch.Generator().manual_seed(0))
    logits[1, : 32 * k : 32] += 30  # each in a block of its own
    changed = {"negative": -logits.abs() - 1, "rounded": logits.round(), "equal": 0 * logits}
    logits = changed.get(kind, logits).cuda()
    ids, expected = top_ids(logits, k), logits.topk(k)
    assert all(len(set(row)) == k for row in ids.tolist())
    assert torch.equal(logits.gather(-1, ids).sort(-1).values, expected.values.sort(-1).values)
    if kind in ("random", "negative"):
        unique = expected.values.diff(dim=-1).all(-1)  # float32 has ties of its own
        assert torch.equal(ids.sort(-1).values[unique], expected.indices.sort(-1).values[unique]) or _tied(
            logits, k
        )


@pytest.mark.parametrize("columns", [1, 2, 104, 8193, QWEN3])
def test_row_operations(columns: int) -> None:
    logits = 3 * torch.randn(5, columns, generator=torch.Generator().manual_seed(0))
    logits[1] = torch.linspace(-60, 60, columns)
    logits[2] = logits[1].flip(0)
    logits[3] *= 0.03
    exact = logits.double().log_softmax(-1)
    sums = row_sums(logits.cuda())
    error: dict[str, Any] = {"rtol": 3e-6, "atol": 3e-6}
    torch.testing.assert_close(sums.logprob(logits.cuda()).cpu().double(), exact, **error)
    entropies = torch.stack([reference.entropy(row) for row in exact])
    torch.testing.assert_close(sums.entropy().cpu().double(), entropies, **error)
    masses = torch.tensor([reference.nucleus_mass(row, 0.9) for row in exact], dtype=torch.float64)
    ours = nucleus_log_mass(logits.cuda(), 0.9).cpu().double()
    # Where ids are equally likely, a rounded sum may end one earlier or later.
    torch.testing.assert_close(ours, masses.log(), rtol=1e-4, atol=2 / columns if columns < 3 else 1e-4)


def _tied(logits: torch.Tensor, k: int) -> bool:
    """Whether in some row the last of the highest has its like among the rest."""
    values = logits.topk(k + 1).values
    return bool((values[:, -1] == values[:, -2]).any())
