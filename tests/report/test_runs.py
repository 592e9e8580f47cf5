"""Reading run folders, whole, partial and broken."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from resd.records import ResdError
from resd.report.curves import shared_boundaries
from resd.report.runs import batch_ends, load_run, load_runs, names, number, series, tags_by_update, total

MakeRun = Callable[..., Path]


def test_a_run_is_read(make_run: MakeRun) -> None:
    run = load_run(make_run(), "name")
    assert run.steps == 4
    assert series(run.updates, "actor/loss") == tuple((step, 1 / step) for step in range(1, 5))
    assert total(run.updates, "playbook/added") == 4.0
    assert batch_ends(run) == (2.5,)
    assert tags_by_update(run, "helpful") == ((1, 0.0), (2, 2.0), (3, 2.0), (4, 2.0))
    assert tags_by_update(run, "harmful") == ((1, 0.0), (2, 1.0), (3, 1.0), (4, 1.0))
    assert run.setting("stream.batch_size") == 2
    assert run.setting("stream.nothing.there") is None


def test_a_line_that_is_being_written_is_left_out(make_run: MakeRun) -> None:
    folder = make_run()
    for name in ("metrics.jsonl", "timing.jsonl", "playbook.jsonl"):
        with (folder / name).open("a") as file:
            file.write('{"kind": "update", "st')
    assert load_run(folder, "name").steps == 4


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("metrics.jsonl", "not json\n", "line 1: not valid JSON"),
        ("metrics.jsonl", '{"step": 1}\n', "line 1: has no kind and step"),
        ("metrics.jsonl", '{"kind": "update", "step": "x"}\n', "line 1: has no kind and step"),
        ("timing.jsonl", "[]\n", "not a JSON object"),
        ("playbook.jsonl", '{"op": "sing"}\n', "does not fit the playbook"),
        ("config.yaml", "a: [", "not valid YAML"),
        ("config.yaml", "- a", "is not a mapping"),
    ],
)
def test_damage_is_one_sentence(make_run: MakeRun, name: str, text: str, words: str) -> None:
    folder = make_run()
    (folder / name).write_text(text)
    with pytest.raises(ResdError, match=words) as error:
        load_run(folder, "name")
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_run_that_has_just_begun(make_run: MakeRun) -> None:
    folder = make_run()
    for name in ("metrics.jsonl", "timing.jsonl", "playbook.jsonl"):
        (folder / name).unlink()
    assert load_run(folder, "name").steps == 0


def test_what_is_no_run(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    (folder / "config.yaml").unlink()
    for path in (folder, tmp_path / "nothing"):
        with pytest.raises(ResdError, match="give the folder of a run"):
            load_run(path, "name")
    with pytest.raises(ResdError, match="no run was given"):
        load_runs([])


def test_names_are_short_and_distinct(make_run: MakeRun) -> None:
    assert names([Path("/a/x"), Path("/a/y")]) == ["x", "y"]
    assert names([Path("/a/x"), Path("/b/x"), Path("/b/y")]) == ["a/x", "b/x", "b/y"]
    folder = make_run()
    assert [run.name for run in load_runs([folder, folder / "../run"])] == ["run"]


def test_numbers() -> None:
    row = {"a": 1, "b": None, "c": True, "d": "1", "e": float("nan"), "f": 2.5}
    assert [number(row, key) for key in "abcdefg"] == [1.0, None, None, None, None, 2.5, None]


def test_boundaries_are_shown_only_where_runs_agree(make_run: MakeRun) -> None:
    long, short, other = make_run("long"), make_run("short", steps=2), make_run("other")
    rows = [json.loads(line) for line in (other / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row["batch"] = 0
    (other / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert shared_boundaries(load_runs([short, long])) == (2.5,)
    assert shared_boundaries(load_runs([long, other])) == ()
