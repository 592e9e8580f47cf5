"""The student's forward, which ends in the loss: the same numbers however it is compiled, tied or sharded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.multiprocessing.spawn import spawn

from resd.learner.student import Student
from shards import expected, gradients, layout, moved, score, sharded, untied
from support import tiny_model


@pytest.mark.parametrize("tied", [True, False])
def test_two_processes_sum_to_one(tied: bool, tmp_path: Path) -> None:
    """Loss and every gradient, to rounding, with weights and gradients sharded and one reduction per step."""
    spawn(sharded, (str(tmp_path), tied), nprocs=2)
    loss, reference = expected(tiny_model() if tied else untied())
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    assert sum(part for part, _ in ranks) == pytest.approx(loss, rel=1e-5)
    for _, found in ranks:
        assert found.keys() == reference.keys()
        for name, gradient in reference.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_a_compiled_body_gives_the_same_loss_and_gradients() -> None:
    loss, reference = expected(untied())
    student, every = Student(untied()), layout([0, 1, 2, 3])
    teacher = moved(untied())
    compiled = torch.compile(student.body, backend="aot_eager")
    student.body = compiled
    ours, _ = student(every, score(teacher, every))
    ours.backward()
    assert ours.item() == pytest.approx(loss, rel=1e-6)
    found = {name.replace("_orig_mod.", ""): gradient for name, gradient in gradients(student).items()}
    for name, gradient in reference.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-6)


def test_compiling_all_of_it_leaves_the_loss_alone() -> None:
    """The loss is a break in the graph, and its numbers are the same."""
    loss, _ = expected(untied())
    student, every = Student(untied()), layout([0, 1, 2, 3])
    ours, _ = torch.compile(student, backend="aot_eager")(every, score(moved(untied()), every))
    assert ours.item() == pytest.approx(loss, rel=1e-6)


def test_a_frozen_head_gets_no_gradient() -> None:
    model = untied()
    model.get_output_embeddings().weight.requires_grad_(False)
    student, every = Student(model), layout([0, 1, 2, 3])
    loss, _ = student(every, score(moved(model), every))
    loss.backward()
    assert "head.linear.weight" not in gradients(student)
    _, reference = expected(untied())
    for name, gradient in gradients(student).items():
        torch.testing.assert_close(gradient, reference[name])
