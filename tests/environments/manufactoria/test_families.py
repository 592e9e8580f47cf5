"""Labels against recorded ones, sizes of the sets, and what every problem's tapes have."""

import json
from hashlib import sha256

import pytest

from resd.environments.manufactoria import Manufactoria
from resd.environments.manufactoria.families import FAMILIES, SETS
from resd.environments.manufactoria.numbers import spelled, value
from resd.environments.manufactoria.tapes import MAX_TAPES, build_cases

SIZES = {
    "has": (742, 132),
    "contains_count": (163, 31),
    "contains_ordered": (292, 48),
    "contains_substring": (287, 53),
    "starts_with": (116, 9),
    "exact_sequence": (116, 9),
    "append_sequence": (116, 9),
    "ends_with": (107, 19),
    "prepend_sequence": (612, 108),
    "regex_pattern": (561, 99),
    "numerical_comparison": (535, 95),
    "numerical_max_min": (501, 11),
    "numerical_operations": (0, 42),
    "regex_same_num": (0, 100),
}


def test_recorded_labels(shared):
    rows = (shared / "data/manufactoria/other_families_sample.jsonl").read_text().splitlines()
    for row in map(json.loads, rows):
        family = FAMILIES[row["problem_family"]]
        assert len(family.colours) == (2 if row["color_mode"] == "two_color" else 4)
        for recorded in row["test_cases"]:
            case = family.expect(row["params"], recorded["input"])
            output = recorded["expected_output"] if recorded["check_output"] else None
            assert (case.accept, case.output) == (recorded["expected_accepted"], output), row["params"]


@pytest.mark.parametrize("name", SETS)
def test_sets(name):
    train, test = SETS[name]("train"), SETS[name]("test")
    assert (len(train), len(test)) == SIZES[name]
    keys = [json.dumps(problem, sort_keys=True) for problem in [*train, *test]]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("name", SETS)
def test_tapes(name):
    environment = Manufactoria(family=name, prompt="compact")
    for problem in [*environment.problems("train")[:150], *environment.problems("test")]:
        cases = environment.cases(problem)
        tapes = [case.tape for case in cases]
        assert tapes[0] == ""
        assert len(set(tapes)) == len(tapes) <= MAX_TAPES
        assert set("".join(tapes)) <= set(FAMILIES[problem.metadata["family"]].colours)
        if cases[0].output is not None:
            assert all(case.accept for case in cases)
            continue
        accepted = sum(case.accept for case in cases)
        assert accepted >= (1 if name == "exact_sequence" else 3)
        assert len(cases) - accepted >= 3


def test_tapes_depend_on_seed_and_problem_alone():
    family, params = FAMILIES["contains_ordered"], {"sequence": "RBYG"}
    assert build_cases(family, params, 0) == build_cases(family, params, 0)
    assert build_cases(family, params, 0) != build_cases(family, params, 1)


def test_tapes_of_has_are_pinned():
    """They are part of the benchmark: scores of one version must be comparable with the next."""
    environment = Manufactoria(prompt="compact")
    tapes = [
        environment.tapes(problem) for split in ("train", "test") for problem in environment.problems(split)
    ]
    assert sha256(repr(tapes).encode()).hexdigest()[:16] == "55e7c282c7177ce1"


def test_numbers_are_spelled_without_leading_zeros():
    assert [spelled(n) for n in (-3, 0, 1, 6)] == ["", "", "B", "BBR"]
    assert [value(tape) for tape in ("", "R", "RB", "BBR")] == [0, 0, 1, 6]
