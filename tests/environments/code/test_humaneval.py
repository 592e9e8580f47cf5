"""HumanEval: canonical solutions pass, broken ones do not; the official check decides what is broken."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from environments.code.mutations import variants
from environments.together import graded
from resd.environments import load

BROKEN = 5
# Runs program and tests in one namespace, as the published harness does. For programs made here only.
OFFICIAL = """
import json, signal, sys

def late(*_):
    raise TimeoutError

signal.signal(signal.SIGALRM, late)
for source, test, entry in json.load(sys.stdin):
    names = {}
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        exec(source, names)
        exec(test, names)
        names["check"](names[entry])
        passes = True
    except BaseException:
        passes = False
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(json.dumps(passes))
"""


@pytest.fixture(scope="module")
def path(shared):
    return shared / "data/humaneval/HumanEval.jsonl"


@pytest.fixture(scope="module")
def rows(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def fenced(source):
    return f"```python\n{source}\n```"


def official(programs):
    """Whether each (source, test, entry) passes."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", OFFICIAL], input=json.dumps(programs), capture_output=True, text=True
    )
    verdicts = [json.loads(line) for line in done.stdout.splitlines() if line in ("true", "false")]
    assert len(verdicts) == len(programs)
    return verdicts


def test_canonical_solutions_pass(path, rows):
    environment = load("code", path=path)
    problems = environment.problems("test")
    assert len(problems) == len(rows) == 100
    verdicts = graded(environment, problems, [environment.solution(problem) for problem in problems])
    assert [problem.id for problem, v in zip(problems, verdicts, strict=True) if not v.solved] == []
    assert all(v.reward == 1.0 and v.feedback == "" for v in verdicts)
    asserted = [row["test"].count("assert ") for row in rows]
    loops = {index for index, row in enumerate(rows) if "for " in row["test"]}
    trivial = [row["test"].count("assert True") for row in rows]
    plain = [i for i in range(100) if i not in loops and "#assert" not in rows[i]["test"]]
    assert [verdicts[i].total for i in plain] == [asserted[i] - trivial[i] for i in plain]
    assert len(plain) > 65
    assert sum(verdict.total for verdict in verdicts) > 900


def test_broken_variants_do_not(path, rows):
    tried = [
        (index, source, row["test"], row["entry_point"])
        for index, row in enumerate(rows)
        for _, source in islice(variants(row["prompt"] + row["canonical_solution"], row["entry_point"]), 9)
    ]
    passes = official([program for _, *program in tried])
    broken, equal = [], []
    for (index, source, *_), passed in zip(tried, passes, strict=True):
        (equal if passed else broken).append((index, source))
    chosen = [
        (index, source)
        for task in range(len(rows))
        for index, source in islice((pair for pair in broken if pair[0] == task), BROKEN)
    ]
    assert len(chosen) == BROKEN * len(rows)
    environment = load("code", path=path, time_limit=0.1)
    problems = environment.problems("test")
    judged = graded(
        environment,
        [problems[index] for index, _ in chosen + equal],
        [fenced(source) for _, source in chosen + equal],
    )
    solved = [pair for pair, verdict in zip(chosen + equal, judged, strict=True) if verdict.solved]
    assert [pair for pair in solved if pair in chosen] == []
    assert all(verdict.feedback and verdict.reward == 0.0 for verdict in judged[: len(chosen)])
    assert len(equal) > 20  # what the tests cannot tell from the solution passes here as well
    assert [pair for pair in equal if pair not in solved] == []
