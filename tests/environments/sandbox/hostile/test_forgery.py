"""Programs that lie about what they return, or tamper with what reports it."""

# ruff: noqa: E501  (programs read best unbroken)
from __future__ import annotations

import json
import time
from typing import Any

import pytest

from resd.environments.sandbox import Limits, Sandbox

GOLD = 918273645  # what a grader would expect: it is never sent
QUICK = Limits(cpu_s=1.0, wall_s=5.0)
WIDE = Limits(cpu_s=2.0, wall_s=8.0, output_bytes=10_000_000)

FRAMES = """
def f(x):
    import gc, inspect, sys
    seen = []
    frame = sys._getframe()
    while frame:
        seen += [repr(v)[:10000] for v in (*frame.f_locals.values(), *frame.f_globals.values())]
        frame = frame.f_back
    try:
        raise ValueError
    except ValueError as error:
        t = error.__traceback__
        while t:
            seen.append(repr(t.tb_frame.f_locals)[:10000]); t = t.tb_next
    for thing in gc.get_objects():
        if type(thing) in (dict, list, tuple, str, bytes) and len(thing) < 1000:
            try: seen.append(repr(thing)[:10000])
            except Exception: pass
    return str(x + 1) in "".join(seen)
"""


def test_no_frame_or_object_holds_the_answer(sandbox: Sandbox) -> None:
    result = sandbox.run(FRAMES, "f", [[GOLD - 1]], Limits(cpu_s=5.0))
    assert (result.status, result.values) == ("ok", [False])


REPLACED = """
import builtins, json, os, sys
real = json.dumps
def lie(*a, **k): return real(918273645)
json.dumps = json.JSONEncoder.encode = json.encoder.c_make_encoder = lie
builtins.len = builtins.isinstance = builtins.type = lie
for module in list(sys.modules.values()):
    for name in ("main", "_encoded", "short", "_write_all", "_run_calls"):
        if getattr(module, "__name__", "").startswith("launcher") and hasattr(module, name):
            setattr(module, name, lie)
sys.stdout = sys.stderr = None
def f(x): return x
"""


def test_replacing_what_reports_gains_nothing(sandbox: Sandbox) -> None:
    result = sandbox.run(REPLACED, "f", [[1]], QUICK)
    assert result.status != "ok" or result.values in ([1], [GOLD])  # what it could have returned anyhow


LYING = {
    "float": "class L(float):\n    def __repr__(self): return '0'\n    __str__ = __repr__\n    def __sub__(s, o): return 0.0\n"
    "    __rsub__ = __sub__\n    def __eq__(s, o): return True\n    __hash__ = None",
    "int": "class L(int):\n    def __repr__(self): return '0'\n    __str__ = __repr__\n    def __eq__(s, o): return True\n"
    "    __hash__ = None",
    "str": "class L(str):\n    def __eq__(s, o): return True\n    __hash__ = str.__hash__\n    def strip(s): return s",
    "list": "class L(list):\n    def __eq__(s, o): return True\n    __hash__ = None\n    def __len__(s): return 3",
    "dict": "class L(dict):\n    def __eq__(s, o): return True\n    __hash__ = None\n    def items(s): return [('a', 1)]",
}


@pytest.mark.parametrize("kind", LYING)
def test_subclasses_come_back_as_plain_values(sandbox: Sandbox, kind: str) -> None:
    program = LYING[kind] + "\ndef f(x): return [L(x), {'k': L(x)}]"
    argument = {"float": 7.0, "int": 7, "str": "7", "list": [7], "dict": {"k": 7}}[kind]
    result = sandbox.run(program, "f", [[argument]], QUICK)
    value = result.values[0]
    assert result.status == "ok"
    assert type(value[0]).__name__ == type(value[1]["k"]).__name__ == kind
    if kind in ("float", "int", "str"):
        assert value[0] == argument


def test_an_object_that_equals_everything_is_refused(sandbox: Sandbox) -> None:
    program = "class A:\n    def __eq__(s, o): return True\ndef f(x): return A()"
    result = sandbox.run(program, "f", [[1]], QUICK)
    assert (result.status, result.values) == ("error", [None])
    assert result.errors == ["TypeError: A is not JSON"]


