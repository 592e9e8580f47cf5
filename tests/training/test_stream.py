"""The loop: what happens in which order, what is written, and what each algorithm makes of it."""

import json
from math import isfinite
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import toy
from resd.algorithms.make import make_algorithm
from resd.config import RunConfig
from resd.learner.model import load_tokenizer
from resd.records import Attempt, ResdError, Response, Verdict
from resd.training import journal
from resd.training.console import Lines, LiveTable, columns, summary_table
from resd.training.plan import make_plan
from resd.training.setup import make_context
from resd.training.stream import Stream
from support import save_tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def trained(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Stream:
    stream = toy.build_toy(toy.toy_config(model, tmp_path_factory.mktemp("runs") / "resd"))
    stream.train()
    return stream


def rows(stream: Stream, kind: str) -> list[dict[str, Any]]:
    return [row for row in journal.read(stream.folder / "metrics.jsonl") if row["kind"] == kind]


def attempts_of(stream: Stream, step: int) -> list[dict[str, Any]]:
    return [row for row in journal.read(stream.folder / f"rollouts/{step}.jsonl") if row["kind"] == "attempt"]


def test_updates_evaluations_and_their_places(trained: Stream) -> None:
    all_rows = journal.read(trained.folder / "metrics.jsonl")
    assert [(row["kind"], row["step"]) for row in all_rows] == [
        ("evaluation", 0), ("update", 1), ("update", 2), ("evaluation", 2), ("update", 3), ("update", 4),
        ("evaluation", 4), ("update", 5), ("update", 6), ("evaluation", 6),
    ]  # fmt: skip
    places = [(row["batch"], row["round"]) for row in rows(trained, "update")]
    assert places == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]


def test_each_problem_is_in_one_batch(trained: Stream) -> None:
    seen = [sorted({row["problem"] for row in attempts_of(trained, step)}) for step in range(1, 7)]
    assert seen[0::2] == seen[1::2]
    assert seen[0::2] == [["train/e", "train/t"], ["train/a", "train/o"], ["train/i", "train/n"]]


def test_rollouts_differ_between_rounds_and_samples(trained: Stream) -> None:
    texts = [row["response"] for step in (1, 2) for row in attempts_of(trained, step)]
    assert len(set(texts)) == len(texts)


def test_metrics_of_a_step_do_not_survive(trained: Stream) -> None:
    updates = rows(trained, "update")
    assert ["training/improved_fraction" in row for row in updates] == [False, True] * 3


@pytest.mark.parametrize(
    "name",
    [
        "training/step", "training/batch", "training/round", "train/reward/mean", "train/test_cases/mean",
        "critic/score/mean", "response_length/mean", "response_length/max", "playbook/total_bullets",
        "self_distillation/reprompt_sample_fraction", "self_distillation/sr_weight_max",
        "actor/loss", "actor/lr",
    ],
)  # fmt: skip
def test_names(trained: Stream, name: str) -> None:
    assert all(isinstance(row[name], float) for row in rows(trained, "update"))


def test_the_schedule_is_over_the_planned_updates(model: Path, tmp_path: Path) -> None:
    optimizer = {"learning_rate": 0.01, "warmup_updates": 2, "schedule": "linear"}
    config = toy.toy_config(model, tmp_path / "run", optimizer=optimizer)
    short = config.model_copy(update={"stream": config.stream.model_copy(update={"max_updates": 4})})
    stream = toy.build_toy(short)
    stream.train()
    resumed = toy.build_toy(config, resume=True)
    resumed.train()
    rates = [row["actor/lr"] for row in rows(resumed, "update")]
    assert rates == pytest.approx([0.005, 0.01, 0.01, 0.005, 0.005, 0.0025]), "4 updates, then the end of 6"


def test_wall_times_are_kept_apart(trained: Stream) -> None:
    assert "timing_s" not in (trained.folder / "metrics.jsonl").read_text()
    update = journal.read(trained.folder / "timing.jsonl")[1]
    for name in ("generate", "grade", "context", "update", "step"):
        assert 0 <= update[f"timing_s/{name}"] <= update["timing_s/step"]


def test_the_playbook_of_a_step_is_in_its_teacher_prompts(trained: Stream) -> None:
    failures = [row for row in attempts_of(trained, 1) if row["reward"] == 0]
    assert failures
    for row in failures:
        assert {"playbook", "trial", "feedback", "reflection"} <= set(row["teacher_sections"])
        assert "Lesson" in row["teacher_prompt"]


