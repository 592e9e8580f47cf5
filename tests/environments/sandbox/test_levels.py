"""The levels of isolation, and the sandbox as an ordinary user."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import resd
from environments.together import run_jobs
from resd.environments.sandbox import Job, Limits, Sandbox
from resd.environments.sandbox.isolation import Isolation
from resd.environments.sandbox.launcher import seccomp
from resd.records import ResdError

SOURCES = Path(resd.__file__).parents[1]


def test_descriptions() -> None:
    full = Isolation(namespaces=True, landlock=7, seccomp=True, uid=65534)
    assert str(full) == "namespaces, Landlock 7, seccomp, uid 65534"
    assert str(Isolation(False, 0, False, 1000)) == "limits only, uid 1000"
    assert full.sufficient
    assert Isolation(True, 0, False, 1).sufficient
    assert Isolation(False, 4, True, 1).sufficient
    assert not Isolation(False, 4, False, 1).sufficient
    assert not Isolation(False, 2, True, 1).sufficient  # files could be truncated
    assert not Isolation(False, 0, True, 1).sufficient


@pytest.mark.parametrize("level", ["sandbox", "landlocked", "weak"])
def test_every_level_runs_programs(level: str, request: pytest.FixtureRequest) -> None:
    sandbox: Sandbox = request.getfixturevalue(level)
    program = "import email.message\ndef f(x):\n    import colorsys, concurrent.futures\n    return x"
    assert sandbox.run(program, "f", [[1]]).values == [1]
    assert sandbox.run("print(input())", "__main__", [["a"]]).values == ["a\n"]
    assert sandbox.run("def f(x):\n    while 1: pass", "f", [[1]], Limits(cpu_s=0.2)).status == "cpu_limit"
    assert sandbox.run("def f(x): return bytes(10 ** 10)", "f", [[1]]).status == "memory_limit"
    assert sandbox.run("import os\ndef f(x): return os.getuid()", "f", [[1]]).values != [0]


def test_without_namespaces_nothing_is_writable(landlocked: Sandbox) -> None:
    assert landlocked.isolation_in_use.startswith("Landlock")
    program = "import tempfile\ndef f(x): open(x, 'w').write('a')"
    jobs = [Job(program, "f", [[path]]) for path in ("/tmp/resd-x", "/dev/shm/resd-x", "x", "/var/tmp/x")]
    for result in run_jobs(landlocked, jobs):
        assert str(result.errors[0]).startswith(("PermissionError", "FileNotFoundError"))
    assert landlocked.run("def f(x): open('/dev/null', 'w').write('a')", "f", [[1]]).status == "ok"


@pytest.mark.parametrize("level", ["strongest", "landlock", "weak"])
def test_packages_beyond_the_standard_library(level: str, request: pytest.FixtureRequest) -> None:
    pytest.importorskip("numpy")
    request.getfixturevalue({"strongest": "sandbox", "landlock": "landlocked", "weak": "weak"}[level])
    program = (
        "import numpy as np\nimport numpy.polynomial.chebyshev\nfrom sortedcontainers import SortedList\n"
        "def f(x): return [float(np.linalg.inv(np.array([[x]]))[0, 0]), list(SortedList([3, 1]))]"
    )
    with Sandbox(level, workers=1, packages=("numpy", "sortedcontainers")) as sandbox:
        result = sandbox.run(program, "f", [[4.0]])
        assert (result.status, result.values) == ("ok", [[0.25, [1, 3]]]), result
        assert result.cpu_s < 0.5
        others = sandbox.run("import pydantic\ndef f(x): return x", "f", [[1]])
        assert others.status == ("ok" if level == "weak" else "error")


def test_a_package_that_is_not_installed() -> None:
    with pytest.raises(ResdError, match="package 'no_such' is not installed"):
        Sandbox(packages=("no_such",))


def _marked(mark: str) -> list[str]:
    """Processes that carry a mark in their command line or name."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "comm").read_text() + (folder / "cmdline").read_text():
                found.append(folder.name)
        except OSError:
            continue
    return found


DAEMON = """
import ctypes, os, time
def f(mark):
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                ctypes.CDLL(None).prctl(15, mark.encode(), 0, 0, 0)
                os.closerange(0, 300)
                while True: time.sleep(1)
            os._exit(0)
    time.sleep(0.2)
    return 1
"""


def test_daemons_end_with_the_job_even_at_the_weak_level(weak: Sandbox) -> None:
    mark = f"d{os.getpid()}"
    result = weak.run(DAEMON, "f", [[mark]], Limits(cpu_s=1.0))
    assert result.values == [1]
    assert _marked(mark) == []
    again = weak.run(DAEMON.replace("0.2", "1000"), "f", [[mark]], Limits(cpu_s=1.0, wall_s=0.3))
    assert again.status == "wall_limit"
    assert _marked(mark) == []


