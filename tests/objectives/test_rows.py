"""Row by row: sums, the k highest, a chosen set apart, the nucleus."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from objectives.reference import entropy, nucleus_mass
from resd.objectives.rows import (
    BLOCK,
    NUCLEUS_CANDIDATES,
    SEARCH_BY_BLOCKS,
    nucleus_log_mass,
    row_sums,
    split,
    top_ids,
    write_exponentials,
    write_split_gradient,
)


def normal(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(0, 4), columns=st.integers(1, 50))
def test_sums_give_logprobs_and_entropy(seed: int, rows: int, columns: int) -> None:
    logits = normal(rows, columns, seed=seed)
    expected = logits.log_softmax(-1)
    for dtype, error in ((torch.float64, 1e-12), (torch.float32, 3e-6)):
        sums = row_sums(logits.to(dtype))
        close(sums.logprob(logits.to(dtype)), expected, error)
        close(sums.logprob(logits.to(dtype)[:, 0]), expected[:, 0], error)
        entropies = torch.tensor([entropy(row) for row in expected], dtype=torch.float64)
        close(sums.entropy(), entropies, error)


def test_a_shift_of_the_logits_changes_nothing() -> None:
    """Sums are relative to the maximum: 1e4 more or less costs the logits' own rounding and no overflow."""
    logits = normal(3, 40).float()
    for shift in (-1e4, 1e4):
        shifted = logits + shift
        exact = shifted.double().log_softmax(-1)
        close(row_sums(shifted).logprob(shifted), exact, 3e-6)
        close(row_sums(shifted).entropy(), torch.stack([entropy(row) for row in exact]), 3e-6)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), columns=st.integers(1, 30), chosen=st.integers(1, 30))
def test_split_takes_the_chosen_apart(seed: int, columns: int, chosen: int) -> None:
    logits = normal(3, columns, seed=seed)
    ids = torch.stack([torch.randperm(columns)[:chosen] for _ in range(3)])
    expected = logits.log_softmax(-1)
    for dtype, error in ((torch.float64, 1e-12), (torch.float32, 3e-6)):
        parts = split(logits.to(dtype, copy=True), ids)
        close(parts.inside, expected.gather(-1, ids), error)
        close(parts.outside.exp(), expected.exp().scatter(-1, ids, 0).sum(-1), error)
        close(parts.whole.logprob(logits), expected, error)
        close(parts.whole.entropy(), torch.stack([entropy(row) for row in expected]), error)


def test_a_repeated_id_counts_once() -> None:
    logits = normal(1, 8)
    ids, repeated = torch.tensor([[1, 3, 3, 5]]), torch.tensor([[False, False, True, False]])
    parts = split(logits.clone(), ids, repeated)
    assert parts.inside.exp()[0, 2] == 0
    close(parts.inside.exp().sum(-1) + parts.outside.exp(), torch.ones(1).double(), 1e-12)
    close(parts.inside[:, [0, 1, 3]], logits.log_softmax(-1)[:, [1, 3, 5]], 1e-12)


def test_a_tiny_tail_keeps_its_digits() -> None:
    """1 minus the rest, in float32, would have none left."""
    logits = torch.tensor([[20.0, 19.0, -10.0, -11.0]])
    outside = split(logits.clone(), torch.tensor([[0, 1]])).outside
    expected = logits.double().log_softmax(-1)[:, 2:].logsumexp(-1)
    assert expected.exp() < 1e-12
    close(outside, expected, 3e-6)