def test_the_plan_counts_what_happens(trained: Stream) -> None:
    plan = make_plan(trained.config, problems=7, held_out=3)
    assert (plan.batches, plan.dropped, plan.updates) == (3, 1, len(rows(trained, "update")))
    assert plan.rollouts == sum(len(attempts_of(trained, step)) for step in range(1, 7))
    assert plan.evaluations == len(rows(trained, "evaluation"))
    assert plan.evaluation_samples == len(journal.read(trained.folder / "evaluations/6.jsonl"))


def run(model: Path, output: Path, **changes: Any) -> Stream:
    stream = toy.build_toy(toy.toy_config(model, output, **changes))
    stream.train()
    return stream


def test_sdpo_has_no_playbook_and_no_reflections(model: Path, tmp_path: Path) -> None:
    stream = run(model, tmp_path / "run", algorithm="sdpo")
    assert not (stream.folder / "playbook.jsonl").exists()
    for step in range(1, 7):
        for row in attempts_of(stream, step):
            assert not {"playbook", "reflection"} & set(row["teacher_sections"])
            assert row["weight"] == 1


def test_grpo_has_advantages_and_no_teacher(model: Path, tmp_path: Path) -> None:
    stream = run(model, tmp_path / "run", algorithm="grpo", rollout={"n": 8, "max_tokens": 8})
    found = [row for step in range(1, 7) for row in attempts_of(stream, step)]
    assert any(row["advantage"] for row in found)
    assert all(row["teacher_prompt"] is None for row in found)


def test_srpo_distils_failures_and_compares_the_rest(model: Path, tmp_path: Path) -> None:
    stream = run(model, tmp_path / "run", algorithm="srpo", rollout={"n": 8, "max_tokens": 8})
    assert stream.context is None
    found = [row for step in range(1, 7) for row in attempts_of(stream, step)]
    failures = [row for row in found if row["reward"] == 0]
    assert all(row["teacher_prompt"] and row["advantage"] == 0 for row in failures)
    assert not any({"playbook", "reflection"} & set(row["teacher_sections"]) for row in failures)
    successes = [row for row in found if row["reward"] == 1]
    assert any(row["advantage"] > 0 for row in successes)
    assert all(row["teacher_prompt"] is None for row in successes)
    assert_learns(stream)


def test_rlsd_has_advantages_and_a_teacher(model: Path, tmp_path: Path) -> None:
    stream = run(model, tmp_path / "run", algorithm="rlsd", rollout={"n": 8, "max_tokens": 8})
    assert stream.context is None
    found = [row for step in range(1, 7) for row in attempts_of(stream, step)]
    for reward, sign in ((0, -1), (1, 1)):
        both = [
            row for row in found if row["reward"] == reward and row["teacher_prompt"] and row["advantage"]
        ]
        assert both
        assert all(row["advantage"] * sign > 0 for row in both)
    assert_learns(stream)


def assert_learns(stream: Stream) -> None:
    """With a teacher of its own, which follows as `teacher.update_rate` says."""
    updates = rows(stream, "update")
    assert all(isfinite(row["actor/loss"]) for row in updates)
    assert any(row["actor/grad_norm"] > 0 and not row["actor/skipped"] for row in updates)
    student, teacher = stream.learner.model, stream.learner.teacher.model
    assert student is not teacher
    pairs = zip(student.parameters(), teacher.parameters(), strict=True)
    assert not all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_sequence_level_weights_and_constant_lengths_run(model: Path, tmp_path: Path) -> None:
    stream = run(
        model,
        tmp_path / "run",
        algorithm="grpo",
        rollout={"n": 8, "max_tokens": 8},
        stream={"batch_size": 2, "max_updates": 2},
        policy={"is_level": "sequence"},
        loss_aggregation="seq_mean_token_sum_norm",
    )
    assert all(isfinite(row["actor/loss"]) for row in rows(stream, "update"))


@pytest.mark.parametrize("algorithm", ["sdpo", "srpo", "rlsd"])
def test_the_plan_has_context_for_resd_alone(model: Path, tmp_path: Path, algorithm: str) -> None:
    plan = make_plan(toy.toy_config(model, tmp_path / "run", algorithm=algorithm), problems=7, held_out=3)
    assert plan.context_tokens == 0
    assert make_plan(toy.toy_config(model, tmp_path / "run"), problems=7, held_out=3).context_tokens > 0


