"""The teacher's log-probabilities of whole responses, against one plain forward each."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from learner.kernels import kernels_by_hand
from learner.steps import build, config
from resd.config import LoRAConfig, TeacherConfig

RANDOM = random.Random(5)
PAIRS = [
    (tuple(RANDOM.choices(range(5, 100), k=prompt)), tuple(RANDOM.choices(range(5, 100), k=reply)))
    for prompt, reply in ((12, 7), (3, 20), (30, 1), (12, 4), (1, 9))
]


def by_hand(model: Any, temperature: float) -> list[float]:
    sums = []
    for prompt, reply in PAIRS:
        logits = model(input_ids=torch.tensor([[*prompt, *reply]])).logits[0, len(prompt) - 1 : -1].double()
        logprobs = torch.log_softmax(logits / temperature, -1)
        sums.append(float(logprobs.gather(-1, torch.tensor(reply)[:, None]).sum()))
    return sums


@pytest.mark.parametrize("tokens", [1, 40, 10_000])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_teacher_that_stays_behind(tokens: int, temperature: float) -> None:
    learner = build(config(tokens, temperature).model_copy(update={"teacher": TeacherConfig(kind="frozen")}))
    with torch.no_grad():
        next(learner.model.parameters()).mul_(1.5)
        expected = by_hand(learner.teacher.model, temperature)
        assert expected != pytest.approx(by_hand(learner.model, temperature), rel=1e-3)
    assert learner.score(PAIRS) == pytest.approx(expected, rel=1e-5)


def test_packed_behind_a_shared_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels_by_hand(monkeypatch)
    run = config(10_000)
    optimizer = run.optimizer.model_copy(update={"packing": True})
    beginning = tuple(RANDOM.choices(range(5, 100), k=50))
    pairs = [((*beginning, *prompt), reply) for prompt, reply in PAIRS]
    whole = build(run, dtype=torch.float64).score(pairs)
    packed = build(run.model_copy(update={"optimizer": optimizer}), dtype=torch.float64)
    assert packed.packed
    assert packed.score(pairs) == pytest.approx(whole, rel=1e-6)


def test_nothing_to_score() -> None:
    assert build(config()).score([]) == []


def test_a_teacher_of_adapters() -> None:
    learner = build(config(lora=LoRAConfig(rank=4)))
    with torch.no_grad():
        assert learner.score(PAIRS) == pytest.approx(by_hand(learner.model, 1.0), rel=1e-5)
    before = learner.score(PAIRS)
    assert before == learner.score(PAIRS)
