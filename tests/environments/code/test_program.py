"""Programs in replies, and when values and outputs are the same."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resd.environments.code import extract_program
from resd.environments.code.compare import same_output, same_value, written
from resd.environments.code.program import compose, entry_of
from resd.environments.code.replay import resd_encode


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("```python\na = 1\n```", "a = 1"),
        ("```py\na\n```\ntext\n```Python3\nb\nc\n```\n", "b\nc"),
        ("```python\na\n```\nIt prints\n```\n42\n```", "a"),
        ("```\na\n```", "a"),
        ("```text\na\n```", None),
        ("```json\n{}\n```\n```\nb\n```", "b"),
        ("```python\na\n```\n```python\nb", "a"),
        ("```python\na\n```python\nb\n```", "b"),
        ("  ````python\n  a\n  ````", "  a"),
        ("```python title\n\n```", ""),
        ("```python print(1)```", None),
        ("no program", None),
    ],
)
def test_extraction(answer, program):
    assert extract_program(answer) == program


@given(st.lists(st.sampled_from(["```", "```python", "a", "\n", " ", "`"])).map("".join))
def test_extraction_of_anything(answer):
    program = extract_program(answer)
    assert program is None or program in answer


def test_imports_that_are_left_out():
    source = (
        "from __future__ import annotations\nclass Solution:\n    def f(self, xs: List[int]):\n        deque"
    )
    program = compose(source + "\n        math", "def helper():\n    pass")
    assert program.text.split("\n")[:6] == [
        "from __future__ import annotations",
        "import math",
        "from collections import deque",
        "from typing import List",
        "def helper():",
        "    pass",
    ]
    compile(program.text, "program", "exec")
    assert program.shift == 6
    assert program.own_lines('File "x.py", line 9, in f\nE: 7 (line 10, in f)') == (
        'File "x.py", line 3, in f\nE: 7 (line 4, in f)'
    )
    assert program.line("(line 4, in f)") == "deque"
    assert compose("x = 1").shift == 0


def test_entries():
    solution = "class Solution:\n    def f(self):\n        pass\n"
    assert entry_of(solution, "f") == "Solution.f"
    assert entry_of(solution, "g") == "g"
    assert entry_of("def f():\n    pass\nclass Solution:\n    pass", "f") == "f"
    assert entry_of("class Other:\n    def f(self): pass", "f") == "f"


def test_outputs():
    assert same_output("1 2 \r\n3\n\n\n", "1 2\n3")
    assert same_output("", "\n")
    assert not same_output("1\n2", "1 2")
    assert not same_output("1  2", "1 2")
    assert not same_output("\n1", "1")


PLAIN = [
    *(None, True, 1.5, float("inf"), "a'b\n", [], [1, (2, [])], (), (1,), {}, {"a": (1,), "b": []}, {1: {2}}),
    *(set(), {3}, {(1, 2): None}, {"resd_other": [1]}),
]


@pytest.mark.parametrize("value", PLAIN)
def test_values_read_as_python_writes_them(value):
    assert written(resd_encode(value)) == repr(value)
    assert same_value(resd_encode(value), resd_encode(value))


FORGED = [
    {"resd_set": [k * (2**61 - 1) for k in range(100_000)]},  # all with one hash
    {"resd_dict": [[k * (2**61 - 1), 0] for k in range(100_000)]},
    {"resd_dict": [1, [2], [[], 3], {}]},
    {"resd_set": [[{}]]},
    {"resd_tuple": {"resd_tuple": 1}},
    ["a" * 10**7] * 2,
    [0] * 10**6,
]


def test_forged_values_are_compared_and_shown_at_once():
    started = time.process_time()
    for value in FORGED:
        assert len(written(value)) < 3000
        assert not same_value(value, [1])
        assert not same_value(value, {"resd_set": [1]})
        assert not same_value(value, {"resd_dict": [[1, 2]]})
    assert time.process_time() - started < 1


def test_values():
    assert same_value([1, [2.0, True]], [1.0, {"resd_tuple": [2, 1]}])
    assert same_value({"a": [1]}, {"a": {"resd_tuple": [1]}})
    assert same_value({"resd_set": [1, 2]}, {"resd_set": [2, 1]})
    assert same_value({"resd_dict": [[1, 2], [3, 4]]}, {"resd_dict": [[3, 4], [1, 2]]})
    assert not same_value({"resd_set": [1]}, [1])
    assert not same_value({"resd_dict": [[1, 2]]}, {"1": 2})
    assert not same_value(0.1 + 0.2, 0.3)
    assert not same_value("1", 1)
    assert not same_value(None, False)
    assert not same_value(float("nan"), float("nan"))
    assert not same_value({"resd_set": [1]}, {"resd_set": [1, 1]})
    assert not same_value({"resd_set": 1}, {"resd_set": [1]})
    assert not same_value({"a": 1}, {"a": 1, "b": 1})
    assert same_value({"resd_set": [[1], {"resd_tuple": [2]}]}, {"resd_set": [[2], [1]]})
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert not same_value(deep, [])