@pytest.mark.parametrize("taken", [1, 5])
def test_a_row_may_be_taken_whole(taken: int) -> None:
    """No id is left outside: its mass is 0, and nothing of it is NaN."""
    logits = normal(2, taken).float()
    ids = torch.arange(taken).expand(2, -1)
    kept = logits.clone()
    parts = split(kept, ids)
    assert torch.isfinite(parts.outside).all()
    assert not parts.outside.exp().any()
    close(parts.inside, logits.double().log_softmax(-1), 3e-6)
    gradient = torch.full_like(logits, torch.nan)
    write_split_gradient(gradient, kept, parts, ids, torch.ones(2, taken), torch.zeros(2))
    assert torch.equal(gradient, torch.ones(2, taken))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_gradient_is_spread_by_mass(dtype: torch.dtype) -> None:
    """d/dz of `a @ log p[ids] + b log p(others)` with a, b whose p-weighted parts are already taken off."""
    precise = torch.promote_types(dtype, torch.float32)
    logits = normal(3, 12).to(precise)
    ids = torch.tensor([[0, 4, 11], [3, 2, 1], [5, 6, 7]])
    inside, outside = normal(3, 3, seed=1).to(precise), normal(3, seed=2).to(precise)
    others = logits.double().scatter(-1, ids, -torch.inf).softmax(-1)
    expected = (others * outside.double().unsqueeze(-1)).scatter_add(-1, ids, inside.double())
    gradient = torch.full((3, 12), torch.nan, dtype=dtype)
    parts = split(logits, ids)
    write_split_gradient(gradient, logits, parts, ids, inside, outside)
    close(gradient, expected, {torch.float64: 1e-12, torch.float32: 3e-6, torch.bfloat16: 2e-2}[dtype])
    write_split_gradient(gradient, logits, parts, ids, inside, None)
    close(gradient, torch.zeros(3, 12).double().scatter(-1, ids, inside.double()), 2e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_exponentials(dtype: torch.dtype) -> None:
    logits, shift, factor = normal(3, 10).float(), normal(3, seed=1).float(), normal(3, seed=2).float()
    out = torch.full((3, 10), torch.nan, dtype=dtype)
    write_exponentials(out, logits, shift, factor)
    expected = factor[:, None].double() * (logits.double() - shift[:, None].double()).exp()
    torch.testing.assert_close(
        out.double(), expected, rtol=1e-5 if dtype == torch.float32 else 2**-8, atol=1e-30
    )


SIZES = [
    SEARCH_BY_BLOCKS - 1, SEARCH_BY_BLOCKS, SEARCH_BY_BLOCKS + 1,
    SEARCH_BY_BLOCKS + BLOCK - 1, SEARCH_BY_BLOCKS + 3 * BLOCK, 20_011,
]  # fmt: skip


@pytest.mark.parametrize("columns", SIZES)
@pytest.mark.parametrize("k", [1, 100, "blocks", "more"])
def test_the_highest_are_those_of_a_full_search(columns: int, k: int | str) -> None:
    count = k if isinstance(k, int) else columns // BLOCK + (k == "more")
    logits = normal(3, columns).float()
    logits[1, -count:] += 30  # all of them in the last blocks and the rest behind
    logits[2, : count * BLOCK : BLOCK] += 30  # each in a block of its own
    assert_highest(logits, count)


@pytest.mark.parametrize("columns", SIZES)
def test_ties_take_any_of_the_equal(columns: int) -> None:
    """Few values, many times each: the values of the chosen are right, and no id is taken twice."""
    logits = normal(3, columns, scale=1.0).round().float()
    logits[2] = 0
    for k in (1, 100, columns // BLOCK):
        assert_highest(logits, k, tied=True)
        assert torch.equal(top_ids(logits, k), top_ids(logits, k))
        alone = torch.cat([top_ids(row[None], k) for row in logits])
        assert torch.equal(alone.sort(-1).values, top_ids(logits, k).sort(-1).values)


@pytest.mark.parametrize("columns", [3, SEARCH_BY_BLOCKS])
def test_no_more_than_there_are(columns: int) -> None:
    assert torch.equal(
        top_ids(normal(2, columns), columns + 5).sort(-1).values, torch.arange(columns).expand(2, -1)
    )
    assert top_ids(normal(0, columns), 2).shape == (0, 2)


@pytest.mark.parametrize("low", [torch.finfo(torch.float32).min, -torch.inf])
def test_the_lowest_value_is_no_candidate(low: float) -> None:
    logits = torch.full((1, SEARCH_BY_BLOCKS + 5), low)
    high = torch.tensor([3, 4, 5, 4000, SEARCH_BY_BLOCKS + 4])
    logits[0, high] = torch.arange(5.0) - 60
    assert torch.equal(top_ids(logits, 5).sort(-1).values[0], high)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(0, 3),
    columns=st.integers(1, 40),
    top_p=st.floats(0.05, 0.999),
    scale=st.sampled_from([0.1, 1.0, 8.0]),
)
def test_nucleus_equals_the_loop(seed: int, rows: int, columns: int, top_p: float, scale: float) -> None:
    logits = normal(rows, columns, seed=seed, scale=scale)
    close(nucleus_log_mass(logits.clone(), top_p), log_masses(logits, top_p), 1e-12)


@pytest.mark.parametrize("columns", [3 * NUCLEUS_CANDIDATES, SEARCH_BY_BLOCKS * 5])
def test_flat_rows_are_sorted_as_a_whole(columns: int) -> None:
    """The first and the last need more ids than the candidates, the one between does not."""
    logits = torch.stack([
        normal(columns, scale=0.3), normal(columns, scale=6.0), normal(columns, seed=1, scale=0.1)
    ])  # fmt: skip
    expected = log_masses(logits, 0.9)
    counts = (logits.softmax(-1).sort(-1, descending=True).values.cumsum(-1) < 0.9).sum(-1)
    assert (counts > NUCLEUS_CANDIDATES).tolist() == [True, False, True]
    close(nucleus_log_mass(logits, 0.9), expected, 1e-12)
    # In float32 a sum of thousands of small numbers may end an id earlier or later.
    close(nucleus_log_mass(logits.float(), 0.9), expected, 5e-5)


def test_all_is_kept_without_a_limit() -> None:
    assert nucleus_log_mass(normal(3, 7), 1.0).tolist() == [0, 0, 0]


def test_logits_are_left_as_they_are() -> None:
    logits = normal(2, SEARCH_BY_BLOCKS)
    before = logits.clone()
    row_sums(logits)
    top_ids(logits, 7)
    nucleus_log_mass(logits, 0.9)
    assert torch.equal(logits, before)


def assert_highest(logits: Tensor, k: int, *, tied: bool = False) -> None:
    ids, expected = top_ids(logits, k), logits.topk(k)
    assert ids.shape == expected.indices.shape
    assert all(len(set(row)) == k for row in ids.tolist())
    assert torch.equal(logits.gather(-1, ids).sort(-1).values, expected.values.sort(-1).values)
    if not tied:
        assert torch.equal(ids.sort(-1).values, expected.indices.sort(-1).values)


def log_masses(logits: Tensor, top_p: float) -> Tensor:
    masses = [nucleus_mass(row, top_p) for row in logits.log_softmax(-1)]
    return torch.tensor(masses, dtype=torch.float64).log()


def close(ours: Tensor, expected: Tensor, error: float) -> None:
    """Absolute for what is below 1, relative above."""
    torch.testing.assert_close(ours.double(), expected, rtol=error, atol=error)
