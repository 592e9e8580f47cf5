"""Tokens, rollouts and seconds."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from resd.records import ResdError
from resd.report.facts import generated, short, training_time
from resd.report.runs import Run, load_run
from resd.report.spending import axes, is_estimated, spending, tokens_of

MakeRun = Callable[..., Path]


def edit(folder: Path, name: str, change: Callable[[dict[str, object]], dict[str, object]]) -> Run:
    path = folder / name
    rows = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_run(folder, "run")


def test_tokens_are_those_of_the_rows(make_run: MakeRun) -> None:
    run = load_run(make_run(), "run")
    first = spending(run)[1]
    assert (first.rollouts, first.tokens) == (2, {"rollout": 34.0, "reflect": 10.0, "curate": 5.0})
    assert not is_estimated([run])
    assert tokens_of(run, "curate") == ((1.0, 5.0), (2.0, 0.0), (3.0, 5.0), (4.0, 0.0))
    assert tokens_of(run, "tag") == ()
    assert generated(run) == "176"


def test_uncounted_tokens_are_guessed_from_characters(make_run: MakeRun) -> None:
    folder = make_run(steps=1)

    def bare(row: dict[str, object]) -> dict[str, object]:
        row.pop("tokens") if row["kind"] == "context" else None
        return row | ({"output": "o" * 30} if row["kind"] == "context" else {"response": "r" * 51})

    run = edit(folder, "rollouts/1.jsonl", bare)
    # Responses have 51 characters for 17 tokens: 30 characters are 10 tokens.
    assert spending(run)[1].tokens == pytest.approx({"rollout": 34, "reflect": 20, "curate": 10})
    assert is_estimated([run])
    assert generated(run) == "≈ 64"


def test_metrics_are_enough(make_run: MakeRun) -> None:
    folder = make_run()
    for path in (folder / "rollouts").iterdir():
        path.unlink()
    assert spending(load_run(folder, "run")) == {}
    tokens = {"tokens/rollout": 1920.0, "tokens/reflect": 80.0}
    run = edit(folder, "metrics.jsonl", lambda row: row | (tokens if row["kind"] == "update" else {}))
    assert (spending(run)[4].rollouts, generated(run)) == (32, "8.00k")


def test_axes_add_up(make_run: MakeRun) -> None:
    run = load_run(make_run(), "run")
    places = {axis.key: axis.place(run) for axis in axes([run])}
    assert places["updates"] == {step: step for step in range(5)}
    assert places["rollouts"] == {step: 2 * step for step in range(5)}
    assert places["tokens"] == {0: 0, 1: 49, 2: 88, 3: 137, 4: 176}
    assert places["time"] == {step: 6 * step for step in range(5)}


def test_the_table_has_the_time_of_the_axis(make_run: MakeRun) -> None:
    folder = make_run()
    evaluated = {"kind": "evaluation", "step": 4, "timing_s/evaluation": 1000.0}
    with (folder / "timing.jsonl").open("a") as file:
        file.write(json.dumps(evaluated) + "\n")
    run = load_run(folder, "run")
    assert training_time(run) == "24 s"
    assert axes([run])[-1].place(run)[4] == 24


def test_long_runs_are_told_in_hours(make_run: MakeRun) -> None:
    run = edit(make_run(), "timing.jsonl", lambda row: row | {"timing_s/step": 9000.0})
    time = axes([run])[-1]
    assert (time.unit, time.place(run)[4]) == ("hours of training", 10.0)


def test_rows_that_changed_are_read_again(make_run: MakeRun) -> None:
    folder = make_run()
    assert spending(load_run(folder, "run"))[2].tokens["rollout"] == 34
    run = edit(folder, "rollouts/2.jsonl", lambda row: row | {"tokens": 1000})
    assert spending(run)[2].tokens["rollout"] == 2000


def test_damage_is_one_sentence(make_run: MakeRun) -> None:
    run = edit(make_run(), "rollouts/2.jsonl", lambda row: row | {"tokens": "many"})
    with pytest.raises(ResdError, match=r"rollouts/2.jsonl does not hold what it should"):
        spending(run)


def test_short_numbers() -> None:
    assert [short(n) for n in (0, 950, 1234, 13_140, 131_400, 2_400_000, 7e9)] == [
        "0",
        "950",
        "1.23k",
        "13.1k",
        "131k",
        "2.40M",
        "7.00G",
    ]
