"""The Triton kernels on a CPU, in Triton's interpreter; `tests/gpu/test_objective.py` has them compiled.

Needs Triton, and TRITON_INTERPRET=1 from the start: a kernel is interpreted or compiled as it was defined.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

from objectives import reference
from objectives.cases import (
    ALPHAS,
    FLOAT32,
    LIMITS,
    agree,
    check,
    distilled,
    extreme,
    problem,
    scenes,
    supports,
    token_distilled,
    token_reference,
)
from resd.objectives import kernels, rows
from resd.objectives.rows import nucleus_log_mass, row_sums, top_ids, write_exponentials

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") != "1",
    reason="needs Triton and TRITON_INTERPRET=1",
)


@pytest.fixture(autouse=True)
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Small blocks, so that a row has several and a part of one; and which operations took the kernels."""
    names: list[str] = []
    for name in ("row_sums", "write_exponentials", "top_ids", "divergence"):
        monkeypatch.setattr(kernels, name, _noted(name, getattr(kernels, name), names))
    monkeypatch.setattr(kernels, "usable", lambda logits: logits.dtype == torch.float32)
    monkeypatch.setattr(kernels, "BLOCK", 64)
    monkeypatch.setattr(kernels, "PAIR_BLOCK", 16)
    return names


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("support", supports(6)[:4], ids=str)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_distillation_equals_the_reference(
    launched: list[str],
    alpha: float,
    support: dict[str, Any],
    limits: tuple[float | None, float | None],
) -> None:
    spec = {"alpha": alpha, **support, "min_ratio": limits[0], "max_ratio": limits[1]}
    for case in scenes(torch.float32, vocabulary=70, tokens=4):
        expected = reference.distillation(reference.exact(case), **spec)
        check(distilled(case, spec, tile_rows=3), expected, case, FLOAT32)
    assert ("divergence" if support["topk"] is None else "write_exponentials") in launched


def test_token_level_equals_the_reference() -> None:
    for case in scenes(torch.float32, vocabulary=70, tokens=4):
        check(token_distilled(case, 0.2, None), token_reference(case, 0.2, None), case, FLOAT32)


@pytest.mark.parametrize("columns", [1, 2, 63, 64, 65, 200])
def test_sums(launched: list[str], columns: int) -> None:
    """Rising rows too, where every block has a new maximum."""
    logits = 3 * torch.randn(3, columns, generator=torch.Generator().manual_seed(0))
    logits[1] = torch.linspace(-60, 60, columns)
    logits[2] = logits[1].flip(0)
    expected = logits.double().log_softmax(-1)
    sums = row_sums(logits)
    torch.testing.assert_close(sums.logprob(logits).double(), expected, rtol=1e-6, atol=1e-6)
    entropies = torch.stack([reference.entropy(row) for row in expected])
    torch.testing.assert_close(sums.entropy().double(), entropies, rtol=3e-6, atol=3e-6)
    assert launched == ["row_sums"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_exponentials(dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    logits, shift, factor = (torch.randn(*shape, generator=random) for shape in ((3, 150), (3,), (3,)))
    out = torch.full((3, 160), torch.nan, dtype=dtype)[:, :150]  # rows that are further apart than long
    write_exponentials(out, logits, shift, factor)
    expected = factor[:, None].double() * (logits.double() - shift[:, None].double()).exp()
    error = 1e-6 if dtype == torch.float32 else 2**-7  # the interpreter cuts off where a GPU rounds
    torch.testing.assert_close(out.double(), expected, rtol=error, atol=1e-30)


@pytest.mark.parametrize("columns", [128, 131, 500, 640])
@pytest.mark.parametrize("k", [1, 3, 4])
@pytest.mark.parametrize("kind", ["random", "negative", "ties", "equal", "lowest"])
def test_the_highest(
    launched: list[str], monkeypatch: pytest.MonkeyPatch, kind: str, k: int, columns: int
) -> None:
    monkeypatch.setattr(rows, "SEARCH_BY_BLOCKS", 100)
    logits = torch.randn(3, columns, generator=torch.Generator().manual_seed(1))
    logits[2, : 32 * k : 32] += 9  # each in a block of its own
    if kind == "negative":
        logits = -logits.abs() - 1
    if kind == "lowest":
        logits[:] = torch.finfo(torch.float32).min
        logits[:, -k:] = -1e30
    if kind in ("ties", "equal"):
        logits = logits.round() if kind == "ties" else torch.zeros_like(logits)
    ids, expected = top_ids(logits, k), logits.topk(k)
    assert launched == ["top_ids"]
    assert all(len(set(row)) == k for row in ids.tolist())
    assert torch.equal(logits.gather(-1, ids).sort(-1).values, expected.values.sort(-1).values)
    if kind not in ("ties", "equal"):
        assert torch.equal(ids.sort(-1).values, expected.indices.sort(-1).values)
    elif kind == "equal":
        assert ids.sort(-1).values.tolist() == [list(range(k))] * 3  # the lowest ids


def test_the_nucleus() -> None:
    logits = 2 * torch.randn(3, 150, generator=torch.Generator().manual_seed(0))
    masses = [reference.nucleus_mass(row, 0.8) for row in logits.double().log_softmax(-1)]
    ours = nucleus_log_mass(logits, 0.8).double()
    torch.testing.assert_close(ours, torch.tensor(masses, dtype=torch.float64).log(), rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("kind", ["identical", "certain", "opposed", "one word", "two words"])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("topk", [None, 1, 7])
def test_extremes_are_finite(kind: str, alpha: float, topk: int | None) -> None:
    """With 7 of 12 the union may be all there is."""
    case = extreme(kind, torch.float32)
    spec = {"alpha": alpha, "topk": topk, "selector": "union", "min_ratio": 0.2}
    for ours in (distilled(case, spec), token_distilled(case, 0.2, 5.0)):
        found = [ours.loss, *ours.stats.values(), *(x for x in ours.gradients if x is not None)]
        assert all(torch.isfinite(value).all() for value in found)


@pytest.mark.parametrize("spec", [{"alpha": 0.5}, {"alpha": 1.0, "topk": 3}], ids=str)
def test_no_tokens(spec: dict[str, Any]) -> None:
    case = problem(tokens=3, masked=(0, 1, 2))
    ours = distilled(case, spec)
    assert ours.loss == 0
    assert not any(value.any() for value in ours.stats.values())
    assert all(gradient is None or not gradient.any() for gradient in ours.gradients)


@pytest.mark.parametrize("spec", [{"alpha": 0.5, "max_ratio": 2.0}, {"alpha": 1.0, "topk": 5}], ids=str)
def test_equals_pytorch(monkeypatch: pytest.MonkeyPatch, spec: dict[str, Any]) -> None:
    case = problem(vocabulary=150, bias=True, rollout=True, top_p=0.9)
    ours = distilled(case, spec)
    monkeypatch.setattr(kernels, "usable", lambda logits: False)
    agree(ours, distilled(case, spec), case, FLOAT32)


def _noted(name: str, run: Callable[..., Any], names: list[str]) -> Callable[..., Any]:
    def noted(*args: Any) -> Any:
        names.append(name)
        return run(*args)

    return noted
