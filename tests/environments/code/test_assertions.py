"""Test sources: what is found out without the program, and what is judged afterwards."""

import time

import pytest

from resd.environments.code.assertions import TestSource, called_name, helpers_of
from resd.environments.code.program import compose
from resd.environments.code.replay import resd_decode, resd_encode
from resd.environments.code.rows import Case, Task
from resd.environments.code.runs import Judge
from resd.environments.sandbox import Limits, Sandbox
from resd.records import ResdError


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=1) as sandbox:
        yield sandbox


def statuses(sandbox, source, program):
    task = Task("t", "p", "code", (Case(source),), 1.0, entry="f")
    outcomes = Judge(sandbox).judge(task, task.cases, compose(program), Limits(cpu_s=0.3))
    return [outcome.status for outcome in outcomes]


def test_plans(sandbox):
    source = "for i in range(2):\n    assert f(i, [(i,)], k={i}) == {i: 'a'}\nassert f(0) > 1\nassert True\n"
    plan = TestSource(source, "f").plan(sandbox)
    assert plan.comparisons_only is False
    assert plan.error is None
    assert len(plan.calls) == 3
    assert [check["line"] for check in plan.checks] == [2, 2, 3]
    assert [resd_decode(check.get("wanted")) for check in plan.checks] == [{0: "a"}, {1: "a"}, None]
    assert resd_decode(plan.calls[1]) == [[1, [(1,)]], {"k": {1}}]
    assert all(check["passed"] is None for check in plan.checks)


@pytest.mark.parametrize("source", ["def check(candidate):\n    pass", "x = 1 / 0", "while True: pass", "f"])
def test_sources_that_call_nothing(sandbox, source, monkeypatch):
    monkeypatch.setattr("resd.environments.code.assertions.LIMITS", Limits(cpu_s=0.3))
    with pytest.raises(ResdError, match="the tests of f do not run, or never call it"):
        TestSource(source, "f").plan(sandbox)


EXACT = "def f(x):\n    return x + 1"


@pytest.mark.parametrize(
    ("source", "good", "bad"),
    [
        ("assert f(1) == 2 and f(2) == 3", 1, "def f(x):\n    return 2"),
        ("a = f(1)\nassert a == f(0) + 1", 1, "def f(x):\n    return 1"),
        ("if f(1) == 2:\n    assert f(5) == 6\nelse:\n    assert f(5) == 0", 2, "def f(x):\n    return 3"),
        ("x = 0\nfor _ in range(3):\n    x = f(x)\nassert x == 3", 2, "def f(x):\n    return 2"),
        ("assert sorted([f(2), f(1)]) == [2, 3]", 1, "def f(x):\n    return x"),
        ("import math\nassert math.isclose(f(0.1), 1.1)", 1, "def f(x):\n    return 1"),
        ("assert f(1) in (2, 3), f'got {f(1)}'", 1, "def f(x):\n    return 4"),
        ("assert not f(-1)", 1, "def f(x):\n    return [0]"),
        ("assert 1 < f(1) < 3", 1, "def f(x):\n    return None"),
        ("assert f(x=1) == 2 != f(3)", 1, "def f(x):\n    return 0"),
        ("def check(candidate):\n    assert candidate(4) == 5\ncheck(f)", 1, "def f(x):\n    pass"),
        ("def check(candidate):\n    assert candidate(4) == 5", 1, "def f(x):\n    raise ValueError"),
        ("import random\nx = random.random()\nassert f(x) == x + 1", 1, "def f(x):\n    return 1"),
    ],
)
def test_judged(sandbox, source, good, bad):
    assert statuses(sandbox, source, EXACT) == ["passed"] * good
    found = statuses(sandbox, source, bad)
    assert "passed" not in found[:1] or found.count("passed") < len(found)
    assert set(found) - {"passed"}


def test_patience_is_that_of_a_reply(sandbox):
    """Not of a source, of which a task may have many."""
    task = Task("t", "p", "code", tuple(Case(f"assert f({i}) == 1") for i in range(9)), 1.0, entry="f")
    program = compose("def f(x):\n    while True:\n        pass")
    outcomes = Judge(sandbox).judge(task, task.cases, program, Limits(cpu_s=0.1))
    assert [outcome.status for outcome in outcomes] == ["cpu_limit"] * 3 + ["not_run"] * 6


def test_values_that_keep_the_tests_busy(sandbox, monkeypatch):
    monkeypatch.setattr("resd.environments.code.assertions.LIMITS", Limits(cpu_s=0.2))
    sources = tuple(Case(f"for _ in range(f({i})):\n    pass\nassert f({i}) == 3") for i in range(9))
    task = Task("t", "p", "code", sources, 1.0, entry="f")
    judge, program = Judge(sandbox), compose("def f(x):\n    return 10**12")
    for case in sources:
        judge._plan(TestSource(case.input, "f"))
    started = time.monotonic()
    outcomes = judge.judge(task, task.cases, program, Limits(cpu_s=0.2))
    assert "passed" not in {outcome.status for outcome in outcomes}
    assert time.monotonic() - started < 4


