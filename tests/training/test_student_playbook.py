"""Rollouts that are shown the playbook: who sees it, who does not, and that it is resumed."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import toy
from resd.records import Request, ResdError, Response
from resd.training import journal, setup
from resd.training.lengths import fit_prompts
from resd.training.stream import Stream
from support import save_tiny

CONTEXT = {
    "style": "compact",
    "max_prompt_tokens": 2048,
    "student_playbook": True,
    "student_playbook_sync": 1,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


def build(model: Path, output: Path, *, resume: bool = False, mode: str = "global", **changes: Any) -> Stream:
    config = toy.toy_config(model, output, context={**CONTEXT, "mode": mode}, **changes)
    return toy.build_toy(config, resume=resume)


def watch(stream: Stream) -> dict[str, list[str]]:
    """The prompts of all requests to come: of training rollouts, evaluations, and the context's roles."""
    seen: dict[str, list[str]] = {"train": [], "test": [], "context": []}
    submit = stream.engine.submit

    def watched(requests: Sequence[Request]) -> Iterator[Response]:
        for request in requests:
            kind = "context" if request.schema else request.id.split("/")[0]
            seen[kind].append(stream.tokenizer.decode(list(request.prompt_ids)))
        return submit(requests)

    stream.engine.submit = watched  # type: ignore[method-assign]
    return seen


@pytest.mark.parametrize("mode", ["global", "per_example"])
def test_training_rollouts_alone_see_it(model: Path, tmp_path: Path, mode: str) -> None:
    stream = build(model, tmp_path / "run", mode=mode)
    seen = watch(stream)
    stream.train()
    shown = ["Playbook:" in prompt for prompt in seen["train"]]
    batch = [False] * 4 + [True] * 4  # 2 problems, 2 samples: before the first snapshot and after it
    assert shown == (batch * 3 if mode == "per_example" else batch + [True] * 16)
    assert not any("Playbook:" in prompt for prompt in seen["test"])
    assert all(prompt.count("Playbook:") <= 1 for prompt in seen["context"])
    assert not any("Solve the task." in prompt for prompt in seen["context"])


def test_stopped_and_resumed_is_never_stopped(model: Path, tmp_path: Path) -> None:
    build(model, tmp_path / "whole").train()
    short = {"batch_size": 2, "updates_per_batch": 2, "max_updates": 3}
    build(model, tmp_path / "run", stream=short).train()
    build(model, tmp_path / "run", resume=True).train()
    for name in ("rollouts/4.jsonl", "rollouts/6.jsonl", "playbook.jsonl", "checkpoints/6/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_prompts_leave_room_for_the_rollout(model: Path, tmp_path: Path) -> None:
    stream = build(model, tmp_path / "run")
    positions = stream.learner.model.config.max_position_embeddings
    budgets = []
    for shown in (False, True):
        config = toy.toy_config(
            model,
            tmp_path / "other",
            context={**CONTEXT, "max_prompt_tokens": positions, "student_playbook": shown},
            rollout={"n": 2, "max_tokens": positions - 100},
        )
        budgets.append(fit_prompts(config, stream.learner.model).context.max_prompt_tokens)
    assert budgets == [positions - 1024, 100]
    too_long = config.model_copy(
        update={"rollout": config.rollout.model_copy(update={"max_tokens": positions})}
    )
    with pytest.raises(ResdError, match=r"and rollout\.max_tokens"):
        fit_prompts(too_long, stream.learner.model)


def test_held_out_prompts_show_it_as_it_is(model: Path, tmp_path: Path) -> None:
    evaluation = {"samples": 2, "playbook": True}
    stream = build(model, tmp_path / "run", algorithm="ace", evaluation=evaluation)
    before = {name: tensor.clone() for name, tensor in stream.learner.weights()}
    seen = watch(stream)
    stream.train()
    assert all(torch.equal(tensor, before[name]) for name, tensor in stream.learner.weights())
    first, last = seen["test"][:6], seen["test"][-6:]
    assert not any("Playbook:" in prompt for prompt in first), "there is none yet"
    assert stream.context is not None
    lessons = [entry.content for entry in stream.context.taught("")]
    assert lessons
    assert all(lesson in prompt for lesson in lessons for prompt in last)
    assert "Playbook:" in seen["train"][-1]


def test_an_evaluation_takes_the_playbook_of_its_checkpoint(model: Path, tmp_path: Path) -> None:
    changes = {"algorithm": "ace", "evaluation": {"samples": 2, "playbook": True}}
    stream = build(model, tmp_path / "run", **changes)
    stream.train()
    config = stream.config.model_copy(update={"model": str(tmp_path / "run/checkpoints/6")})
    with toy.in_place():
        again = setup.evaluate_model(config)
        last = journal.read(tmp_path / "run" / journal.METRICS)[-1]
        assert again.metrics == {name: last[name] for name in again.metrics}
        with pytest.raises(ResdError, match="has no playbook"):
            setup.evaluate_model(stream.config)


def test_an_evaluation_withholds_what_its_run_does(model: Path, tmp_path: Path) -> None:
    """No entry of so short a run is proven: it shows none, and neither does the evaluation."""
    context = {"style": "compact", "max_prompt_tokens": 2048, "credit": "measured", "probation": "withheld"}
    changes = {"algorithm": "ace", "evaluation": {"samples": 2, "playbook": True}, "context": context}
    stream = toy.build_toy(toy.toy_config(model, tmp_path / "run", **changes))
    stream.train()
    assert stream.context is not None
    assert stream.context.playbook_for("").entries
    config = stream.config.model_copy(update={"model": str(tmp_path / "run/checkpoints/6")})
    with toy.in_place():
        again = setup.evaluate_model(config)
    last = journal.read(tmp_path / "run" / journal.METRICS)[-1]
    assert again.metrics == {name: last[name] for name in again.metrics}
    samples = journal.read(tmp_path / "run" / journal.EVALUATIONS / "6.jsonl")
    assert [row["text"] for row in samples] == [a.response.text for a in again.attempts]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"algorithm": "ace", "context": {"style": "compact"}}, "the student never sees it"),
        ({"algorithm": "sdpo", "evaluation": {"playbook": True}}, "needs algorithm resd or ace"),
    ],
)
def test_a_playbook_that_nobody_has_or_sees(
    model: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ResdError, match=words):
        toy.toy_config(model, tmp_path / "run", **changes)