def test_max_updates_stops_within_a_batch_and_resumes(model: Path, tmp_path: Path) -> None:
    def config(max_updates: int | None) -> RunConfig:
        section = {"batch_size": 2, "updates_per_batch": 2, "max_updates": max_updates}
        return toy.toy_config(model, tmp_path / "run", stream=section, logging={"rollouts": False})

    stream = toy.build_toy(config(3))
    stream.train()
    assert (stream.progress.step, stream.progress.batch, stream.progress.round) == (3, 1, 1)
    resumed = toy.build_toy(config(None), resume=True)
    resumed.train()
    assert [row["step"] for row in rows(resumed, "update")] == [1, 2, 3, 4, 5, 6]
    assert not (resumed.folder / "rollouts").exists()


def test_no_updates_is_an_evaluation(model: Path, tmp_path: Path) -> None:
    section = {"batch_size": 2, "max_updates": 0}
    stream = run(model, tmp_path / "run", stream=section)
    assert [row["step"] for row in rows(stream, "evaluation")] == [0]


def test_events_in_order(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = toy.build_toy(toy.toy_config(model, tmp_path / "run"))
    events: list[str] = []

    def spy(owner: Any, name: str) -> None:
        call = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: (events.append(name), call(*a, **k))[1])

    assert stream.context is not None
    spy(stream.engine, "submit")
    spy(stream.context, "update")
    spy(stream.learner, "update")
    spy(stream.engine, "load_weights")
    stream.update(stream.batches[0])
    words = [event for event in events if event != "submit"]
    assert events[0] == "submit"
    assert words == ["update", "update", "load_weights"]  # context, learner, engine
    assert events[-2:] == ["update", "load_weights"]


def test_what_a_person_sees(trained: Stream) -> None:
    from rich.console import Console

    from resd.training.sinks import Record

    records = [
        Record("evaluation", 0, {"val/toy/reward/mean@2": 0.25, "val/toy/reward/best@2_bootstrap": 0.3}),
        Record("update", 1, rows(trained, "update")[0], {"timing_s/step": 1.0}, batch=0, round=0),
    ]
    for kind in (Lines, LiveTable):
        console = Console(record=True, width=120, force_terminal=kind is LiveTable)
        sink = kind(console, updates=6)
        for record in records:
            sink.write(record)
        sink.close()
        text = console.export_text()
        assert "held out after 0  reward 0.250" in text
        assert "bootstrap" not in text
        assert "1/6" in text
    console = Console(record=True, width=120)
    console.print(summary_table(trained.folder))
    assert "letters: reward, best of 2" in console.export_text()


def test_a_narrow_terminal_has_fewer_columns() -> None:
    row = {"update": "1/6", "loss": "0.0482", "solved": "0.125", "tokens": "64", "tests": ""}
    assert columns(row, 80) == ["update", "loss", "solved", "tokens"]
    assert columns(row, 26) == ["update", "loss", "solved"]
    assert columns(row, 1) == ["update", "solved"]


def test_checkpoint_state_is_plain_json(trained: Stream) -> None:
    state = json.loads((trained.folder / "checkpoints/6/state/state.json").read_text())
    assert set(state) == {"progress", "context", "journals"}


def test_prompts_leave_room_for_replies(model: Path, tmp_path: Path) -> None:
    words = {"style": "compact", "max_prompt_tokens": 8192, "max_reflection_tokens": 3900}
    stream = {"batch_size": 2, "max_updates": 1}
    run = toy.build_toy(toy.toy_config(model, tmp_path / "run", context=words, stream=stream))
    assert run.context is not None
    assert run.context.config.max_prompt_tokens == 196, "of the model's 4096 positions"
    run.context.playbook_for("").add("others", "A long lesson: " + "abcdefghij" * 400)
    run.train()
    too_long = words | {"max_reflection_tokens": 4096}
    with pytest.raises(ResdError, match="4096 positions"):
        toy.build_toy(toy.toy_config(model, tmp_path / "none", context=too_long))


