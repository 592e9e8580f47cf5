"""Programs that want more time, memory, disk, threads or output than they have.

How long each takes is compared with its wall limit and half a second, times the load of the machine.
"""

# ruff: noqa: E501  (programs read best unbroken)
from __future__ import annotations

import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from environments.together import run_jobs
from resd.environments.sandbox import Job, Limits, Result, Sandbox

LOOP = Limits(cpu_s=0.1)
WAIT = Limits(cpu_s=0.1, wall_s=0.25)
SMALL = Limits(cpu_s=1.0, memory_mb=128, output_bytes=50_000)


@dataclass(frozen=True)
class Greedy:
    body: str
    statuses: tuple[str, ...]
    limits: Limits = LOOP
    head: str = ""


CPU = ("cpu_limit",)
MEMORY = ("memory_limit", "error")
GREEDY = {
    "endless loop": Greedy("while True: pass", CPU),
    "loop that swallows everything": Greedy(
        "while True:\n        try:\n            while True: pass\n        except BaseException: pass", CPU
    ),
    "loop in C": Greedy("import itertools; return sum(itertools.repeat(1))", CPU),
    "loop in C over a deque": Greedy(
        "import collections, itertools; collections.deque(itertools.count(), 0)", CPU
    ),
    "catastrophic regular expression": Greedy(
        "import re; return bool(re.match('(a+)+$', 'a' * 40 + 'b'))", CPU
    ),
    "huge power": Greedy("return len(bin(7 ** (10 ** 9)))", ("cpu_limit", "memory_limit"), LOOP),
    "huge factorial": Greedy("import math; return math.factorial(10 ** 7) % 7", CPU),
    "at import": Greedy("return 1", CPU, head="while True: pass"),
    "signals ignored": Greedy(
        "import signal\n    for n in range(1, 65):\n        try: signal.signal(n, signal.SIG_IGN)\n"
        "        except Exception: pass\n    while True: pass",
        CPU,
    ),
    "signals blocked": Greedy(
        "import signal\n    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n    while True: pass", CPU
    ),
    "in threads": Greedy(
        "import threading\n    def g():\n        while True: pass\n"
        "    for _ in range(4): threading.Thread(target=g).start()\n    g()",
        CPU,
    ),
    "threads that outlive the call": Greedy(
        "import threading\n    def g():\n        while True: pass\n    threading.Thread(target=g).start()\n"
        "    return 1",
        ("ok",),
    ),
    "hash collisions": Greedy("return len({k * (2 ** 61 - 1) for k in range(10 ** 6)})", CPU),
    "infinite iterator returned": Greedy(
        "class L(list):\n        def __iter__(self):\n            while True: yield 1\n    return sorted(L())",
        ("cpu_limit", "memory_limit"),
    ),
    "busy __del__": Greedy(
        "class D:\n        def __del__(self):\n            while True: pass\n    D()\n    return 1", CPU
    ),
    "busy atexit": Greedy(
        "import atexit\n    def g():\n        while True: pass\n    atexit.register(g)\n    return 1", ("ok",)
    ),
    "busy trace function": Greedy(
        "import sys\n    def g(*a):\n        while True: pass\n    sys.settrace(g)\n    sys.setprofile(g)\n    return 1",
        CPU,
    ),
    "busy comparison in the harness": Greedy(
        "import json\n    def g(*a, **k):\n        while True: pass\n    json.dumps = json.JSONEncoder.encode = g\n"
        "    json.encoder.JSONEncoder.iterencode = g\n    return 1",
        ("cpu_limit", "ok"),
    ),
    "decompression": Greedy(
        "import zlib\n    data = zlib.compress(bytes(10 ** 7)) \n    d = zlib.decompressobj()\n    out = b''\n"
        "    for _ in range(100): out += zlib.decompress(data)\n    return 1",
        ("memory_limit",),
        Limits(cpu_s=3.0, memory_mb=256),
    ),
    "decompression in C": Greedy(
        "import bz2, zlib\n    x = bytes(10 ** 7)\n    while True: zlib.compress(x, 9)", CPU
    ),
    "deeply nested source": Greedy(
        "return eval('(' * 10 ** 5 + ')' * 10 ** 5)", ("error", "killed", "memory_limit")
    ),
    "deeply nested brackets compiled": Greedy(
        "return eval('[' * 150 + ']' * 150)", ("error", "memory_limit", "cpu_limit")
    ),
    "sleep": Greedy("import time; time.sleep(1000)", ("wall_limit",), WAIT),
    "wait for a lock": Greedy("import threading; threading.Semaphore(0).acquire()", ("wall_limit",), WAIT),
    "wait for a pipe": Greedy("import os; os.read(os.pipe()[0], 1)", ("wall_limit",), WAIT),
    "pause with signals blocked": Greedy(
        "import signal\n    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n    signal.pause()",
        ("wall_limit",),
        WAIT,
    ),
    "stop itself": Greedy(
        "import os, signal, time\n    os.kill(os.getpid(), signal.SIGSTOP)\n    time.sleep(1000)",
        ("wall_limit",),
        WAIT,
    ),
    "sleep with output closed": Greedy(
        "import os, time\n    os.closerange(0, 300)\n    time.sleep(1000)", ("wall_limit",), WAIT
    ),
    "forgotten non-daemon thread": Greedy(
        "import threading, time\n    threading.Thread(target=time.sleep, args=(1000,)).start()\n    return 1",
        ("ok",),
        WAIT,
    ),
    "bytes": Greedy("return len(bytes(10 ** 10))", ("memory_limit",)),
    "doubling list": Greedy("x = [0]\n    while True: x += x", ("memory_limit",), SMALL),
    "anonymous maps": Greedy(
        "import mmap\n    x = []\n    while True:\n        x.append(mmap.mmap(-1, 1 << 24))\n"
        "        x[-1].write(bytes(1 << 24))",
        MEMORY,
        SMALL,
    ),
    "memory, and again when it fails": Greedy(
        "x = []\n    while True:\n        try:\n            while True: x.append(bytes(1 << 20))\n"
        "        except MemoryError: pass",
        ("cpu_limit", "memory_limit"),
    ),
    "thread bomb": Greedy(
        "import threading, time\n    n = 0\n    while n < 10000:\n"
        "        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n        n += 1\n    return n",
        (*MEMORY, "killed"),
        Limits(cpu_s=2.0, memory_mb=256),
    ),
    "pipe bomb": Greedy(
        "import os\n    x = []\n    while True:\n        r, w = os.pipe()\n        os.set_blocking(w, False)\n"
        "        os.write(w, bytes(1 << 16))",
        ("error",),
    ),
    "fill the scratch folder": Greedy(
        "import os\n    n = 0\n    while True:\n        with open(f'/tmp/{n}', 'wb') as file: file.write(bytes(1 << 20))\n"
        "        n += 1",
        ("error",),
    ),
    "one huge file": Greedy("with open('/tmp/x', 'wb') as f: f.truncate(1 << 50)", ("error",)),
    "many small files": Greedy("for n in range(10 ** 6): open(f'/tmp/{n}', 'w').close()", ("error",)),
    "deep recursion": Greedy("return f(x)", ("error",)),
    "deep recursion, limit raised": Greedy(
        "import sys\n    sys.setrecursionlimit(10 ** 9)\n    return f(x)",
        ("memory_limit", "killed", "cpu_limit"),
    ),
    "deep recursion in C": Greedy(
        "import sys\n    sys.setrecursionlimit(10 ** 9)\n    x = []\n    for _ in range(10 ** 6): x = [x]\n    return repr(x)",
        ("killed", "memory_limit", "error", "cpu_limit"),
        Limits(cpu_s=0.3),
    ),
    "crash": Greedy("import ctypes\n    ctypes.string_at(1)", ("killed",)),
    "abort": Greedy("import os\n    os.abort()", ("killed",)),
    "output": Greedy("while True: print('x' * 1000)", ("output_limit",), SMALL),
    "errors": Greedy(
        "import sys\n    while True: print('x' * 1000, file=sys.stderr)", ("output_limit",), SMALL
    ),
    "raw output": Greedy("import os\n    while True: os.write(1, bytes(1 << 16))", ("output_limit",), SMALL),
    "a huge value": Greedy("return 'x' * 10 ** 6", ("output_limit",), SMALL),
    "a wide value": Greedy("return [[]] * 10 ** 5", ("output_limit",), SMALL),
    "results without end": Greedy(
        "import os\n    while True: os.write(3, b'v1' * 1000)", ("output_limit",), SMALL
    ),
    "huge exception": Greedy("raise ValueError('x' * 10 ** 7)", ("error",), SMALL),
    "exception without end": Greedy(
        "class E(Exception):\n        def __str__(self):\n            while True: pass\n    raise E", CPU
    ),
    "long chain of exceptions": Greedy(
        "e = None\n    for n in range(10 ** 5):\n        b = ValueError(n)\n        b.__cause__ = e\n        e = b\n"
        "    raise e",
        ("error",),
        Limits(cpu_s=2.0),
    ),
}


