"""What a program gives back: values, errors, output, and how a run ends."""

from __future__ import annotations

import pytest

from resd.environments.sandbox import Job, Limits, Sandbox
from resd.records import ResdError


def test_each_call_has_a_value_or_an_error(sandbox: Sandbox) -> None:
    result = sandbox.run("def twice(x):\n    return x + x", "twice", [[1], [None], ["ab"]])
    assert result.status == "error"
    assert result.values == [2, None, "abab"]
    assert result.errors[0] is result.errors[2] is None
    assert str(result.errors[1]).startswith("TypeError")
    assert str(result.errors[1]).endswith("(line 2, in twice)")


def test_values_are_json(sandbox: Sandbox) -> None:
    program = (
        "import collections\ndef f(): return (1, 'é\\n', None, True, collections.OrderedDict(a={1: 2.0}))"
    )
    result = sandbox.run(program, "f", [[]])
    assert (result.status, result.values) == ("ok", [[1, "é\n", None, True, {"a": {"1": 2.0}}]])


def test_a_method_is_called_on_a_fresh_instance(sandbox: Sandbox) -> None:
    program = (
        "from typing import List\nfrom dataclasses import dataclass, field\n@dataclass\nclass Solution:\n"
        "    seen: List[int] = field(default_factory=list)\n"
        "    def add(self, x: int) -> int:\n        self.seen.append(x)\n        return len(self.seen)"
    )
    assert sandbox.run(program, "Solution.add", [[1], [2]]).values == [1, 1]


def test_output_of_functions(sandbox: Sandbox) -> None:
    program = (
        "import sys, os\nprint('a')\ndef f(x):\n    print('é', file=sys.stderr)\n    os.write(1, b'\\xff')"
    )
    result = sandbox.run(program, "f", [[1]])
    assert result.status == "ok"
    assert "a\n" in result.stdout
    assert "\ufffd" in result.stdout
    assert result.stderr == "é\n"


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("def f(:\n  pass", 'File "program.py", line 1'),
        ("x = 1\ny = x / 0", 'File "program.py", line 2, in <module>\n    y = x / 0'),
        ("g = 1", "NameError: the program defines no 'f'"),
        ("f = 1", "TypeError: 'f' is not a function"),
        ("import numpy", "ModuleNotFoundError"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
    ],
)
def test_a_program_that_cannot_be_loaded(sandbox: Sandbox, program: str, said: str) -> None:
    result = sandbox.run(program, "f", [[1], [2]])
    assert (result.status, result.values, result.errors) == ("error", [], [])
    assert said in result.stderr
    assert "harness" not in result.stderr
    assert "launcher" not in result.stderr


def test_a_call_of_the_program_as_a_module_does_not_run_its_script(sandbox: Sandbox) -> None:
    program = "def f(x): return __name__\nif __name__ == '__main__':\n    raise SystemExit('no')"
    assert sandbox.run(program, "f", [[1]]).values == ["program"]


def test_errors_of_every_kind_are_short(sandbox: Sandbox) -> None:
    program = (
        "class E(Exception):\n    def __str__(self): raise ValueError\n"
        "def f(x):\n    if x == 0: raise E\n    if x == 1: raise KeyboardInterrupt\n"
        "    if x == 2: return f\n    raise type('T' * 9999, (Exception,), {})('\\ud800' * 9999)"
    )
    result = sandbox.run(program, "f", [[0], [1], [2], [3]])
    assert result.status == "error"
    assert result.values == [None] * 4
    assert result.errors[1] == "KeyboardInterrupt (line 5, in f)"
    assert result.errors[2] == "TypeError: function is not JSON"
    assert all(0 < len(str(error)) < 2000 for error in result.errors)


def test_errors_have_one_message(sandbox: Sandbox) -> None:
    program = (
        "def f(x):\n    if x == 0: raise KeyError('k')\n    if x == 1: eval('1 +')\n"
        "    if x == 2: assert False\n    e = ValueError('a\\nb')\n    e.add_note('note')\n    raise e"
    )
    assert sandbox.run(program, "f", [[0], [1], [2], [3]]).errors == [
        "KeyError: 'k' (line 2, in f)",
        "SyntaxError: invalid syntax (line 3, in f)",
        "AssertionError (line 4, in f)",
        "ValueError: a\nb (line 7, in f)",
    ]


def test_recursion_is_an_error_and_can_be_made_deeper(sandbox: Sandbox) -> None:
    program = (
        "import sys\ndef f(n, limit):\n    sys.setrecursionlimit(limit)\n    return n and 1 + f(n - 1, limit)"
    )
    result = sandbox.run(program, "f", [[5000, 1000], [5000, 10**6]])
    assert str(result.errors[0]).startswith("RecursionError")
    assert result.values == [None, 5000]


def test_modules_that_programs_import(sandbox: Sandbox) -> None:
    names = (
        "math heapq asyncio concurrent.futures threading email.message ctypes bisect array hashlib decimal"
    )
    program = (
        "import importlib, asyncio\ndef f(names):\n    for n in names: importlib.import_module(n)\n"
        "    async def g(): await asyncio.sleep(0); return 5\n    return asyncio.run(g())"
    )
    result = sandbox.run(program, "f", [[names.split()]])
    assert (result.status, result.values) == ("ok", [5])


