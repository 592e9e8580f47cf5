"""Divergences kept token by token: those of the loss, beside the response that they are of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import toy
from learner.steps import DISTILLATION, POLICY, build, config, examples, sequence_logits
from resd.config import DistillationConfig
from resd.objectives.objective import Objective
from resd.training import journal
from support import SPECIAL, save_tiny


def test_their_mean_is_that_of_the_loss() -> None:
    learner, batch = build(config(40)), examples()
    taught = [one for one in batch if one.teacher_prompt_ids and one.response_ids]
    values = learner.divergences(batch, DISTILLATION)
    assert [len(row) for row in values] == [
        len(one.response_ids) if one.teacher_prompt_ids else 0 for one in batch
    ]
    flat = torch.tensor([value for row in values for value in row])
    before = [tensor.clone() for _, tensor in learner.weights()]
    assert all(torch.equal(tensor, old) for (_, tensor), old in zip(learner.weights(), before, strict=True))
    metrics = learner.update(batch, DISTILLATION)
    assert metrics["self_distillation/teacher_student_gap"] == pytest.approx(float(flat.mean()), rel=1e-5)
    assert len(flat) == sum(len(one.response_ids) for one in taught)
    assert learner.divergences(batch, POLICY) == [[]] * len(batch)


def test_of_sampled_tokens_they_are_the_gaps_between_log_probs() -> None:
    """Not the loss, whose value means nothing: by plain forwards of student and teacher."""
    learner, batch = build(config(40)), examples()
    with torch.no_grad():
        for parameter in learner.teacher.model.parameters():
            parameter *= 1.1
    objective = Objective(distillation=DistillationConfig(token_level=True))
    for one, values in zip(batch, learner.divergences(batch, objective), strict=True):
        if one.teacher_prompt_ids and one.response_ids:
            sides = ((learner.model, one.prompt_ids), (learner.teacher.model, one.teacher_prompt_ids))
            ours, theirs = (
                sequence_logits(model, prompt, one.response_ids)
                .log_softmax(-1)
                .gather(-1, torch.tensor(one.response_ids)[:, None])[:, 0]
                for model, prompt in sides
            )
            torch.testing.assert_close(torch.tensor(values), (ours - theirs).detach(), atol=1e-4, rtol=1e-4)


def test_a_run_keeps_a_few_and_a_resumed_one_the_same(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model")
    runs = {}
    for name, kept in (("with", 2), ("without", 0)):
        run = toy.toy_config(model, tmp_path / name, logging={"token_losses": kept})
        toy.build_toy(run).train()
        runs[name] = journal.read(tmp_path / name / journal.METRICS)
    assert runs["with"] == runs["without"], "looking changes nothing"
    files = sorted((tmp_path / "with" / journal.TOKENS).iterdir())
    assert [file.name for file in files] == [f"{step}.jsonl" for step in range(1, 7)]
    for row in journal.read(files[0]):
        assert len(row["tokens"]) == len(row["divergence"]) > 0
        assert "".join(piece for piece in row["tokens"] if piece not in SPECIAL) == row["text"]
    assert not (tmp_path / "without" / journal.TOKENS).exists()
    journal.cut_back(tmp_path / "with", {}, 4)
    assert [file.stem for file in sorted((tmp_path / "with" / journal.TOKENS).iterdir())] == [
        "1",
        "2",
        "3",
        "4",
    ]
