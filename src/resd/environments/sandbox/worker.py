"""One launcher process, seen from the parent: starting it, handing it jobs, reading what comes back."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from resd.environments.sandbox.isolation import Isolation
from resd.environments.sandbox.jobs import Limits

_START_S = 20.0  # a launcher that says nothing for so long is given up; measured: 0.1 s
_GRACE_S = 0.3  # what the launcher has, beyond the wall limit, to end a job and say so
_MAX_MESSAGE = 4096
_CHUNK = 1 << 16
_UNPRIVILEGED = 65534
_BOOT = (
    "import sys; sys.path.insert(0, {folder!r}); from launcher.program import main; del sys.path[0]; "
    "main({wanted!r}, {packages!r})"
)


_WORKERS: weakref.WeakSet[Worker] = weakref.WeakSet()


def _forget_all() -> None:
    for worker in _WORKERS:
        worker.forget()


os.register_at_fork(after_in_child=_forget_all)  # a copy of the socket would keep launchers alive without us


class LauncherError(Exception):
    """The launcher could not be started, or not with what was asked of it."""


@dataclass
class Run:
    """One child's outcome. `reason`: "exit", "cpu", "wall", "output", or "lost" with the launcher."""

    reason: str = "lost"
    status: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    results: bytearray = field(default_factory=bytearray)
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)


class Worker:
    """A launcher and the socket to it. Runs one child at a time; not for use by two threads at once."""

    def __init__(self, wanted: Sequence[str], packages: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control, self._running = ours, False
        folder = str(Path(__file__).parent)
        boot = _BOOT.format(folder=folder, wanted=list(wanted), packages=dict(packages))
        with theirs:
            self._process = _started([_interpreter(), "-P", "-s", "-S", "-c", boot], theirs)
        try:
            self.isolation = self._hello(wanted)
        except BaseException:
            self.close()
            raise
        _WORKERS.add(self)

    def _hello(self, wanted: Sequence[str]) -> Isolation:
        self._control.settimeout(_START_S)
        try:
            message = self._control.recv(_MAX_MESSAGE)
        except OSError as error:
            raise LauncherError(f"the launcher does not answer: {error}") from error
        if not message:
            raise LauncherError("the launcher ended while starting")
        said = json.loads(message)
        if "failed" in said:
            raise LauncherError(said["failed"])
        inside = "namespaces" in wanted
        uid = _UNPRIVILEGED if inside or os.geteuid() == 0 else os.geteuid()
        return Isolation(inside, said["landlock"], said["seccomp"], uid)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End the launcher, and with it whatever it runs: a thread that waits for that learns it at once."""
        self._process.kill()
        self._process.wait()
        if not self._running:
            self._control.close()

    def forget(self) -> None:
        """In a forked copy of the parent: let go of the launcher, which is not ours."""
        self._control.close()
        self._process.returncode = 0  # nothing to wait for

    def run(self, request: bytes, stdin: bytes, limits: Limits) -> Run:
        """Run one child. After "lost" the worker is of no further use and must be closed."""
        run, start = Run(), time.monotonic()
        self._running = True
        with contextlib.ExitStack() as stack:
            stack.callback(setattr, self, "_running", False)
            readers, writers = zip(*[_pipe(stack) for _ in range(3)], strict=True)
            files = [_sealed_file(data, stack) for data in (stdin, request)]
            if self._send(limits, [files[0], *(writer.fileno() for writer in writers), files[1]]):
                for writer in writers:
                    writer.close()
                exchange = _Exchange(self._control, readers, run, limits.output_bytes)
                exchange.until(start + limits.wall + _GRACE_S)
        run.wall_s = time.monotonic() - start
        return run

    def _send(self, limits: Limits, fds: list[int]) -> bool:
        message = {"cpu_s": limits.cpu_s, "wall_s": limits.wall, "memory_mb": limits.memory_mb}
        try:
            self._control.settimeout(1.0)
            socket.send_fds(self._control, [json.dumps(message).encode()], fds)
        except OSError:
            return False
        return True


class _Exchange:
    """Reads a child's three pipes and the launcher's word until the child has ended."""

    def __init__(self, control: socket.socket, readers: Sequence[IO[bytes]], run: Run, most: int) -> None:
        self.control, self.run, self.left = control, run, most
        # In the order of the child's descriptors: output, error, results.
        fds = [reader.fileno() for reader in readers]
        self.sinks = dict(zip(fds, (run.stdout, run.stderr, run.results), strict=True))

    def until(self, deadline: float) -> None:
        with selectors.DefaultSelector() as selector:
            for fd in (self.control.fileno(), *self.sinks):
                selector.register(fd, selectors.EVENT_READ)
            left = 1.0
            while left > 0:  # and once more: we may have been kept from looking, not the child from ending
                left = deadline - time.monotonic()
                for key, _ in selector.select(max(left, 0)):
                    if key.fd == self.control.fileno():
                        self._ended()
                        return
                    if not self._read(key.fd):
                        selector.unregister(key.fd)

    def _read(self, fd: int) -> bool:
        """False at the end of the pipe. What exceeds the limit is read and dropped, and the child stopped."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return True
        had = self.left
        self.sinks[fd] += data[: max(had, 0)]
        self.left -= len(data)
        if had >= 0 > self.left:
            with contextlib.suppress(OSError):
                self.control.send(b"stop")
        return bool(data)

    def _ended(self) -> None:
        """Nobody writes any more: what is in the pipes is all there is."""
        try:
            message = self.control.recv(_MAX_MESSAGE)
        except OSError:
            return
        if not message:
            return
        self.run.reason, self.run.status, self.run.cpu_s = json.loads(message)
        for fd in self.sinks:
            while self._more(fd):
                pass
        if self.left < 0:
            self.run.reason = "output"

    def _more(self, fd: int) -> bool:
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        self.sinks[fd] += data[: max(self.left, 0)]
        self.left -= len(data)
        return bool(data)


def _started(command: list[str], control: socket.socket) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            stdin=control.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PYTHONHASHSEED": "0"},  # the order of a set of texts must not decide a verdict
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise LauncherError(f"the launcher cannot be started: {error}") from error


def _interpreter() -> str:
    """The interpreter below a virtual environment: its own folder is all that a job may see."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def _pipe(stack: contextlib.ExitStack) -> tuple[IO[bytes], IO[bytes]]:
    read, write = os.pipe()
    os.set_blocking(read, False)
    return stack.enter_context(open(read, "rb", 0)), stack.enter_context(open(write, "wb", 0))


def _sealed_file(data: bytes, stack: contextlib.ExitStack) -> int:
    """A file in memory that can be read and nothing else."""
    fd = os.memfd_create("sandbox", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    stack.callback(os.close, fd)
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd
