"""The three methods at work: when they stop, what they keep, and that everything begins anew."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import toy
from resd.config import RunConfig
from resd.context.seeding import derive_seed
from resd.records import Problem, Response, Verdict
from resd.solve import bench as bench_module
from resd.solve.bench import Bench, open_bench
from resd.solve.effort import METHODS, Effort
from resd.solve.methods import SelfDistill, make_method
from resd.solve.work import Round, attempt_rows, summarize, summary_row, work
from support import save_tiny

HOPELESS = Problem("test/\u00fc", ({"role": "user", "content": "Write it."},))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


def configure(model: Path, **changes: Any) -> RunConfig:
    return toy.toy_config(model, Path("unused"), **changes)


def open_toy(config: RunConfig, *, learns: bool = True) -> Bench:
    with toy.in_place():
        return open_bench(config, learns=learns)


@pytest.fixture(scope="module")
def learning(model: Path) -> Bench:
    return open_toy(configure(model))


def problem(letter: str) -> Problem:
    return next(p for p in toy.Letters().problems("train") if p.id[-1] == letter)


def trace(rounds: list[Round], effort: Effort, seed: int = 0) -> list[dict[str, Any]]:
    """All but the wall time."""
    rows = [row for made in rounds for row in attempt_rows(made, effort, seed)]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.mark.parametrize("method", METHODS)
def test_work_stops_at_the_first_full_reward(learning: Bench, method: Any) -> None:
    effort = Effort(method, budget=400)
    rounds = list(work(learning, effort, problem("t"), seed=0))
    rows = trace(rounds, effort)
    solved = [row["attempt"] for row in rows if row["reward"] == 1]
    result = summarize(rounds, effort, seed=0)
    assert solved
    assert result.first == solved[0]
    assert "t" in result.text
    assert rows[-1]["round"] == next(row["round"] for row in rows if row["reward"] == 1)
    assert [row["attempt"] for row in rows] == list(range(1, result.attempts + 1))
    assert result.attempts <= 400


@pytest.mark.parametrize(("method", "sizes"), [("best_of", [4, 4, 2]), ("multi_turn", [1] * 10)])
def test_the_budget_is_the_limit(learning: Bench, method: Any, sizes: list[int]) -> None:
    effort = Effort(method, budget=10, batch=None if method == "multi_turn" else 4)
    rounds = list(work(learning, effort, HOPELESS, seed=0))
    assert [len(made.attempts) for made in rounds] == sizes
    result = summarize(rounds, effort, seed=0)
    assert (result.first, result.solved, result.attempts, result.rounds) == (None, False, 10, len(sizes))
    assert result.best == 0.5, "any text passes one of the two tests"


SHOWN = {"style": "compact", "max_prompt_tokens": 2048, "student_playbook": True, "student_playbook_sync": 1}


@pytest.mark.parametrize(
    "changes",
    [{}, {"context": SHOWN}, {"algorithm": "sdpo"}, {"algorithm": "srpo"}],
    ids=["resd", "resd with the playbook in sight", "sdpo", "srpo"],
)
def test_one_problem_repeated_is_a_stream(
    model: Path, tmp_path: Path, changes: dict[str, Any], monkeypatch: Any
) -> None:
    """The weights are those of a training run whose stream has one batch, of one problem."""
    rounds, n = 3, 4
    config = toy.toy_config(
        model,
        tmp_path / "run",
        **changes,
        rollout={"n": n, "max_tokens": 8},
        stream={"batch_size": 1, "updates_per_batch": rounds, "max_updates": rounds},
    )

    class One(toy.Letters):
        def problems(self, split: str) -> list[Problem]:
            return [HOPELESS] if split == "train" else super().problems(split)

    monkeypatch.setattr(toy, "Letters", One)
    stream = toy.build_toy(config)
    stream.train()

    def as_stream(seed: int, _: str, name: str, number: int) -> int:
        return derive_seed(seed, "rollout", number // n + 1, name, number % n)

    monkeypatch.setattr(bench_module, "derive_seed", as_stream)
    bench = open_toy(config)
    effort = Effort(budget=n * (rounds + 1), batch=n)  # no update after the last round
    assert bench.learner is not None
    assert len(list(work(bench, effort, HOPELESS, seed=config.seed))) == rounds + 1
    assert bench.learner.version == stream.learner.version == rounds
    assert same(bench.learner.model, stream.learner.model)
    assert same(bench.learner.teacher.model, stream.learner.teacher.model)


def same(ours: Any, theirs: Any) -> bool:
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


CHANGES: list[dict[str, Any]] = [
    {},
    {"algorithm": "sdpo", "teacher": {"kind": "trust_region", "update_rate": 0.1}},
    {"algorithm": "sdpo", "teacher": {"kind": "live"}},
    {"context": {"style": "compact", "max_prompt_tokens": 2048, "author": "teacher"}},
    {"algorithm": "sdpo", "lora": {"rank": 2}},
]


@pytest.mark.parametrize("changes", CHANGES, ids=["resd", "trust region", "live", "teacher writes", "lora"])
def test_each_problem_begins_with_the_first_weights(model: Path, changes: dict[str, Any]) -> None:
    effort = Effort(budget=24, batch=8)
    other = dataclasses.replace(HOPELESS, id="test/\u00e4")
    bench = open_toy(configure(model, **changes))
    first = trace(list(work(bench, effort, HOPELESS, seed=0)), effort)
    trace(list(work(bench, effort, other, seed=1)), effort)
    assert trace(list(work(bench, effort, HOPELESS, seed=0)), effort) == first, "after another problem"
    fresh = open_toy(configure(model, **changes))
    assert trace(list(work(fresh, effort, HOPELESS, seed=0)), effort) == first, "in another process"
    frozen = trace(list(work(bench, Effort("best_of", 24, 8), HOPELESS, seed=0)), effort)
    texts, untrained = ([row["text"] for row in rows] for rows in (first, frozen))
    assert texts[:8] == untrained[:8]
    assert texts[8:] != untrained[8:], "the updates changed something"


def test_seeds_differ(learning: Bench) -> None:
    effort = Effort("best_of", 16)
    one, two = (trace(list(work(learning, effort, HOPELESS, seed)), effort) for seed in (0, 1))
    assert {row["text"] for row in one}.isdisjoint({row["text"] for row in two})


def test_samples_do_not_depend_on_the_size_of_rounds(learning: Bench) -> None:
    wide, narrow = Effort("best_of", 12, 12), Effort("best_of", 12, 5)
    texts = [
        [row["text"] for row in trace(list(work(learning, effort, HOPELESS, 0)), effort)]
        for effort in (wide, narrow)
    ]
    assert texts[0] == texts[1]


def test_the_schedule_is_over_the_budget(model: Path) -> None:
    optimizer = {"learning_rate": 0.01, "warmup_updates": 0, "schedule": "linear"}
    bench = open_toy(configure(model, algorithm="sdpo", optimizer=optimizer))
    assert bench.learner is not None
    rates = []
    for _ in work(bench, Effort(budget=10, batch=2), HOPELESS, seed=0):
        rates.append(bench.learner.optimizer.learning_rate())
    assert rates == pytest.approx([0.01, 0.0075, 0.005, 0.0025, 0.0])


class Recorder:
    """An engine that keeps what it is asked, and counts what it says."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.requests, self.tokens = engine, [], 0

    def submit(self, requests: Any) -> Iterator[Response]:
        self.requests += requests
        for response in self.engine.submit(requests):
            self.tokens += len(response.token_ids)
            yield response

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