@pytest.mark.parametrize("algorithm", ["resd", "sdpo"])
def test_teacher_prompts_leave_room_for_responses(model: Path, tmp_path: Path, algorithm: str) -> None:
    """A response of 3,996 tokens leaves 100 of the model's 4,096 positions, however much there is to show."""
    config = toy.toy_config(
        model,
        tmp_path / "run",
        algorithm=algorithm,
        context={"style": "compact", "max_prompt_tokens": 8192, "use_trial": True},
        rollout={"n": 1, "max_tokens": 3996},
    )
    run = toy.build_toy(config)
    problem = run.environment.problems("train")[0]
    response = Response("", "word " * 3000, (7,) * 3996, (0.0,) * 3996, "length")
    attempt = Attempt(problem, 0, (5,), response, Verdict(0.0, 0, 2, "Passed 0 of 2 tests."))
    update = run.context.update([attempt], 1) if run.context else None
    (prompt,) = run.algorithm.teacher_prompts([attempt], update)
    assert prompt is not None
    assert 90 < len(prompt.ids) <= 100
    assert "trial" in prompt.dropped
    with pytest.raises(ResdError, match="responses of 4096 do not fit into 4096 positions"):
        toy.build_toy(toy.toy_config(model, tmp_path / "none", rollout={"n": 1, "max_tokens": 4096}))


@pytest.mark.parametrize(
    ("algorithm", "without_peer", "with_peer"),
    [
        ("resd", {"trial", "feedback"}, {"trial", "feedback", "solution"}),
        ("sdpo", {"feedback"}, {"solution"}),
        ("srpo", {"feedback"}, {"solution"}),
        ("rlsd", {"feedback"}, {"solution"}),
    ],
)
def test_what_teachers_are_shown_unless_told_otherwise(
    model: Path, tmp_path: Path, algorithm: str, without_peer: set[str], with_peer: set[str]
) -> None:
    """As published: SDPO's teacher sees no attempt, and feedback for want of a solution."""
    nobody = SimpleNamespace(submit=lambda requests: iter(()))

    def shown(switches: dict[str, Any], peers: int) -> set[str]:
        context = {"style": "compact", "use_reflection": False, "use_playbook": False, **switches}
        config = toy.toy_config(model, tmp_path / "run", algorithm=algorithm, context=context)
        tokenizer = load_tokenizer(config.model)
        updater = make_context(config, toy.ScriptedWords(nobody), tokenizer, None)
        attempts = [
            Attempt(problem, i, (5,), Response("", "word", (7,), (0.0,), "stop"), verdict)
            for i, verdict in enumerate([Verdict(0.0, 0, 2, "Wrong.")] + [Verdict(1.0, 2, 2, "")] * peers)
        ]
        context_update = updater.update(attempts, 1) if updater else None
        prompt = make_algorithm(config, tokenizer, updater).teacher_prompts(attempts, context_update)[0]
        return set(prompt.sections) - {"problem"} if prompt else set()

    problem = toy.Letters().problems("train")[0]
    assert shown({}, peers=0) == without_peer
    assert shown({}, peers=1) == with_peer
    told = {"use_trial": True, "drop_feedback_with_solution": False}
    assert shown(told, peers=1) == {"trial", "feedback", "solution"}
    assert shown({"use_trial": False, "drop_feedback_with_solution": True}, peers=1) == {"solution"}


@pytest.mark.parametrize("algorithm", ["resd", "sdpo", "rlsd", "grpo"])
def test_attempts_that_teach_nothing_are_told_once(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, algorithm: str
) -> None:
    """The question has room, and nothing beside it."""
    context = {"style": "compact", "max_prompt_tokens": 2048}
    roomy = toy.build_toy(toy.toy_config(model, tmp_path / "roomy", algorithm=algorithm, context=context))
    roomy.update(roomy.batches[0])
    assert not caplog.messages
    narrow = {"context": context | {"max_prompt_tokens": 36}, "algorithm": algorithm}
    stream = toy.build_toy(toy.toy_config(model, tmp_path / "narrow", **narrow))
    for _ in range(2):
        stream.update(stream.batches[0])
    if algorithm == "grpo":
        assert not caplog.messages
    else:
        (message,) = caplog.messages
        failed = sum(bool(row["feedback"]) for row in attempts_of(stream, 1)) / 4
        assert f"update 1: {failed:.0%}".replace("%", " % of attempts have no teacher prompt") in message
