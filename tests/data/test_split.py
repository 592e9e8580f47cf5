"""Train and test, by task and by the tests of a task: nothing on both sides."""

import base64
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resd.data.split import asked, by_question, split_tasks, split_tests, write_split
from resd.environments.rows import load_rows
from resd.records import ResdError


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@given(st.lists(st.integers(0, 30), max_size=60), st.floats(0.01, 0.99), st.integers(0, 5))
def test_rows_with_one_question_stay_on_one_side(numbers: list[int], ratio: float, seed: int) -> None:
    rows = [{"prompt": f"{n}?", "idx": i} for i, n in enumerate(numbers)]
    train, test = by_question(rows, ratio, seed)
    assert sorted([*train, *test], key=lambda row: row["idx"]) == rows
    for side in (train, test):
        assert [row["idx"] for row in side] == sorted(row["idx"] for row in side)
    questions = {asked(row) for row in train}, {asked(row) for row in test}
    assert not questions[0] & questions[1]
    assert len(questions[1]) == round(len(set(numbers)) * ratio)
    assert by_question(rows, ratio, seed) == (train, test)


def test_tasks(tmp_path: Path) -> None:
    path = write(
        tmp_path / "all.jsonl", [{"problem": f"{n}?", "answer": n, "split": "train"} for n in range(50)]
    )
    train, test = split_tasks(path, 0.1, 42)
    assert (len(train), len(test)) == (45, 5)
    assert split_tasks(path, 0.1, 42) == (train, test)
    assert split_tasks(path, 0.1, 43) != (train, test)
    write_split(tmp_path / "out", train, test)
    ids = {
        split: [row["answer"] for _, row in load_rows("x", split, tmp_path / "out")]
        for split in ("train", "test")
    }
    assert sorted(ids["train"] + ids["test"]) == list(range(50))
    with pytest.raises(ResdError, match="already there"):
        write_split(tmp_path / "out", train, test)


def task(count: int, **more: Any) -> dict[str, Any]:
    tests = {
        "inputs": [f"{i}" for i in range(count)],
        "outputs": [f"{-i}" for i in range(count)],
        "testtype": "stdin",
    }
    return {"prompt": f"Negate, {count} times.", "tests": json.dumps(tests), **more}


def numbers_of(row: dict[str, Any]) -> list[int]:
    tests = json.loads(row["tests"])
    assert [int(a) for a in tests["inputs"]] == [-int(b) for b in tests["outputs"]]
    assert tests["testtype"] == "stdin"
    return [int(i) for i in tests["inputs"]]


@pytest.mark.parametrize("as_released", [False, True])
def test_tests_of_tasks(tmp_path: Path, as_released: bool) -> None:
    counts = [2, 3, 10, 1]
    train, test = split_tests(
        write(tmp_path / "t.jsonl", [task(n) for n in counts]), 0, as_released=as_released
    )
    assert [len(numbers_of(row)) for row in train] == [1, 1, 5]
    assert len(test) == 4
    for n, one, other in zip(counts, train, test, strict=False):
        taught, examined = numbers_of(one), numbers_of(other)
        assert sorted(set(taught) | set(examined)) == list(range(n))
        assert set(taught) <= set(examined) if as_released else not set(taught) & set(examined)
    assert split_tests(tmp_path / "t.jsonl", 0)[0] == train
    assert any(
        numbers_of(split_tests(tmp_path / "t.jsonl", seed)[0][2]) != numbers_of(train[2])
        for seed in range(1, 4)
    )


def test_what_may_be_shown_stays_so(tmp_path: Path) -> None:
    train, test = split_tests(write(tmp_path / "t.jsonl", [task(9, public=4)]), 0)
    shown = [numbers_of(row)[: row["public"]] for row in (*train, *test)]
    hidden = [numbers_of(row)[row["public"] :] for row in (*train, *test)]
    assert sorted([i for part in shown for i in part]) == [0, 1, 2, 3]
    assert sorted([i for part in hidden for i in part]) == [4, 5, 6, 7, 8]


def test_packed_tests_of_livecodebench(tmp_path: Path) -> None:
    cases = [{"input": f"{i}", "output": f"{-i}", "testtype": "stdin"} for i in range(6)]
    packed = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()
    row = {
        "question_content": "Negate.",
        "public_test_cases": "[]",
        "private_test_cases": packed,
        "metadata": "{}",
    }
    (one,), (other,) = split_tests(write(tmp_path / "t.jsonl", [row]), 0)
    halves = [json.loads(half["private_test_cases"]) for half in (one, other)]
    assert [len(half) for half in halves] == [3, 3]
    assert sorted([case for half in halves for case in half], key=lambda case: case["input"]) == cases


@pytest.mark.parametrize(
    ("rows", "ratio", "words"),
    [
        ([{"prompt": "1?"}], 1.5, "must lie between 0 and 1"),
        ([{"prompt": "1?"}] * 9, 0.5, "both are needed"),
        ([], 0.5, "contains no rows"),
    ],
)
def test_mistakes_with_tasks(tmp_path: Path, rows: list[dict[str, Any]], ratio: float, words: str) -> None:
    with pytest.raises(ResdError, match=words):
        split_tasks(write(tmp_path / "t.jsonl", rows), ratio, 0)


def test_mistakes_with_tests(tmp_path: Path) -> None:
    with pytest.raises(ResdError, match="no task has two tests"):
        split_tests(write(tmp_path / "t.jsonl", [task(1)]), 0)
    with pytest.raises(ResdError, match="does not exist"):
        split_tests(tmp_path / "nothing", 0)