def recorded(config: RunConfig, *, learns: bool) -> tuple[Bench, Recorder]:
    bench = open_toy(config, learns=learns)
    bench.engine.engine = recorder = Recorder(bench.engine.engine)
    return bench, recorder


@pytest.mark.parametrize("memory", ["feedback", "dialogue"])
def test_a_conversation_holds_what_was_said_of_earlier_attempts(model: Path, memory: Any) -> None:
    bench, recorder = recorded(configure(model), learns=False)
    rounds = list(work(bench, Effort("multi_turn", 4, memory=memory), HOPELESS, seed=0))
    asked = [bench.tokenizer.decode(list(r.prompt_ids), skip_special_tokens=False) for r in recorder.requests]
    answers = [made.attempts[0].response.text for made in rounds]
    assert [text.count("Passed 1 of 2 tests.") for text in asked] == [0, 1, 2, 3]
    shown = [all(answer.strip() in text for answer in answers[:3]) for text in asked]
    assert shown[3] == (memory == "dialogue")


def test_a_conversation_stays_within_the_limit(model: Path) -> None:
    context = {"style": "compact", "max_prompt_tokens": 120}
    bench, recorder = recorded(configure(model, context=context), learns=False)
    method = make_method(bench, Effort("multi_turn", 20, memory="dialogue"), HOPELESS, seed=0)
    for _ in range(8):
        method.learn(method.attempt(1))
    lengths = [len(request.prompt_ids) for request in recorder.requests]
    assert max(lengths) <= 120
    assert lengths[-1] > lengths[0], "some turns are shown"