@dataclass(frozen=True)
class Timed:
    result: Result
    seconds: float
    load: float


def _load() -> float:
    return max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))


@pytest.fixture(scope="module")
def timed(sandbox: Sandbox) -> dict[str, Timed]:
    """Every greedy program, run once, with the time that each took; more at once than cores, as many wait."""

    def run(greedy: Greedy) -> Timed:
        program = f"{greedy.head}\ndef f(x):\n    {greedy.body}\n"
        start = time.monotonic()
        result = crowd.run(program, "f", [[1]], greedy.limits)
        return Timed(result, time.monotonic() - start, _load())

    with Sandbox(workers=4) as crowd, ThreadPoolExecutor(crowd.workers) as pool:
        return dict(zip(GREEDY, pool.map(run, GREEDY.values()), strict=True))


@pytest.mark.parametrize("name", GREEDY)
def test_it_ends_as_it_should(timed: dict[str, Timed], name: str) -> None:
    result = timed[name].result
    assert result.status in GREEDY[name].statuses, result
    assert len(result.stdout) + len(result.stderr) <= GREEDY[name].limits.output_bytes


@pytest.mark.parametrize("name", GREEDY)
def test_it_does_not_stall(timed: dict[str, Timed], name: str) -> None:
    run = timed[name]
    assert run.seconds <= (GREEDY[name].limits.wall + 0.5) * run.load


def test_the_parent_stays_small(sandbox: Sandbox) -> None:
    program = "import os\ndef f(x):\n    while True: os.write(x, bytes(1 << 16))"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run_jobs(sandbox, [Job(program, "f", [[fd]], Limits(cpu_s=0.5)) for fd in (1, 2, 3) * 4])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 40  # MiB: a few times the 1 MB that each may send


def test_cpu_time_is_what_counts(sandbox: Sandbox) -> None:
    """A program that waits longer than its CPU limit is not stopped for it."""
    result = sandbox.run("import time\ndef f(x): time.sleep(0.3); return 1", "f", [[0]], Limits(cpu_s=0.1))
    assert (result.status, result.values) == ("ok", [1])
    assert result.cpu_s < 0.1