# What is written on the descriptor of results before the function returns, and what becomes of it. The
# harness's own line follows: one line too many, or none of a known kind.
FORGED = {
    "a result": rb'b"v918273645\n"',
    "a result and the end": rb'b"v918273645\nd\n"',
    "an error": rb'b"e\"mine\"\n"',
    "pickle": rb'__import__("pickle").dumps([GOLD := 1]) + b"\n"',
    "no JSON": rb'b"v{]\n"',
    "two values in a line": rb'b"v1 2\n"',
    "an error that is no text": rb'b"e[1]\n"',
    "NUL bytes": rb'bytes(100) + b"\n"',
    "invalid UTF-8": rb'b"v\"\xff\xfe\"\n"',
    "nested lists": rb'b"v" + b"[" * 100000 + b"]" * 100000 + b"\n"',
    "nested dicts": rb'b"v" + b"{\"a\":" * 100000 + b"1" + b"}" * 100000 + b"\n"',
    "unclosed": rb'b"v" + b"[" * 100000 + b"\n"',
    "a huge integer": rb'b"v" + b"9" * 500000 + b"\n"',
    "a huge exponent": rb'b"v1e" + b"9" * 500000 + b"\n"',
    "a long fraction": rb'b"v0." + b"1" * 500000 + b"\n"',
    "a lone surrogate": rb'b"v\"\\ud800\"\n"',
    "many empty lines": rb'b"\n" * 100000',
    "half a line": rb'b"v1"',
    "out of memory": rb'b"m\n"',
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_results_are_a_bad_payload(sandbox: Sandbox, name: str) -> None:
    program = f"import os\ndef f(x):\n    os.write(3, {FORGED[name].decode('latin-1')})\n    return 2"
    start = time.perf_counter()
    result = sandbox.run(program, "f", [[1]], QUICK)
    assert result.status == "bad_payload" or (name == "half a line" and result.values == [12])
    assert len(result.values) <= 1
    assert time.perf_counter() - start < 5.5


def test_a_complete_forgery_is_what_could_be_returned_anyhow(sandbox: Sandbox) -> None:
    program = r"import os" "\n" r"def f(x): os.write(3, b'v5\nv6\nd\n'); os._exit(0)"
    result = sandbox.run(program, "f", [[1], [2]], QUICK)
    assert (result.status, result.values) == ("ok", [5, 6])
    short = sandbox.run(program, "f", [[1], [2], [3]], QUICK)
    assert short.status == "killed"  # never "ok" with a call missing


def test_writing_on_every_descriptor(sandbox: Sandbox) -> None:
    program = (
        "import os\ndef f(x):\n    n = []\n    for fd in range(300):\n        try:\n"
        "            os.write(fd, b'[\"exit\", 0, 0.0]')\n            n.append(fd)\n        except OSError: pass\n"
        "    return n"
    )
    result = sandbox.run(program, "f", [[1]], QUICK)
    assert result.status == "bad_payload"
    assert result.stdout == result.stderr == '["exit", 0, 0.0]'
    assert sandbox.run("def f(x): return x", "f", [[3]], QUICK).values == [3]


def test_mixing_up_descriptors(sandbox: Sandbox) -> None:
    for change in ("os.dup2(1, 3)", "os.dup2(3, 1)", "os.close(3)", "os.closerange(0, 300)", "os.dup2(0, 3)"):
        result = sandbox.run(f"import os\ndef f(x):\n    {change}\n    return 1", "f", [[1]], QUICK)
        assert result.status in ("killed", "bad_payload", "ok"), change
        assert result.values in ([], [1]), change
        assert result.status != "ok" or result.values == [1]


@pytest.mark.parametrize(
    "how", ["os._exit(0)", "os._exit(3)", "os.kill(os.getpid(), 9) or os._exit(0)", "os.abort()"]
)
def test_ending_within_a_call_is_never_ok(sandbox: Sandbox, how: str) -> None:
    program = f"import os\ndef f(x):\n    if x: {how}\n    return x"
    result = sandbox.run(program, "f", [[0], [1], [0]], QUICK)
    assert (result.status, result.values) == ("killed", [0])
    assert "ended by itself" in result.stderr


def test_sys_exit_is_an_error_of_its_call(sandbox: Sandbox) -> None:
    result = sandbox.run("import sys\ndef f(x):\n    if x: sys.exit(0)\n    return x", "f", [[0], [1], [0]])
    assert (result.status, result.values) == ("error", [0, None, 0])
    assert result.errors[1] == "SystemExit: 0 (line 3, in f)"


def test_writing_after_the_end(sandbox: Sandbox) -> None:
    program = (
        "import os, threading, time\ndef g():\n    while True:\n        try: os.write(3, b'v1\\n')\n"
        "        except OSError: pass\n        time.sleep(0)\n"
        "def f(x):\n    threading.Thread(target=g, daemon=True).start()\n    time.sleep(0.02)\n    return 2"
    )
    assert sandbox.run(program, "f", [[1]], QUICK).status == "bad_payload"


def test_hooks_do_not_run_after_the_end(sandbox: Sandbox) -> None:
    program = (
        "import atexit, os, sys, weakref\ndef late(*a): os.write(3, b'v99\\n')\natexit.register(late)\n"
        "class D:\n    def __del__(self): late()\nkept = D()\nweakref.finalize(kept, late)\n"
        "sys.unraisablehook = sys.excepthook = late\ndef f(x): return x"
    )
    result = sandbox.run(program, "f", [[1]], QUICK)
    assert (result.status, result.values) == ("ok", [1])


def test_hooks_of_imports_and_codecs(sandbox: Sandbox) -> None:
    program = (
        "import sys, codecs\nclass H:\n    def find_spec(self, *a): raise SystemExit(0)\nsys.meta_path.insert(0, H())\n"
        "sys.modules.clear()\nsys.path[:] = []\ndef f(x): return x"
    )
    result = sandbox.run(program, "f", [[1]], QUICK)
    assert result.status != "ok" or result.values == [1]


EXTREME: dict[str, tuple[str, Any]] = {
    "nan and infinities": ("return [float('nan'), float('inf'), -float('inf')]", "[nan, inf, -inf]"),
    "large floats": ("return [1e308, 5e-324, -0.0]", "[1e+308, 5e-324, -0.0]"),
    "long integers": ("return 10 ** 3999", str(10**3999)),
}


@pytest.mark.parametrize("name", EXTREME)
def test_extreme_values_arrive(sandbox: Sandbox, name: str) -> None:
    body, shown = EXTREME[name]
    assert repr(sandbox.run(f"def f(x): {body}", "f", [[1]], QUICK).values[0]) == shown


REFUSED_VALUES = {
    "an integer of 5000 digits": (
        "import sys; sys.set_int_max_str_digits(0); return 10 ** 5000",
        "bad_payload",
    ),
    "an integer as Python prints it": ("return 10 ** 5000", "error"),
    "nested 100,000 deep": ("x = []\n    for _ in range(10 ** 5): x = [x]\n    return x", "error"),
    "nested 500 deep": ("x = {}\n    for _ in range(500): x = {'a': x}\n    return x", "error"),
    "itself": ("x = []; x.append(x); return x", "error"),
    "a lone surrogate": ("return '\\ud800'", "error"),
    "a surrogate as key": ("return {'\\udfff': 1}", "error"),
    "a million empty lists": ("return [[] for _ in range(10 ** 6)]", "error"),
    "bytes": ("return b'x'", "error"),
    "a set": ("return {1}", "error"),
    "a generator": ("return (n for n in x)", "error"),
    "a function": ("return f", "error"),
}


@pytest.mark.parametrize("name", REFUSED_VALUES)
def test_values_that_are_not_json_are_refused(sandbox: Sandbox, name: str) -> None:
    body, status = REFUSED_VALUES[name]
    result = sandbox.run(f"def f(x):\n    {body}", "f", [[[1]]], WIDE)
    assert result.status == status
    assert result.values in ([], [None])


HOSTILE_TEXT = {
    "NUL bytes": "def f(x): return 1\0",
    "lone surrogates": "def f(x): return '\ud800\udc00\ud800'",
    "ten megabytes": "#" * 10**7,
    "parentheses": "f = " + "(" * 10**5 + ")" * 10**5,
    "indentation": "".join(" " * n + "if 1:\n" for n in range(200)) + " " * 200 + "pass",
    "operators": "x = " + "-" * 10**5 + "1",
    "a long sum": "x = " + "+".join("1" * 10**5),
    "another encoding": "# coding: rot13\nqrs s(k): erghea 1",
    "a null encoding": "# coding: undefined\n",
    "folded constants": "x = (1 << 10 ** 9) * 'a'",
}


@pytest.mark.parametrize("name", HOSTILE_TEXT)
def test_programs_that_attack_the_compiler(sandbox: Sandbox, name: str) -> None:
    result = sandbox.run(HOSTILE_TEXT[name], "f", [[1]], Limits(cpu_s=1.0, memory_mb=256))
    assert result.status in ("error", "killed", "memory_limit", "cpu_limit"), result
    assert result.values == []
    json.dumps([result.stdout, result.stderr], ensure_ascii=False).encode()


def test_a_job_leaves_nothing_for_the_next(sandbox: Sandbox) -> None:
    """Neither in the scratch folder nor in the memory of the process that starts the next job."""
    token = "b2f0c9d6e1a74c55"
    first = f"def f(x):\n    open('/tmp/left', 'w').write('{token}')\n    return '{token}' * 100"
    second = """
import ctypes, gc, os
def f(reversed_token):
    token = reversed_token[::-1].encode()
    libc = ctypes.CDLL(None)
    libc.sbrk.restype = ctypes.c_void_p
    end = libc.sbrk(0)
    heap = ctypes.string_at(end - (1 << 20), 1 << 20)
    copies = [n for n in range(len(heap)) if heap.startswith(token * 2, n)]
    return [os.listdir("/tmp"), copies]
"""
    with Sandbox(workers=1) as one:
        if not one.isolation_in_use.startswith("namespaces"):
            pytest.skip("there is a scratch folder only in namespaces")
        assert one.run(first, "f", [[1]], QUICK).status == "ok"
        assert one.run(second, "f", [[token[::-1]]], QUICK).values == [[[], []]]
