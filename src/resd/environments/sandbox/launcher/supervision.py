"""Watching one child: its CPU time and its wall clock, and the end of everything it started."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from dataclasses import dataclass

_LONGEST_WAIT, _SHORTEST_WAIT = 1.0, 0.002
_SCAN = 0.05  # seconds between looks at a tree of processes
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Ended:
    """`reason`: "exit" (by itself), "cpu", "wall" or "stopped" (told to). `status` as of waitpid."""

    reason: str
    status: int
    cpu_s: float


def watch(pid: int, cpu_s: float, wall_s: float, control: socket.socket, tree: Tree | None) -> Ended:
    """Wait for the child, or end it when it passes a limit or the parent says so.

    Without a `tree`, the child's end is the end of all: it is process 1 of a process id space of its own, or
    cannot start processes.
    """
    deadline = time.monotonic() + wall_s
    child = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(child, select.POLLIN)
    poll.register(control, select.POLLIN)
    try:
        reason = _until_end(pid, cpu_s, deadline, poll, child, control, tree)
    finally:
        os.close(child)
        os.kill(pid, signal.SIGKILL)  # not reaped yet, so the id is still its own
    if tree:
        tree.kill()
    _, status, usage = os.wait4(pid, 0)
    used = usage.ru_utime + usage.ru_stime + (tree.ended_s if tree else 0.0)
    if reason == "exit" and used > cpu_s:
        reason = "cpu"
    return Ended(reason, status, used)


def _until_end(
    pid: int,
    cpu_s: float,
    deadline: float,
    poll: select.poll,
    child: int,
    control: socket.socket,
    tree: Tree | None,
) -> str:
    cores = len(os.sched_getaffinity(0))
    while True:
        cpu_left = cpu_s - (tree.cpu() if tree else cpu_time(pid))
        wall_left = deadline - time.monotonic()
        if cpu_left <= 0:
            return "cpu"
        if wall_left <= 0:
            return "wall"
        wait = min(max(cpu_left / cores, _SHORTEST_WAIT), wall_left, _SCAN if tree else _LONGEST_WAIT)
        ready = {fd for fd, _ in poll.poll(wait * 1000 + 1)}
        if child in ready:
            return "exit"
        if control.fileno() in ready:
            control.recv(4096)  # the parent says stop, or is gone
            return "stopped"


def cpu_time(pid: int) -> float:
    """Seconds of CPU that a process has used, all its threads together."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # the kernel's name of another process's CPU clock
    except OSError:
        return 0.0


class Tree:
    """A child and its descendants, found in /proc, where there is no process id space.

    The launcher must be a subreaper. A process that ends unseen between two looks, its parent ignoring it,
    is not counted.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ended_s = 0.0

    def cpu(self) -> float:
        total = self.ended_s
        for pid in self._reaped():
            total += _stat(pid)[1]
        return total

    def kill(self) -> None:
        """Every process but the first, which the caller reaps. Stops before a lost race lasts for ever."""
        for _ in range(1000):
            others = [pid for pid in self._reaped() if pid != self.pid]
            if not others:
                return
            for pid in others:
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    continue
            time.sleep(0.001)

    def _reaped(self) -> list[int]:
        """Living descendants; orphans that ended are reaped and their time is kept."""
        living = []
        for pid in descendants(os.getpid()):
            if pid == self.pid:
                living.append(pid)
                continue
            try:
                ended, _, usage = os.wait4(pid, os.WNOHANG)
                self.ended_s += (usage.ru_utime + usage.ru_stime) if ended else 0.0
            except ChildProcessError:
                ended = 0  # a grandchild
            if not ended:
                living.append(pid)
        return living


def descendants(root: int) -> list[int]:
    parents = {pid: _stat(pid)[0] for pid in map(int, filter(str.isdigit, os.listdir("/proc")))}
    found = {root}
    grew = True
    while grew:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        grew = bool(more)
    return sorted(found - {root})


def _stat(pid: int) -> tuple[int, float]:
    """Parent, and seconds of CPU of a process and of those children it waited for."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
    except OSError:
        return 0, 0.0
    return int(fields[1]), sum(map(int, fields[11:15])) / _TICKS
