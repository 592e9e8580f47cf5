"""Workers: started late, replaced when lost, and gone without a trace."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from environments.together import run_jobs
from resd.environments.sandbox import Job, Limits, Sandbox
from resd.environments.sandbox import isolation as isolation_module
from resd.records import ResdError

DOUBLE = "def f(x): return 2 * x"
SLEEP = "import time\ndef f(x): time.sleep(60)"


def _children(pid: int | None = None) -> set[int]:
    """Ids of the processes below one."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        parents[int(folder.name)] = int(fields[1])
    found = {pid or os.getpid()}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid or os.getpid()}


def _gone(pids: set[int]) -> bool:
    """Whether they end within a few seconds. What is left for somebody else to wait for has ended."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not any(_lives(pid) for pid in pids):
            return True
        time.sleep(0.01)
    return False


def _lives(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def _signal(pids: set[int], number: int) -> None:
    for pid in sorted(pids & _children()):
        with contextlib.suppress(ProcessLookupError):  # ended with the one before
            os.kill(pid, number)


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_nothing_starts_before_the_first_job_or_stays_after_the_last() -> None:
    before, files = _children(), _open_files()
    with Sandbox(workers=2) as sandbox:
        assert _children() == before
        assert sandbox.run(DOUBLE, "f", [[1]]).values == [2]
        assert _children() > before
    assert _gone(_children() - before)
    assert _open_files() == files


def test_jobs_leave_no_processes_files_or_zombies(sandbox: Sandbox) -> None:
    run_jobs(sandbox, [Job(DOUBLE, "f", [[1]])] * 4)
    before, files = _children(), _open_files()
    run_jobs(sandbox, [Job(DOUBLE, "f", [[1]]), Job("import os; os._exit(1)", "f", [[1]])] * 20)
    assert _children() == before
    assert _open_files() == files


def test_results_go_to_whom_they_belong(sandbox: Sandbox) -> None:
    def ask(n: int) -> bool:
        return sandbox.run(DOUBLE, "f", [[n]]).values == [2 * n]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(100)))
    jobs = [Job(f"def f(x): return [x, {n}]", "f", [[n]]) for n in range(30)]
    assert [result.values for result in run_jobs(sandbox, jobs)] == [[[n, n]] for n in range(30)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_launcher_is_replaced(number: int) -> None:
    with Sandbox(workers=1) as sandbox:
        sandbox.run(DOUBLE, "f", [[1]])
        targets = _children()
        timer = threading.Timer(0.2, _signal, (targets, number))
        timer.start()
        start = time.monotonic()
        result = sandbox.run(SLEEP, "f", [[1]], Limits(wall_s=0.4))
        assert time.monotonic() - start < 5
        assert result.status == "killed"
        timer.join()
        assert sandbox.run(DOUBLE, "f", [[2]]).values == [4]


def test_a_launcher_lost_between_jobs_is_replaced() -> None:
    with Sandbox(workers=1) as sandbox:
        before = _children()
        sandbox.run(DOUBLE, "f", [[1]])
        _signal(_children() - before, signal.SIGKILL)
        assert sandbox.run(DOUBLE, "f", [[2]]).status in ("ok", "killed")
        assert sandbox.run(DOUBLE, "f", [[3]]).values == [6]


def test_a_launcher_that_cannot_be_started_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox(isolation="weak", workers=1) as sandbox:
        sandbox.run(DOUBLE, "f", [[1]])
        sandbox.close()
        failures = [OSError(11, "no process"), OSError(12, "no memory")]
        real = subprocess.Popen

        def popen(*arguments: object, **named: object) -> object:
            if failures:
                raise failures.pop()
            return real(*arguments, **named)  # type: ignore[call-overload]

        monkeypatch.setattr(subprocess, "Popen", popen)
        assert sandbox.run(DOUBLE, "f", [[2]]).values == [4]
        assert not failures


def test_closing_ends_a_job_of_another_thread() -> None:
    sandbox = Sandbox(workers=1)
    sandbox.run(DOUBLE, "f", [[1]])
    files = _open_files()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(sandbox.run, SLEEP, "f", [[1]], Limits(wall_s=20.0))
        time.sleep(0.2)
        start = time.monotonic()
        sandbox.close()
        assert waiting.result().status == "killed"
    assert time.monotonic() - start < 5
    assert _open_files() < files


def test_a_result_counts_though_the_parent_looks_late() -> None:
    """Something in the trainer may keep all threads from running for longer than a job may take."""
    with Sandbox(workers=1) as sandbox:
        sandbox.run(DOUBLE, "f", [[1]])
        hold = ctypes.PyDLL(None).usleep  # does not let go of the interpreter
        threading.Timer(0.05, hold, (900_000,)).start()
        program = "import time\ndef f(x): time.sleep(0.1); return x"
        result = sandbox.run(program, "f", [[1]], Limits(wall_s=0.4))
        assert (result.status, result.values) == ("ok", [1])


def test_an_interrupted_job_ends() -> None:
    others = _children()
    with Sandbox(workers=1) as sandbox:
        sandbox.run(DOUBLE, "f", [[1]])
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            sandbox.run(SLEEP, "f", [[1]], Limits(wall_s=20.0))
        assert _gone(_children() - others)
        assert sandbox.run(DOUBLE, "f", [[2]]).values == [4]


def test_a_forked_copy_has_workers_of_its_own(sandbox: Sandbox) -> None:
    assert sandbox.run(DOUBLE, "f", [[1]]).values == [2]
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if sandbox.run(DOUBLE, "f", [[4]]).values == [8] else 2
            sandbox.close()
        finally:
            os._exit(code)
    assert sandbox.run(DOUBLE, "f", [[5]]).values == [10]
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert sandbox.run(DOUBLE, "f", [[6]]).values == [12]


def test_launchers_end_with_the_process_that_started_them() -> None:
    program = (
        "import os\nfrom resd.environments.sandbox import Sandbox\ns = Sandbox(workers=1)\n"
        "s.run('def f(x): return x', 'f', [[1]])\nprint('ready', flush=True)\ninput()\n"
        "os.kill(os.getpid(), 9)"
    )
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        pytest.skip("the sandbox does not start here")
    launchers = _children(process.pid)
    process.communicate("go\n")
    assert launchers
    assert _gone(launchers)


def test_sets_have_the_same_order_everywhere(sandbox: Sandbox) -> None:
    program = "import os\ndef f(): return [hash('a'), len(os.environ)]"
    with Sandbox(workers=1) as other:
        assert sandbox.run(program, "f", [[]]).values == other.run(program, "f", [[]]).values
        assert other.run(program, "f", [[]]).values[0][1] == 0


def test_copies_are_fresh() -> None:
    sandbox = Sandbox(isolation="weak", workers=3)
    for copied in (pickle.loads(pickle.dumps(sandbox)), copy.deepcopy(sandbox)):
        assert copied.workers == 3
        with copied:
            assert copied.isolation_in_use.startswith("limits only")


def test_workers_defaults_to_cores() -> None:
    assert Sandbox().workers == len(os.sched_getaffinity(0))


def test_bad_options() -> None:
    with pytest.raises(ResdError, match="isolation 'strong' is not known"):
        Sandbox(isolation="strong")
    with pytest.raises(ResdError, match="workers is 0"):
        Sandbox(workers=0)


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ResdError, match="on Linux only, this is darwin"):
        Sandbox(isolation="weak")


@pytest.mark.parametrize("offered", [(), ("seccomp",), ("landlock",)])
def test_a_host_that_offers_too_little_is_refused(
    monkeypatch: pytest.MonkeyPatch, offered: tuple[str, ...]
) -> None:
    monkeypatch.setattr(isolation_module, "LEVELS", {"strongest": (offered,), "weak": ((),)})
    monkeypatch.setattr("resd.environments.sandbox.sandbox.LEVELS", {"strongest": (offered,)})
    with Sandbox(workers=1) as sandbox, pytest.raises(ResdError, match="cannot keep programs from"):
        sandbox.run(DOUBLE, "f", [[1]])


# In a process of its own, which orphans are handed to: the helper that maps ids must not outlive a refusal.
REFUSED = """
import ctypes, os, sys, time
sys.path.insert(0, {folder!r})
from launcher import linux, namespaces

ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER

def refuse(flags):
    raise PermissionError("no")

linux.unshare = refuse
if os.fork() == 0:
    try:
        namespaces._new_user()
    except PermissionError:
        os._exit(0)
deadline, ended = time.monotonic() + 20, 0
while ended < 2 and time.monotonic() < deadline:
    ended += os.waitpid(-1, os.WNOHANG)[0] > 0
    time.sleep(0.01)
print(ended)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs a helper to map ids")
def test_nobody_is_left_where_the_host_refuses_namespaces() -> None:
    folder = str(Path(str(isolation_module.__file__)).parent)
    done = subprocess.run(
        [sys.executable, "-c", REFUSED.format(folder=folder)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "2"