def test_time_of_children_counts_at_the_weak_level(weak: Sandbox) -> None:
    program = "import os\ndef f(x):\n    os.fork(); os.fork()\n    while True: pass"
    start = time.monotonic()
    result = weak.run(program, "f", [[1]], Limits(cpu_s=0.4, wall_s=20))
    assert result.status == "cpu_limit"
    assert 0.4 <= result.cpu_s < 1.5
    assert time.monotonic() - start < 15


@pytest.fixture
def namespaces_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """As on a machine whose system calls the filter does not know, and without Landlock."""
    monkeypatch.setattr("resd.environments.sandbox.sandbox.LEVELS", {"strongest": (("namespaces",),)})
    with Sandbox(workers=1) as sandbox:
        try:
            assert sandbox.isolation_in_use == "namespaces, uid 65534"
        except ResdError as error:
            pytest.skip(f"no namespaces here: {error}")
        yield sandbox


def test_namespaces_alone_suffice(namespaces_only: Sandbox) -> None:
    def refused(program: str, status: str = "error") -> bool:
        return namespaces_only.run(program, "f", [[1]], Limits(cpu_s=0.3, wall_s=10)).status == status

    assert refused("def f(x): open('/etc/passwd')")
    assert refused("def f(x): open('/written', 'w')")
    assert refused("import socket\ndef f(x): socket.create_connection(('127.0.0.1', 22), 1)")
    assert refused("import socket\ndef f(x): socket.socket(2, 2).sendto(b'x', ('10.0.0.1', 9))")
    assert refused("import os\ndef f(x): os.fork()")
    assert refused("import os\ndef f(x): os.system('true') and 1 / 0")
    assert refused("import threading, time\ndef f(x): threading.Thread(target=time.sleep, args=(1,)).start()")
    assert refused("def f(x):\n    while True: pass", "cpu_limit")


def test_the_filter_is_a_valid_program_on_every_machine_it_knows() -> None:
    """Every jump lands inside, and every path ends in a verdict: walked for each call and some arguments."""
    for machine, (architecture, numbers) in seccomp._ARCHITECTURES.items():
        code = seccomp.instructions(machine, 42, own_files=True)
        assert len(code) < 4096
        assert _verdict(code, architecture, numbers["read"]) == seccomp._ALLOW
        assert _verdict(code, architecture, 9999) == seccomp._ERRNO | 1
        assert _verdict(code, 0x40000003, numbers["read"]) == seccomp._KILL
        assert _verdict(code, architecture, numbers["clone"], 0x00010000) == seccomp._ALLOW
        assert _verdict(code, architecture, numbers["clone"], 17) == seccomp._ERRNO | 1
        assert _verdict(code, architecture, numbers["clone3"]) == seccomp._ERRNO | 38
        assert _verdict(code, architecture, numbers["kill"], 42) == seccomp._ALLOW
        assert _verdict(code, architecture, numbers["kill"], 43) == seccomp._ERRNO | 1
        assert _verdict(code, architecture, numbers["sendto"], 0) == seccomp._ALLOW
        assert _verdict(code, architecture, numbers["sendto"], 16) == seccomp._ERRNO | 1
        hosts = seccomp.instructions(machine, 42, own_files=False)
        assert _verdict(code, architecture, numbers["fchmodat"]) == seccomp._ALLOW
        assert _verdict(hosts, architecture, numbers["fchmodat"]) == seccomp._ERRNO | 1
        assert _verdict(hosts, architecture, numbers["getpid"]) == seccomp._ALLOW
        for number in numbers.values():
            for argument in (0, 1, 42, 0x5401, 2**32 - 1):
                _verdict(code, architecture, number, argument)


def _verdict(code: list[seccomp.Instruction], architecture: int, number: int, argument: int = 0) -> int:
    """An interpreter of the few BPF instructions in use."""
    memory = {0: number, 4: architecture} | dict.fromkeys(range(16, 64, 8), argument)
    place = accumulator = 0
    while True:
        kind, yes, no, value = code[place]
        place += 1
        if kind == 0x20:
            accumulator = memory[value]
        elif kind == 0x06:
            return value
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}
            place += yes if holds[kind] else no


def _generic_numbers() -> dict[str, int]:
    header = Path("/usr/include/asm-generic/unistd.h")
    if not header.exists():
        pytest.skip("needs the kernel's headers")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    return {name: int(number) for name, number in found}


def test_numbers_are_those_of_the_headers() -> None:
    generic = {**_generic_numbers(), "fstatat": 79}  # under another name there
    for name, number in seccomp.AARCH64.items():
        assert generic[name] == number, name


