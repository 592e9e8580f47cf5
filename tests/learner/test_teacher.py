from typing import Any

import pytest
import torch

from resd.config import TeacherConfig
from resd.learner.layout import Layout, build_layout
from resd.learner.teacher import EMATeacher, LiveTeacher, Teacher, make_teacher
from resd.objectives.chunked import LogitTiles
from support import tiny_model


@pytest.fixture
def layout() -> Layout:
    return build_layout([(5, 6, 7), (9,)], [(8, 9), (10, 11, 12)], [0, 1])


def drift(model: Any, size: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn_like(parameter)


def logits(teacher: Teacher, layout: Layout) -> torch.Tensor:
    return LogitTiles(teacher.projections(layout))(slice(0, len(layout.targets))).clone()


def flat(model: Any) -> torch.Tensor:
    """The matrices. Gains near 1 have a coarser float32 grid than such a small update."""
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.ndim > 1]).double()


@pytest.mark.parametrize("rate", [1e-4, 0.05, 1.0])
def test_ema_moves_as_the_formula_says(rate: float) -> None:
    """80 updates of 1e-6 each against float64. A bfloat16 copy would not move at all at 1e-4."""
    torch.manual_seed(0)
    student = tiny_model()
    teacher = EMATeacher(student, rate)
    start = exact = flat(teacher.model)
    directions = [torch.randn_like(p).sign() for p in student.parameters()]
    for _ in range(80):
        with torch.no_grad():
            torch._foreach_add_(list(student.parameters()), directions, alpha=1e-6)
        teacher.update()
        exact = exact + rate * (flat(student) - exact)
    moved, expected = flat(teacher.model) - start, exact - start
    assert (moved - expected).norm() / expected.norm() < (0.01 if rate < 0.01 else 1e-4)


def test_ema_is_float32_beside_a_bfloat16_student() -> None:
    student = tiny_model().bfloat16()
    teacher = EMATeacher(student, 1e-4)
    start = flat(teacher.model)
    drift(student, 0.01)
    teacher.update()
    assert {p.dtype for p in teacher.model.parameters()} == {torch.float32}
    torch.testing.assert_close(
        flat(teacher.model) - start, 1e-4 * (flat(student) - start), atol=1e-8, rtol=0.02
    )


@pytest.mark.parametrize("kind", ["ema", "frozen", "live", "trust_region"])
def test_who_follows_the_student(kind: Any, layout: Layout) -> None:
    torch.manual_seed(0)
    student = tiny_model()
    teacher = make_teacher(TeacherConfig(kind=kind, update_rate=0.3), student)
    before = logits(LiveTeacher(student), layout)
    torch.testing.assert_close(logits(teacher, layout), before)
    drift(student, 0.05)
    teacher.update()
    after, scored = logits(LiveTeacher(student), layout), logits(teacher, layout)
    assert not any(part.hidden.requires_grad for part in teacher.projections(layout))
    assert scored.shape == (5, before.shape[-1])
    if kind == "ema":
        assert not torch.allclose(scored, before)
        assert not torch.allclose(scored, after)
    else:
        share = {"frozen": 0.0, "live": 1.0, "trust_region": 0.3}[kind]
        torch.testing.assert_close(scored, torch.lerp(before, after, share))


def test_rate_zero_is_frozen(layout: Layout) -> None:
    student = tiny_model()
    teacher = make_teacher(TeacherConfig(update_rate=0.0), student)
    before = logits(teacher, layout)
    drift(student, 0.1)
    teacher.update()
    assert torch.equal(logits(teacher, layout), before)


@pytest.mark.parametrize("kind", ["ema", "frozen", "live", "trust_region"])
def test_state_survives(kind: Any, layout: Layout) -> None:
    student = tiny_model()
    teacher = make_teacher(TeacherConfig(kind=kind, update_rate=0.5), student)
    drift(student, 0.05)
    teacher.update()
    resumed: Teacher = make_teacher(TeacherConfig(kind=kind, update_rate=0.5), student)
    resumed.load_state_dict(teacher.state_dict())
    assert torch.equal(logits(resumed, layout), logits(teacher, layout))
