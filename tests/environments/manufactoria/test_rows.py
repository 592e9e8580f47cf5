"""Rows with tapes of their own."""

import json
from pathlib import Path

import pytest

from resd.environments.manufactoria import Manufactoria, solve_has
from resd.records import ResdError

TAPES = [
    {"input": "RB", "expected_output": "", "expected_accepted": True, "check_output": False},
    {"input": "B", "expected_output": "", "expected_accepted": False, "check_output": False},
]
ROW = {"problem_family": "contains_substring", "name": "Contains 'RB'", "test_cases": TAPES}


def write(folder: Path, *rows: dict[str, object]) -> Path:
    path = folder / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("keep_params", [True, False], ids=["params", "names"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_published_problems_are_ours_in_the_same_order(
    shared: Path, tmp_path: Path, split: str, keep_params: bool
) -> None:
    rows = [json.loads(line) for line in (shared / f"data/manufactoria/has_{split}.jsonl").open()]
    kept = [{k: v for k, v in row.items() if keep_params or k != "params"} for row in rows]
    read = Manufactoria(path=write(tmp_path, *kept)).problems(split)
    made = Manufactoria().problems(split)
    assert [(p.messages, p.metadata) for p in read] == [(p.messages, p.metadata) for p in made]


def test_tapes_are_those_of_the_file(shared: Path) -> None:
    path = shared / "data/manufactoria/has_test.jsonl"
    environment = Manufactoria(path=path)
    rows = [json.loads(line) for line in path.open()]
    for problem, row in zip(environment.problems("test"), rows, strict=True):
        wanted = [(case["input"], case["expected_accepted"]) for case in row["test_cases"]]
        assert environment.tapes(problem) == wanted
        assert environment.grade(problem, f"```\n{solve_has(problem)}\n```").solved


def test_tapes_that_must_come_out_as_told(shared: Path) -> None:
    environment = Manufactoria(path=shared / "data/manufactoria/other_families_sample.jsonl")
    problems = environment.problems("test")
    assert len({p.metadata["family"] for p in problems}) == 10
    outputs = [case.output for p in problems for case in environment.cases(p)]
    assert any(output is not None for output in outputs)
    assert any(output is None for output in outputs)


def test_states_choose_among_rows(tmp_path: Path) -> None:
    path = write(tmp_path, ROW, {**ROW, "name": "Contains 'RBY'"})
    assert [p.metadata["params"] for p in Manufactoria(path=path, states=(3, 3)).problems("test")] == [
        {"sequence": "RBY"}
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"problem_family": "chess"}, "problem_family 'chess' is not known"),
        ({"name": "Something else"}, "has no params"),
        ({"test_cases": []}, "test_cases want"),
        ({"test_cases": [{"input": "R"}]}, "cannot be read (KeyError"),
        ({"test_cases": [{**TAPES[0], "expected_accepted": "yes"}]}, "test_cases want"),
    ],
)
def test_mistakes(tmp_path: Path, change: dict[str, object], words: str) -> None:
    with pytest.raises(ResdError) as error:
        Manufactoria(path=write(tmp_path, {**ROW, **change})).problems("test")
    assert words in str(error.value)
    assert "row manufactoria/test/00000" in str(error.value)
