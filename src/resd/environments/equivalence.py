"""Whether two mathematical expressions are equal, decided in a process that can be killed.

`math-verify` reads LaTeX and compares with sympy, which computes what it reads: 9^{9^{9^9}} never ends, and
neither a thread nor a signal handler can stop it. It therefore works in a process of its own, under limits of
CPU time (verdicts do not depend on the load of the machine) and memory. The process is kept for the next
pair, and ends with its parent. Nothing is evaluated as a program. Any number of threads may ask at once.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import resd
from resd.records import ResdError

CPU_SECONDS = 2.0  # for one pair
MEMORY = 2 << 30  # bytes of address space
_WALL_SECONDS = 60.0  # the last resort, for a process that waits without computing
_START_SECONDS = 120.0


class Comparer:
    """Uses idle processes and starts one if none is idle, up to one per calling thread."""

    def __init__(self, cpu_seconds: float = CPU_SECONDS) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise ResdError("math: answers are compared with math-verify; pip install 'resd[tasks]'")
        self._cpu_seconds = cpu_seconds
        self._idle: list[_Process] = []

    def equal(self, expected: str, answer: str) -> bool | None:
        """Whether two LaTeX expressions are equal; None if that took too much time or memory."""
        while True:
            process, fresh = self._process()
            try:
                result = process.ask(expected, answer)
            except _EndedError as ended:
                # One that ended while it was idle says nothing of this pair.
                if fresh or ended.asked:
                    return None
                continue
            self._idle.append(process)
            return result

    def _process(self) -> tuple[_Process, bool]:
        try:
            return self._idle.pop(), False
        except IndexError:
            return _Process(self._cpu_seconds), True


class _EndedError(Exception):
    """The process is gone. `asked` says whether it had been given the pair."""

    def __init__(self, asked: bool) -> None:
        super().__init__()
        self.asked = asked


class _Process:
    def __init__(self, cpu_seconds: float) -> None:
        paths = [str(Path(resd.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            # -P: files of the current folder must not stand in for modules.
            [sys.executable, "-P", "-m", __name__, str(cpu_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**_environment(), "PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0"},
            bufsize=0,
            start_new_session=True,
        )
        self._stop = weakref.finalize(self, _stopped, self._process)
        if self._line(_START_SECONDS) is None:
            self._stop()
            raise ResdError("math: the process that compares answers did not start; check math-verify")

    def ask(self, expected: str, answer: str) -> bool | None:
        """Like `Comparer.equal`. Stops the process and raises _EndedError if it gave no reply."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps([expected, answer]).encode() + b"\n")
        except BrokenPipeError:
            self._stop()
            raise _EndedError(asked=False) from None
        line = self._line(_WALL_SECONDS)
        if line is None:
            self._stop()
            raise _EndedError(asked=True)
        result: bool | None = json.loads(line)
        return result

    def _line(self, seconds: float) -> bytes | None:
        """The process's next line; None if it ends or writes nothing within `seconds`."""
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(output, select.POLLIN)
        line, deadline = b"", time.monotonic() + seconds
        while not line.endswith(b"\n"):
            if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
                return None
            if not (read := os.read(output, 1024)):
                return None
            line += read
        return line


def _environment() -> dict[str, str]:
    """The variables that an interpreter may need to find its libraries, without our secrets."""
    return {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}


def _stopped(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def main() -> None:
    """The process: reads one pair per line and writes one verdict per line, until the input ends."""
    import logging
    import resource
    import signal

    output, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no verdict
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    cpu_seconds = float(sys.argv[1])
    _equal("1", "\\frac{2}{2}")  # loads what is loaded on first use
    print("ready", file=output, flush=True)
    for line in sys.stdin.buffer:
        expected, answer = json.loads(line)
        # Not handled: the kernel ends the process, wherever it computes.
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        result = _equal(expected, answer)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(result), file=output, flush=True)


def _equal(expected: str, answer: str) -> bool | None:
    from math_verify import verify
    from sympy.core.cache import clear_cache  # type: ignore[import-untyped]

    try:
        result: bool = verify(_parsed(expected), _parsed(answer), timeout_seconds=None)
    except (MemoryError, RecursionError):
        return None
    finally:
        clear_cache()  # a pair must not depend on those before it
    return result


def _parsed(text: str) -> Any:
    # LaTeX alone: what reads plain expressions evaluates them as Python.
    from math_verify import LatexExtractionConfig, parse

    config = LatexExtractionConfig(boxed_match_priority=0)
    return parse(f"\\boxed{{{text}}}", [config], parsing_timeout=None)


if __name__ == "__main__":
    main()
