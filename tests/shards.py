"""A student over one batch, whole or sharded over two processes. Here and not in a test: processes that are
spawned import it by name."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

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