def test_prompts_that_grow_leave_room_for_the_reply(model: Path) -> None:
    rollout = {"max_tokens": 4000}
    assert open_toy(configure(model, rollout=rollout), learns=False).prompt_tokens == 96, "of 4096 positions"


@pytest.mark.parametrize("author", ["student", "teacher"])
def test_tokens_count_reflections_too(model: Path, author: str) -> None:
    context = {"style": "compact", "max_prompt_tokens": 2048, "author": author}
    bench = open_toy(configure(model, context=context))
    engines = [metered for metered in (bench.engine, bench.author) if metered]
    assert len(engines) == (2 if author == "teacher" else 1)
    recorders = []
    for metered in engines:
        metered.engine = recorder = Recorder(metered.engine)
        recorders.append(recorder)
    effort = Effort(budget=12, batch=4)
    rounds = list(work(bench, effort, HOPELESS, seed=0))
    rows = trace(rounds, effort)
    generated = sum(recorder.tokens for recorder in recorders)
    assert rows[-1]["total_tokens"] == summarize(rounds, effort, 0).tokens == generated
    assert generated > sum(row["tokens"] for row in rows), "the toy's reflections are a token each"


def test_the_trace_has_all_of_an_attempt(learning: Bench) -> None:
    effort = Effort("best_of", 3, 2)
    rounds = list(work(learning, effort, HOPELESS, seed=5))
    rows = [row for made in rounds for row in attempt_rows(made, effort, 5)]
    assert [(row["attempt"], row["round"]) for row in rows] == [(1, 1), (2, 1), (3, 2)]
    row = rows[2]
    verdict: Verdict = rounds[1].attempts[0].verdict
    expected = {
        "kind": "attempt", "problem": HOPELESS.id, "method": "best_of", "seed": 5, "reward": 0.0,
        "passed": verdict.passed, "total": 2, "feedback": verdict.feedback,
        "text": rounds[1].attempts[0].response.text, "finish_reason": "length", "tokens": 8,
        "total_tokens": 24,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    summary = summary_row(summarize(rounds, effort, 5))
    assert summary["seconds"] == row["seconds"] >= 0
    expected = {"kind": "summary", "solved": False, "first": None, "attempts": 3, "rounds": 2, "tokens": 24}
    assert {name: summary[name] for name in expected} == expected


def test_self_distillation_learns_from_failures(learning: Bench) -> None:
    method = make_method(learning, Effort(budget=8, batch=4), HOPELESS, seed=0)
    assert isinstance(method, SelfDistill)
    assert learning.learner is not None
    before = [parameter.clone() for parameter in learning.learner.model.parameters()]
    method.learn(method.attempt(4))
    assert learning.learner.version == 1
    after = learning.learner.model.parameters()
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
