"""The student's forward, which ends in the loss: the same numbers however it is compiled, tied or sharded."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from resd.learner.layout import Layout, build_layout
from resd.learner.student import Score, Student
from resd.learner.teacher import FrozenTeacher
from resd.objectives.chunked import Projection, Stats
from resd.objectives.divergence import Divergence
from resd.objectives.losses import SampledTokens, distillation_loss
from support import tiny_model

PROMPTS = [(5, 6, 7), (9,), (30, 31), (40, 41, 42, 43)]
RESPONSES = [(8, 9), (10, 11, 12), (13,), (14, 15, 16, 17, 18)]
TOKENS = sum(map(len, RESPONSES))


def untied() -> Any:
    """A head of its own; with a tied one its gradient could hide in the embedding's."""
    model = tiny_model(layers=2)
    model.config.tie_word_embeddings = False
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(torch.randn_like(head.weight) * 0.3)
    return model


def layout(indices: list[int]) -> Layout:
    return build_layout([PROMPTS[i] for i in indices], [RESPONSES[i] for i in indices], indices)


def score(teacher: Any, part: Layout) -> Score:
    """Weights are those of the global batch, whichever part of it this is."""
    tokens = SampledTokens(part.targets, torch.full((len(part.targets),), 1 / TOKENS))

    def run(student: Projection) -> tuple[Tensor, Stats]:
        return distillation_loss(
            student, teacher.projections(part), tokens, Divergence(1.0, topk=10, min_ratio=0.2)
        )

    return run


def moved(model: Any) -> Any:
    """A teacher that differs from the student."""
    teacher = copy.deepcopy(model)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return FrozenTeacher(teacher)


def gradients(student: Student) -> dict[str, Tensor]:
    found = ((name, parameter.grad) for name, parameter in student.named_parameters())
    return {name: whole(gradient) for name, gradient in found if gradient is not None}


def whole(gradient: Any) -> Tensor:
    full: Tensor = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
    return full.clone()


def expected(model: Any) -> tuple[float, dict[str, Tensor]]:
    """All sequences in one forward and one process."""
    student, every = Student(model), layout([0, 1, 2, 3])
    loss, _ = student(every, score(moved(model), every))
    loss.backward()
    return loss.item(), gradients(student)


def sharded(rank: int, folder: str, tied: bool) -> None:
    """One of two processes: its half of the sequences in two micro-batches, the weights sharded by FSDP2."""
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = tiny_model() if tied else untied()
    teacher, mesh, student = moved(model), init_device_mesh("cpu", (2,)), Student(model)
    for layer in student.body.layers:
        fully_shard(layer, mesh=mesh)
    if not tied:
        fully_shard(student.head, mesh=mesh, reshard_after_forward=False)
    fully_shard(student, mesh=mesh)
    for module in student.modules():
        if hasattr(module, "set_gradient_divide_factor"):
            module.set_force_sum_reduction_for_comms(True)  # gloo cannot scale what it sums
            module.set_gradient_divide_factor(1.0)
    losses = []
    for turn, index in enumerate([3 - rank, rank]):
        student.set_requires_gradient_sync(turn == 1)
        part = layout([index])
        loss, _ = student(part, score(teacher, part))
        loss.backward()
        losses.append(loss.item())
    found = gradients(student)
    torch.save((sum(losses), found), f"{folder}/rank{rank}.pt")
    destroy_process_group()


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
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-7, msg=name)


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
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7)


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
