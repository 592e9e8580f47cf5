"""Tensors that come and go: the run of one that never moved anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from learner.steps import DISTILLATION, SRPO, build, config, examples
from resd.config import LoRAConfig, RunConfig, TeacherConfig
from resd.learner.offload import Offload
from resd.objectives.objective import Objective


def offloaded(run: RunConfig) -> RunConfig:
    return run.model_copy(update={"optimizer": run.optimizer.model_copy(update={"offload": True})})


def held(tensors: Any) -> int:
    """Bytes of their storages."""
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def test_views_of_one_storage_come_back_as_they_were() -> None:
    whole = torch.arange(12.0)
    parts = [whole[:5], whole[3:].view(3, 3), torch.empty(0)]
    offload = Offload(lambda: parts)
    offload.park()
    assert held(parts) == 0
    with offload.home():
        assert torch.equal(whole, torch.arange(12.0))
        parts[1] += 1
    assert held(parts) == 0
    offload.fetch()
    assert torch.equal(whole, torch.arange(12.0) + (torch.arange(12) >= 3))


@pytest.mark.parametrize("kind", ["ema", "frozen", "live", "trust_region"])
@pytest.mark.parametrize("objective", [DISTILLATION, SRPO])
def test_no_number_changes(kind: Any, objective: Objective) -> None:
    run = config().model_copy(update={"teacher": TeacherConfig(kind=kind, update_rate=0.1)})
    ours, theirs = build(offloaded(run)), build(run)
    for seed in range(3):
        assert ours.update(examples(seed=seed), objective) == theirs.update(examples(seed=seed), objective)
    pairs = [(one.teacher_prompt_ids or (5,), one.response_ids) for one in examples() if one.response_ids]
    assert ours.score(pairs) == theirs.score(pairs)
    for (name, one), (_, other) in zip(ours.weights(), theirs.weights(), strict=True):
        assert torch.equal(one, other), name


def test_nothing_is_held_between_updates_and_the_student_always_is() -> None:
    learner = build(offloaded(config()))
    learner.update(examples(), DISTILLATION)
    moments = [t for state in learner.optimizer.adamw.state.values() for t in state.values() if t.dim()]
    assert len(moments) > 10
    assert held(moments) == held(learner.teacher.model.parameters()) == 0
    assert held(learner.model.parameters()) > 0


def test_scores_leave_the_moments_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are asked for while an engine is awake, which has the rest of the GPU."""
    learner = build(offloaded(config()))
    learner.update(examples(), DISTILLATION)
    moments = [t for state in learner.optimizer.adamw.state.values() for t in state.values() if t.dim()]
    seen, teach = [], learner._teach

    def watched(work: Any) -> Any:
        seen.append((held(moments), held(learner.teacher.model.parameters()) > 0))
        return teach(work)

    monkeypatch.setattr(learner, "_teach", watched)
    learner.score([((5, 6), (7, 1))])
    learner.divergences(examples(), DISTILLATION)
    assert len(seen) > 1
    assert set(seen) == {(0, True)}


def test_adapters_leave_the_weights_that_they_share() -> None:
    learner = build(offloaded(config(lora=LoRAConfig(rank=4))))
    learner.update(examples(), DISTILLATION)
    assert all(p.untyped_storage().nbytes() for p in learner.model.parameters())
    assert sum(not p.untyped_storage().nbytes() for p in learner.teacher.model.parameters()) > 10


def test_a_saved_state_is_whole_and_goes_on() -> None:
    first, second = build(offloaded(config())), build(config())
    for learner in (first, second):
        learner.update(examples(), DISTILLATION)
    third = build(offloaded(config()), seed=1)
    third.load_state_dict(first.state_dict())
    third.model.load_state_dict(first.model_state())
    for learner in (second, third):
        learner.update(examples(seed=1), DISTILLATION)
    for (name, one), (_, other) in zip(third.weights(), second.weights(), strict=True):
        assert torch.equal(one, other), name


def test_what_a_file_backs_stays(tmp_path: Path) -> None:
    torch.save(torch.arange(4.0), tmp_path / "tensor.pt")
    tensor = torch.load(tmp_path / "tensor.pt", mmap=True)
    offload = Offload(lambda: [tensor])
    with offload.home():
        pass
    assert torch.equal(tensor, torch.arange(4.0))