AS_USER = """
import os, sys, tempfile
sys.path.insert(0, {sources!r})
from resd.environments.sandbox import Sandbox, Limits
own = tempfile.NamedTemporaryFile()
before = os.stat(own.name)
changes = ("os.chmod(x, 0o777)", "os.utime(x, (1, 1))", "os.truncate(x, 0)", "os.unlink(x)")
for level in ("strongest", "landlock", "weak"):
    with Sandbox(level, workers=1) as s:
        print(s.isolation_in_use)
        print(s.run("def f(x): return x + 1", "f", [[1]]).values)
        print(s.run("def f(x): return open(x).read()", "f", [["/etc/passwd"]]).status)
        print(s.run("import os\\ndef f(x): return os.fork() and 1", "f", [[1]]).status)
        kill = "import os\\ndef f(x): os.kill(x, 9)"
        print(s.run(kill, "f", [[os.getpid()]]).status if level != "weak" else "-")
        print(s.run("def f(x):\\n    while True: pass", "f", [[1]], Limits(cpu_s=0.2)).status)
        for change in changes * (level != "weak"):
            assert s.run("import os\\ndef f(x): " + change, "f", [[own.name]]).status == "error", change
            assert os.stat(own.name) == before
"""


def _interpreter_for_others() -> str:
    """One that a user without rights can start."""
    for python in (sys._base_executable, "/usr/bin/python3"):  # type: ignore[attr-defined]
        check = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        try:
            if (
                subprocess.run(check, user=65534, group=65534, extra_groups=[], env={}, cwd="/").returncode
                == 0
            ):
                return python
        except OSError:
            continue
    pytest.skip("no interpreter that others can start")


WITHOUT = """
import struct, sys
sys.path.insert(0, {sources!r})
from resd.environments.sandbox import Sandbox
from resd.environments.sandbox.launcher import linux, seccomp
denied = {denied}
code = [(0x20, 0, 0, 0)]
for number in denied:
    code += [(0x15, 0, 1, number), (0x06, 0, 0, 0x50026)] if number != 157 else [
        (0x15, 0, 4, 157), (0x20, 0, 0, 16), (0x15, 0, 1, 22), (0x06, 0, 0, 0x50016), (0x20, 0, 0, 0)]
code.append((0x06, 0, 0, 0x7FFF0000))
import ctypes
program = b"".join(struct.pack("HBBI", *line) for line in code)
kept = ctypes.create_string_buffer(program, len(program))
linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
linux.prctl(22, 2, ctypes.c_char_p(struct.pack("HxxxxxxP", len(code), ctypes.addressof(kept))))
try:
    with Sandbox(workers=1) as sandbox:
        print(sandbox.run("def f(x): return x + 1", "f", [[1]]).values, sandbox.isolation_in_use)
except Exception as error:
    print(type(error).__name__, error)
"""
UNSHARE, SETNS, MOUNT, LANDLOCK, FILTER, PIDFD = 272, 308, 165, 444, 157, 434
HOSTS = {
    (): "[2] namespaces, Landlock",
    (UNSHARE,): "[2] Landlock",
    (SETNS,): "[2] Landlock",
    (MOUNT,): "[2] Landlock",
    (LANDLOCK,): "[2] namespaces, seccomp",
    (UNSHARE, LANDLOCK): "ResdError sandbox: this host cannot keep programs from",
    (FILTER, UNSHARE): "ResdError sandbox: this host cannot keep programs from",
    (FILTER,): "ResdError sandbox: this host cannot keep programs from",
    (PIDFD,): "ResdError sandbox: this host cannot keep programs from",
}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="system calls by x86_64 number")
def test_hosts_that_refuse_a_part(sandbox: Sandbox) -> None:
    """What is missing is noticed, and either made up for or refused: nothing is quietly weaker."""
    if not sandbox.isolation_in_use.startswith("namespaces, Landlock"):
        pytest.skip("this host refuses a part itself")

    def said(denied: tuple[int, ...]) -> str:
        script = WITHOUT.format(sources=str(SOURCES), denied=denied)
        ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert ran.stdout.count("\n") == 1, ran.stderr
        return ran.stdout

    with ThreadPoolExecutor(2) as pool:
        for (denied, wanted), line in zip(HOSTS.items(), pool.map(said, HOSTS), strict=True):
            assert line.startswith(wanted), (denied, line)


def test_as_an_ordinary_user() -> None:
    if os.geteuid() != 0:
        pytest.skip("the other tests run as an ordinary user already")
    python = _interpreter_for_others()
    ran = subprocess.run(
        [python, "-c", AS_USER.format(sources=str(SOURCES))],
        user=65534,
        group=65534,
        extra_groups=[],
        env={"PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
        capture_output=True,
        text=True,
    )
    lines = ran.stdout.split("\n")
    if "cannot keep programs from" in ran.stderr:
        pytest.skip(f"this host offers users too little: {ran.stderr.splitlines()[-1]}")
    assert lines[0:1] + lines[6:7] + lines[12:13] == [
        lines[0],
        lines[0].removeprefix("namespaces, "),
        "limits only, uid 65534",
    ], ran.stderr
    assert lines[1:6] == lines[7:12] == ["[2]", "error", "error", "error", "cpu_limit"]
    assert lines[13] == "[2]"
    assert lines[14] == "ok"
    assert lines[17] == "cpu_limit"