SHORT = Limits(cpu_s=0.1, wall_s=0.3)


@pytest.mark.parametrize("body", ["pass", "time.sleep(1)"])
def test_patience_ends_where_only_first_calls_return(sandbox, body):
    """What goes over the limit in a shared process and returns in one of its own is charged for that once."""
    head = "import time\nseen = []\ndef f(x):\n    seen.append(x)\n    while seen[1:]:\n        "
    source = f"{head}{body}\n    return 1"
    task = Task("t", "p", "functional", tuple(Case([n], 1) for n in range(30)), 1.0, entry="f")
    started = time.monotonic()
    outcomes = Judge(sandbox).judge(task, task.cases, compose(source), SHORT)
    assert all(outcome.passed for outcome in outcomes)
    assert time.monotonic() - started < 3


def test_large_values_are_all_compared(sandbox):
    """More of them than one process may return: the rest come from processes of their own."""
    wanted = [[0] * 300_000, *([n] * 300_000 for n in range(1, 5))]
    task = Task("t", "p", "functional", tuple(Case([n], w) for n, w in enumerate(wanted)), 1.0, entry="f")
    limits = Limits(cpu_s=1.0, output_bytes=10_000_000)
    right = Judge(sandbox).judge(task, task.cases, compose("def f(n):\n    return [n] * 300_000"), limits)
    assert all(outcome.passed for outcome in right)
    wrong = compose("def f(n):\n    return [n] * 299_999 + [n != 3 and n]")
    found = [outcome.status for outcome in Judge(sandbox).judge(task, task.cases, wrong, limits)]
    assert found == ["passed"] * 3 + ["wrong", "passed"]


def test_waiting_is_bounded_over_all_tests(sandbox):
    """Each test may wait for a little less than the limit, but not all of them."""
    task = Task("t", "p", "stdin", tuple(Case("", "a") for _ in range(20)), 1.0)
    source = compose("import time\ntime.sleep(0.2)\nprint('a')")
    outcomes = Judge(sandbox).judge(task, task.cases, source, SHORT)
    found = [outcome.status for outcome in outcomes]
    assert found[0] == "passed"
    assert 3 <= found.count("passed") < 10
    assert found[-1] == "not_run"


def test_an_early_end_is_a_failure(sandbox):
    source = "a = f(1)\nassert a == 2\nb = f(2) + 0\nassert b == 3"
    assert statuses(sandbox, source, EXACT) == ["passed"] * 3
    assert statuses(sandbox, source, "def f(x):\n    return 2 if x == 1 else None") == ["passed", "wrong"]
    raising = "def f(x):\n    if x == 2:\n        raise ValueError\n    return 2"
    assert statuses(sandbox, source, raising)[-1] == "error"


BRANCHES = [
    "r = f(1)\nif isinstance(r, list):\n    assert len(r) == 3",
    "assert f(0) == 1\nr = f(1)\nif isinstance(r, list):\n    assert r == [1, 2, 3]",
    "r = f(1)\nif isinstance(r, list):\n    assert len(r) == 3\nelse:\n    assert r == [0]",
    "r = f(1)\nassert (r if type(r) is int else 7) == 5",
    "f(1)\nassert f(0) == 1\nassert [r for r in [f(1)] if type(r) is list and r != [3]] == []",
]


@pytest.mark.parametrize("source", BRANCHES)
def test_what_is_asserted_depends_on_the_value(sandbox, source):
    """Nothing that the plan did not foresee is left out."""
    found = statuses(sandbox, source, "def f(x):\n    return [0] if x else 1")
    assert set(found) - {"passed"}


def test_a_branch_is_judged_as_it_was_taken(sandbox):
    program = "def f(x):\n    return [1, 2, 3] if x else 1"
    assert statuses(sandbox, BRANCHES[0], program) == ["passed"]
    assert statuses(sandbox, BRANCHES[1], program) == ["passed"] * 2
    assert statuses(sandbox, BRANCHES[2], program) == ["passed"]


def test_values_that_cannot_be_told(sandbox):
    assert statuses(sandbox, "assert f(1) == 2", "def f(x):\n    return object()") == ["error"]
    assert statuses(sandbox, "assert f(1) == (1, {2})", "def f(x):\n    return [1, {2}]") == ["passed"]
    assert statuses(sandbox, "assert f(1) == {2: 3}", "def f(x):\n    return {'2': 3}") == ["wrong"]


@pytest.mark.parametrize(
    "value",
    [None, True, 1, 1.5, "a", [1, (2, [])], {"a": (1,)}, {1: {2}}, {(1, 2): frozenset([3])}, (), set()],
)
def test_the_codec(value):
    assert resd_decode(resd_encode(value)) == value


def test_names():
    assert called_name("import math\nassert math.fabs(g(len([1]))) == h\ndef h(): pass", "row") == "g"
    assert helpers_of("import math\ndef f():\n    pass\nK = 3", "f") == "import math\nK = 3"
    assert helpers_of("Write a function.", "f") == ""
    assert helpers_of("Sort", "f") == ""
    assert TestSource("assert candidate(1) == 2", "f").assertion(1) == "f(1) == 2"