def test_cpu_limit_keeps_what_finished(sandbox: Sandbox) -> None:
    program = "def f(x):\n    while x:\n        pass\n    return 7"
    result = sandbox.run(program, "f", [[0], [1], [0]], Limits(cpu_s=0.2))
    assert (result.status, result.values) == ("cpu_limit", [7])
    assert 0.2 <= result.cpu_s < 0.5


def test_memory_limit_keeps_what_finished(sandbox: Sandbox) -> None:
    result = sandbox.run("def f(n): return len(bytes(n))", "f", [[1000], [10**10], [5]])
    assert (result.status, result.values) == ("memory_limit", [1000])


def test_output_limit_keeps_what_finished(sandbox: Sandbox) -> None:
    result = sandbox.run("def f(n): return 'x' * n", "f", [[10], [10**6]], Limits(output_bytes=1000))
    assert (result.status, result.values) == ("output_limit", ["x" * 10])


def test_many_calls_and_large_arguments(sandbox: Sandbox) -> None:
    result = sandbox.run("def f(x): return sum(x)", "f", [[list(range(n))] for n in range(2000)], Limits(5.0))
    assert result.values == [sum(range(n)) for n in range(2000)]


def test_no_calls(sandbox: Sandbox) -> None:
    assert sandbox.run("def f(): pass", "f", []).status == "ok"
    assert sandbox.run("1 / 0", "f", []).status == "error"


SCRIPTS = [
    ("print(input()[::-1])", "abc\n", "cba\n"),
    ("import sys\nprint(sum(map(int, sys.stdin.read().split())))", "1 2\n3", "6\n"),
    ("import sys\nprint(len(sys.stdin.buffer.read()))", "é", "2\n"),
    ("import sys\nfor line in sys.stdin: print(line, end='')", "a\nb", "a\nb"),
    ("print(open(0).read())", "x", "x\n"),
    ("import os\nprint(os.read(0, 9))", "x", "b'x'\n"),
    ("import sys\nprint(1)\nsys.exit()", "", "1\n"),
    ("import sys\nprint(1)\nsys.exit(0)", "", "1\n"),
    ("print(1)\nraise SystemExit", "", "1\n"),
    ("import os, sys\nprint(1)\nsys.stdout.flush()\nos._exit(0)", "", "1\n"),
    ("import threading\nthreading.Thread(target=lambda: print(2)).start()", "", "2\n"),
    ("import atexit\natexit.register(print, 3)", "", "3\n"),
    ("if __name__ == '__main__':\n    print(__name__)", "", "__main__\n"),
    ("import sys\nsys.stdout.write('no newline')", "", "no newline"),
    ("import os\nos.write(1, b'raw')", "", "raw"),
]


@pytest.mark.parametrize(("program", "stdin", "printed"), SCRIPTS)
def test_scripts(sandbox: Sandbox, program: str, stdin: str, printed: str) -> None:
    result = sandbox.run(program, "__main__", [[stdin]])
    assert (result.status, result.values, result.errors) == ("ok", [printed], [None]), result


def test_each_call_of_a_script_is_a_process_of_its_own(sandbox: Sandbox) -> None:
    program = (
        "import json\nassert not hasattr(json, 'mark')\njson.mark = 1\nn = int(input())\nprint(10 // n)\n"
        "import sys\nsys.exit(n == 3)"
    )
    result = sandbox.run(program, "__main__", [["1"], ["0"], ["3"], ["5"]])
    assert result.status == "error"
    assert result.values == ["10\n", None, None, "2\n"]
    assert result.errors[1] == "ZeroDivisionError: integer division or modulo by zero (line 5, in <module>)"
    assert str(result.errors[2]).startswith("SystemExit: True")
    assert 'File "program.py", line 5' in result.stderr


def test_scripts_share_one_limit(sandbox: Sandbox) -> None:
    program = "import time\nn = float(input())\nwhile time.process_time() < n: pass\nprint(n)"
    result = sandbox.run(program, "__main__", [["0.15"], ["0.15"], ["0.15"]], Limits(cpu_s=0.25))
    assert (result.status, result.values) == ("cpu_limit", ["0.15\n"])
    crash = sandbox.run("import ctypes\nctypes.string_at(1)", "__main__", [["a"], ["b"]])
    assert (crash.status, crash.values) == ("killed", [])
    output = sandbox.run("print('x' * 600)", "__main__", [["a"], ["b"]], Limits(output_bytes=1000))
    assert (output.status, output.values) == ("output_limit", ["x" * 600 + "\n"])


@pytest.mark.parametrize("limits", [{"cpu_s": 0}, {"cpu_s": float("nan")}, {"wall_s": -1}, {"memory_mb": 0}])
def test_bad_limits(limits: dict[str, float]) -> None:
    with pytest.raises(ResdError, match="sandbox limits"):
        Limits(**limits)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("entry", "calls"),
    [("f", [1]), ("f", ["ab"]), ("__main__", [[]]), ("__main__", [[1]]), ("f", [[{1, 2}]])],
)
def test_bad_calls(entry: str, calls: list[list[object]]) -> None:
    with pytest.raises(ResdError, match="sandbox job"):
        Job("def f(x): pass", entry, calls).request()
