"""Tiles, gradients made with the loss, and what of it is ever in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from objectives.cases import distilled, problem, projection, token_distilled, tokens_of
from objectives.reference import Outcome
from resd.objectives import chunked
from resd.objectives.chunked import LogitTiles, Projection, Stats, add_product, fused_loss, slices
from resd.objectives.divergence import Divergence
from resd.objectives.losses import distillation_loss, token_statistics
from resd.records import ResdError

SPEC = Divergence(1.0, topk=5)


def squares(logits: Tensor, rows: slice, gradient: Tensor | None) -> Stats:
    """Half the sum of squared logits."""
    if gradient is not None:
        gradient.copy_(logits)
    return {"loss": logits.square().sum(-1) / 2, "first": logits[:, 0].clone()}


def leaf(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=random, dtype=torch.float64).to(dtype).requires_grad_()


def operands(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    return leaf(7, 4, dtype=dtype), leaf(9, 4, seed=1, dtype=dtype), leaf(9, seed=2, dtype=dtype)


@pytest.mark.parametrize("tile_rows", [None, 1, 3, 7, 20])
@pytest.mark.parametrize("scale", [1.0, 0.6])
@pytest.mark.parametrize("biased", [True, False])
def test_any_loss_of_the_logits(biased: bool, scale: float, tile_rows: int | None) -> None:
    """Its sum, what it reports, and the gradients of a few lines of autograd."""
    hidden, weight, bias = operands()
    student = Projection(hidden, weight, bias if biased else None, scale)
    total, stats = fused_loss(student, squares, temperature=0.5, tile_rows=tile_rows)
    logits = scale * (hidden @ weight.T + (bias if biased else 0)) / 0.5
    expected = logits.square().sum() / 2
    leaves = (hidden, weight, bias) if biased else (hidden, weight)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(stats["first"], logits[:, 0].detach())
    torch.testing.assert_close(torch.autograd.grad(total, leaves), torch.autograd.grad(expected, leaves))
    assert not any(value.requires_grad for value in stats.values())


def test_rows_say_which_tokens_a_tile_has() -> None:
    hidden, weight, _ = operands()
    seen: list[tuple[int, int]] = []

    def loss(logits: Tensor, rows: slice, gradient: Tensor | None) -> Stats:
        torch.testing.assert_close(logits, (hidden[rows] @ weight.T).detach())
        seen.append((rows.start, rows.stop))
        return squares(logits, rows, gradient)

    fused_loss(Projection(hidden, weight), loss, tile_rows=3)
    assert seen == [(0, 3), (3, 6), (6, 7)]


def test_the_factor_from_above_scales() -> None:
    leaves = hidden, weight, bias = operands()
    student = Projection(hidden, weight, bias)
    once, thrice = (
        torch.autograd.grad(factor * fused_loss(student, squares)[0], leaves) for factor in (1, 3)
    )
    torch.testing.assert_close(tuple(3 * gradient for gradient in once), thrice)


def test_gradients_are_handed_over_once() -> None:
    hidden, weight, _ = operands()
    total, _ = fused_loss(Projection(hidden, weight), squares)
    total.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="backward can run only once; compute the loss again"):
        total.backward()  # type: ignore[no-untyped-call]


def test_there_is_no_second_derivative() -> None:
    hidden, weight, _ = operands()
    total, _ = fused_loss(Projection(hidden, weight), squares)
    (gradient,) = torch.autograd.grad(total, hidden, create_graph=True)
    with pytest.raises(RuntimeError):
        gradient.sum().backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("trained", [(0,), (1,), (2,), (0, 2), (0, 1)])
def test_what_is_frozen_gets_no_gradient(trained: tuple[int, ...]) -> None:
    leaves = [x.detach().requires_grad_(index in trained) for index, x in enumerate(operands())]
    student = Projection(leaves[0], leaves[1], leaves[2])
    fused_loss(student, squares)[0].backward()  # type: ignore[no-untyped-call]
    everything = operands()
    (expected, _) = fused_loss(Projection(*everything), squares)
    gradients = torch.autograd.grad(expected, everything)
    for index, (x, gradient) in enumerate(zip(leaves, gradients, strict=True)):
        if index in trained:
            torch.testing.assert_close(x.grad, gradient)
        else:
            assert x.grad is None


@pytest.mark.parametrize("frozen", [True, False])
def test_without_gradients_none_are_made(frozen: bool) -> None:
    """Under no_grad, and where nothing is trained: the same loss, and no loss is asked for a gradient."""
    hidden, weight, bias = operands()
    expected, stats = fused_loss(Projection(hidden, weight, bias), squares)
    asked: list[Tensor | None] = []

    def loss(logits: Tensor, rows: slice, gradient: Tensor | None) -> Stats:
        asked.append(gradient)
        return squares(logits, rows, gradient)

    leaves = [x.detach() if frozen else x for x in (hidden, weight, bias)]
    with torch.set_grad_enabled(frozen), Allocations() as made:
        total, others = fused_loss(Projection(leaves[0], leaves[1], leaves[2]), loss, tile_rows=2)
    assert asked == [None] * 4
    assert not total.requires_grad
    assert max(made.sizes) <= 2 * 9  # a tile of logits; the head has 36 entries
    torch.testing.assert_close(total, expected.detach())
    torch.testing.assert_close(others, stats)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias_dtype", [torch.float32, torch.float64])
def test_gradients_have_the_dtype_of_what_they_are_for(dtype: torch.dtype, bias_dtype: torch.dtype) -> None:
    hidden, weight, _ = operands(dtype)
    bias = leaf(9, seed=2, dtype=bias_dtype)
    total, _ = fused_loss(Projection(hidden, weight, bias), squares)
    total.backward()  # type: ignore[no-untyped-call]
    assert total.dtype == torch.promote_types(dtype, torch.float32)
    for x in (hidden, weight, bias):
        assert x.grad is not None
        assert x.grad.dtype == x.dtype


def test_float32_sums_over_tiles_of_bfloat16() -> None:
    """4,000 times the same token: in bfloat16 the sum would have stopped growing at 256 times."""
    hidden = torch.ones(4000, 1, dtype=torch.bfloat16)
    weight = torch.ones(1, 1, dtype=torch.bfloat16).requires_grad_()
    fused_loss(Projection(hidden, weight), squares, tile_rows=1)[0].backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(4000, rel=2**-8)


@pytest.mark.parametrize("level", ["distribution", "policy"])
@pytest.mark.parametrize("spec", [{"alpha": 0.5}, {"alpha": 1.0, "topk": 5, "selector": "union"}], ids=str)
def test_logits_of_the_batch_are_never_there(spec: dict[str, Any], level: str) -> None:
    """Neither in the forward nor in the backward pass is there a tensor as large as [T, V]."""
    case = problem(
        tokens=400, vocabulary=50, width=4, bias=True, mixed=True, rollout=True, top_p=0.9, masked=(3,)
    )

    def run(**options: Any) -> Outcome:
        return distilled(case, spec, **options) if level == "distribution" else token_distilled(
            case, 0.2, None, **options
        )  # fmt: skip

    with Allocations() as made:
        run(tile_rows=8)
    # Hidden states, 400 x 4; a union's candidates; a tile of logits.
    assert max(made.sizes) <= 400 * 4
    with Allocations() as whole:
        run(tile_rows=400)
    assert max(whole.sizes) >= 399 * 50  # that is, the check sees them where they are


def test_statistics_are_made_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    case = replace(problem(tokens=400, vocabulary=50, width=4), cap=None)
    whole = token_statistics([projection(case.student)], tokens_of(case))
    monkeypatch.setattr(chunked, "TILE_BYTES", {"cpu": 1})
    monkeypatch.setattr(chunked, "ROW_UNIT", 16)
    with Allocations() as made:
        tiled = token_statistics([projection(case.student)], tokens_of(case))
    assert max(made.sizes) <= 400 * 4
    torch.testing.assert_close(tiled, whole, rtol=1e-5, atol=1e-5)


def test_losses_add_up_over_micro_batches() -> None:
    """Each holds its own gradients until its backward pass."""
    case = problem(tokens=6)
    head = case.student.weight.clone().requires_grad_()
    teacher = [projection(side) for side in case.teacher]
    losses = [
        distillation_loss(Projection(case.student.hidden, head), teacher, tokens_of(case), SPEC)[0]
        for _ in range(2)
    ]
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    once = distilled(case, {"alpha": 1.0, "topk": 5}).gradients[1]
    assert once is not None
    torch.testing.assert_close(head.grad, 2 * once)


def test_tiles_of_a_sum_of_projections() -> None:
    hidden, weight, bias = (x.detach() for x in operands())
    tiles = LogitTiles(
        [Projection(hidden, weight, bias, 0.25), Projection(hidden.flip(0), weight, None, 0.75)],
        temperature=2.0,
    )
    expected = (0.25 * (hidden @ weight.T + bias) + 0.75 * hidden.flip(0) @ weight.T) / 2
    for rows in (slice(0, 2), slice(5, 7), slice(0, 7), slice(3, 3)):
        torch.testing.assert_close(tiles(rows), expected[rows])
    assert tiles.shape == (7, 9)


def test_products_of_rounded_operands_are_float32() -> None:
    hidden, weight, _ = (x.detach() for x in operands(torch.float32))
    logits = LogitTiles([Projection(hidden, weight)], compute_dtype=torch.bfloat16)(slice(0, 7))
    expected = hidden.bfloat16().double() @ weight.bfloat16().double().T
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.double(), expected, rtol=1e-6, atol=1e-6)


def test_tile_rows_fit_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = LogitTiles([Projection(torch.zeros(1, 2), torch.zeros(1000, 2))])
    for unit in (1, 16):
        monkeypatch.setattr(chunked, "ROW_UNIT", unit)
        monkeypatch.setattr(chunked, "TILE_BYTES", {"cpu": 107 * 4000 + 1})
        assert tiles.rows_per_tile == 107 // unit * unit
        monkeypatch.setattr(chunked, "TILE_BYTES", {"cpu": 1})
        assert tiles.rows_per_tile == unit


@pytest.mark.parametrize(("start", "stop", "size"), [(0, 10, 3), (4, 10, 3), (0, 3, 3), (2, 2, 5)])
def test_slices_cover_the_range(start: int, stop: int, size: int) -> None:
    pieces = list(slices(start, stop, size))
    assert len(pieces) == max(1, -(-(stop - start) // size))  # nothing is one piece of nothing
    assert [i for piece in pieces for i in range(piece.start, piece.stop)] == list(range(start, stop))
    assert all(piece.stop - piece.start <= size for piece in pieces)


@pytest.mark.parametrize("keep", [True, False])
def test_a_product_is_added(keep: bool) -> None:
    a, b, out = (x.detach() for x in (leaf(3, 4), leaf(4, 5, seed=1), leaf(3, 5, seed=2)))
    expected = 0.3 * a @ b + (out if keep else 0)
    # What was in the buffer does not matter if it is not kept.
    out = out if keep else torch.full_like(out, torch.nan)
    add_product(out, a, b, scale=0.3, keep=keep)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize(("hidden", "weight"), [((3, 4), (5, 3)), ((2, 3, 4), (5, 4)), ((3, 4), (4,))])
def test_shapes_that_do_not_fit(hidden: tuple[int, ...], weight: tuple[int, ...]) -> None:
    with pytest.raises(ResdError, match=r"give \[tokens, H\] and \[V, H\]"):
        fused_loss(Projection(torch.zeros(hidden), torch.zeros(weight)), squares)


class Allocations(TorchDispatchMode):
    """Records how many elements each tensor has that an operation makes; views and outputs given are not."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = [0]

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = {_address(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        result = func(*args, **(kwargs or {}))
        made = [x for x in tree_leaves(result) if isinstance(x, Tensor) and _address(x) not in given]
        self.sizes += [x.untyped_storage().nbytes() // x.itemsize for x in made]
        return result


def _address(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()
