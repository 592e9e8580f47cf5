"""The published HAS problems, their order, and programs that solve all of them."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resd.environments.manufactoria import Manufactoria, has_kind, has_predicate, solve_has
from resd.environments.manufactoria.has import has_counts, has_in_order, has_split, has_substring

ENVIRONMENT = Manufactoria(family="has", prompt="compact")


def is_subsequence(sequence, tape):
    if not sequence:
        return True
    return any(is_subsequence(sequence[1:], tape[i + 1 :]) for i, c in enumerate(tape) if c == sequence[0])


@given(st.text("RBYG", min_size=1, max_size=4), st.text("RBYG", max_size=10))
def test_predicates(sequence, tape):
    assert has_in_order({"sequence": sequence}, tape) == is_subsequence(sequence, tape)
    assert has_substring({"sequence": sequence}, tape) == (tape.find(sequence) >= 0)
    needed = Counter(sequence)
    assert has_counts({"requirements": [list(item) for item in needed.items()]}, tape) == (
        needed <= Counter(tape)
    )


def test_split_sizes_and_known_places():
    train, test = has_split("train"), has_split("test")
    assert (len(train), len(test)) == (742, 132)
    assert train[378] == ("contains_substring", {"sequence": "BRBR"})
    assert ("contains_substring", {"sequence": "BRRR"}) in test
    kinds = Counter(has_kind(problem) for problem in ENVIRONMENT.problems("test"))
    assert kinds == {"count": 31, "ordered": 48, "substring": 53}


@pytest.mark.parametrize("split", ["train", "test"])
def test_published_rows(shared, split):
    rows = (shared / f"data/manufactoria/has_{split}.jsonl").read_text().splitlines()
    problems = ENVIRONMENT.problems(split)
    for problem, row in zip(problems, map(json.loads, rows), strict=True):
        assert problem.metadata["params"] == row["params"]
        assert problem.metadata["family"] == row["problem_family"]
        accepts = has_predicate(problem)
        for case in row["test_cases"]:
            assert accepts(case["input"]) == case["expected_accepted"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_problem_is_solved(split):
    for problem in ENVIRONMENT.problems(split):
        verdict = ENVIRONMENT.grade(problem, f"```manufactoria\n{solve_has(problem)}\n```")
        assert verdict.solved
        assert verdict.feedback == ""


def test_balance_of_the_tapes():
    tapes = [tape for problem in ENVIRONMENT.problems("train") for tape in ENVIRONMENT.tapes(problem)]
    assert 0.33 < sum(accept for _, accept in tapes) / len(tapes) < 0.37
