"""Rows of files and folders, split by split."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from resd.environments.rows import data_home, load_rows, read_rows
from resd.records import ResdError

ROWS = [{"q": 1, "text": "a\u2028b"}, {"q": 2, "text": "c"}]


def lines(file: Path, rows: list[dict[str, object]] = ROWS) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def test_three_formats_hold_the_same_rows(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    (tmp_path / "b.json").write_text(json.dumps(ROWS))
    for file in (
        tmp_path / "a.parquet",
        tmp_path / "b.json",
        lines(tmp_path / "c.json"),
        lines(tmp_path / "d.jsonl"),
    ):
        assert read_rows(file) == ROWS


def test_a_file_without_marks_is_every_split(tmp_path: Path) -> None:
    file = lines(tmp_path / "some.jsonl")
    assert load_rows("task", "train", file) == load_rows("task", "test", file)
    assert [id_ for id_, _ in load_rows("task", "test", file)] == ["task/some/00000", "task/some/00001"]


def test_rows_may_name_their_split(tmp_path: Path) -> None:
    file = lines(tmp_path / "all.jsonl", [{"q": 1, "split": "train"}, {"q": 2, "split": "test"}])
    assert load_rows("task", "test", file) == [("task/all/00001", {"q": 2, "split": "test"})]


@pytest.mark.parametrize("split", ["dev", "Train", None, 3])
def test_rows_of_no_split_do_not_vanish(tmp_path: Path, split: object) -> None:
    file = lines(tmp_path / "all.jsonl", [{"q": 1, "split": "train"}, {"q": 2, "split": split}])
    with pytest.raises(ResdError, match=r"/00001: is of split .*, which is none of train, validation, test"):
        load_rows("task", "train", file)


def test_a_folder_has_a_file_for_each_split(tmp_path: Path) -> None:
    lines(tmp_path / "physics" / "train.jsonl")
    lines(tmp_path / "chemistry" / "train.jsonl", ROWS[:1])
    lines(tmp_path / "chemistry" / "test.jsonl", ROWS[1:])
    assert [id_ for id_, _ in load_rows("task", "train", tmp_path)] == [
        "task/chemistry/train/00000",
        "task/physics/train/00000",
        "task/physics/train/00001",
    ]
    assert [row["q"] for _, row in load_rows("task", "test", tmp_path)] == [2]


def test_the_first_pattern_that_matches_wins(tmp_path: Path) -> None:
    lines(tmp_path / "train.jsonl", ROWS[:1])
    lines(tmp_path / "old_train.jsonl")
    assert len(load_rows("task", "train", tmp_path)) == 1


def test_a_folder_with_one_file_is_that_file_unless_its_name_says_more(tmp_path: Path) -> None:
    lines(tmp_path / "HumanEval.jsonl")
    assert len(load_rows("task", "train", tmp_path)) == len(load_rows("task", "test", tmp_path)) == 2
    lines(tmp_path / "more.jsonl")
    with pytest.raises(ResdError, match="no file for split test"):
        load_rows("task", "test", tmp_path)


def test_prepared_copies_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESD_DATA", str(tmp_path))
    lines(tmp_path / "task" / "test.jsonl")
    assert len(load_rows("task", "test")) == 2
    monkeypatch.delenv("RESD_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert data_home() == Path("/somewhere/resd/data")


@pytest.mark.parametrize("text", ["\ufeff{0}\n{0}\n", "{0}\r\n{0}\r\n", "\n{0}\n\n{0}"])
def test_what_editors_leave_in_files(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(text.replace("{0}", '{"q": "\u2028"}').encode())
    assert [row for _, row in load_rows("task", "test", file)] == [{"q": "\u2028"}] * 2


@pytest.mark.parametrize(
    ("make", "split", "words"),
    [
        (lambda folder: None, "test", "run `resd data prepare task`"),
        (lambda folder: folder / "absent", "test", "does not exist"),
        (lambda folder: folder, "train", "no file for split train"),
        (lambda folder: lines(folder / "rows.jsonl"), "dev", "choose one of train, validation, test"),
        (lambda folder: lines(folder / "rows.csv"), "test", "is not a file of rows"),
        (lambda folder: lines(folder / "rows.jsonl.gz"), "test", "unpack or convert it"),
        (lambda folder: write(folder / "rows.jsonl", "\n"), "test", "no row in"),
        (lambda folder: write(folder / "rows.jsonl", '{"split": "train"}'), "test", "none of the 1 rows in"),
        (lambda folder: write(folder / "rows.json", '{\n"data": []}'), "test", "or is one array"),
        (lambda folder: write(folder / "rows.jsonl", '{"q": 1}\n{"q": '), "test", "line 2: is not JSON"),
        (lambda folder: write(folder / "rows.jsonl", "[" * 100_000), "test", "line 1: is not JSON"),
        (lambda folder: write(folder / "rows.json", "[1]"), "test", "row 0: is not a JSON object"),
        (lambda folder: write(folder / "rows.parquet", "PAR"), "test", "is not a readable parquet file"),
    ],
)
def test_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: object, split: str, words: str
) -> None:
    monkeypatch.setenv("RESD_DATA", str(tmp_path / "nothing"))
    assert callable(make)
    with pytest.raises(ResdError) as error:
        load_rows("task", split, make(tmp_path))
    assert words in str(error.value)


def write(file: Path, text: str) -> Path:
    file.write_text(text)
    return file
