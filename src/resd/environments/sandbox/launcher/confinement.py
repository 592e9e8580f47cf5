"""What a child does to itself before it runs a program: everything here can only be tightened afterwards."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from . import landlock, linux, namespaces, seccomp

_MEGABYTE = 1 << 20
_STACK = 64 * _MEGABYTE
_THREADS = 64
_OPEN_FILES = 64


@dataclass(frozen=True)
class Parts:
    """What of the host is used. `landlock` is the version in use, 0: none."""

    namespaces: bool
    landlock: int
    seccomp: bool
    readable: Sequence[str]


def confine(parts: Parts, cpu_s: float, memory_mb: int) -> None:
    """Confine this process. Raises OSError where a part fails: then nothing may run."""
    os.setsid()
    if parts.namespaces:
        namespaces.private_scratch()
    else:
        os.chdir("/")
    _limit(parts, cpu_s, memory_mb)
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    if parts.landlock:
        writable = [namespaces.SCRATCH] if parts.namespaces else []
        rules = landlock.ruleset(parts.landlock, [*parts.readable, "/dev/urandom"], [*writable, "/dev/null"])
        landlock.restrict_self(rules)
    if os.geteuid() == 0:
        leave_root()
    linux.drop_capabilities()
    if not parts.namespaces:
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    if parts.seccomp:
        seccomp.install()


def leave_root() -> None:
    os.setgroups([])
    os.setresgid(*[namespaces.UNPRIVILEGED] * 3)
    os.setresuid(*[namespaces.UNPRIVILEGED] * 3)


def _limit(parts: Parts, cpu_s: float, memory_mb: int) -> None:
    seconds = int(cpu_s) + 2  # the launcher decides at the exact limit; this holds if it cannot
    # Where memory is not the only writable place, nothing may be written at all.
    file_size = 16 * _MEGABYTE if parts.namespaces else 0
    for what, most in [
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory_mb * _MEGABYTE),
        (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_STACK, _STACK),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_NPROC, _most_processes(parts)),
    ]:
        had = resource.getrlimit(what)[1]
        most = most if had == resource.RLIM_INFINITY else min(most, had)
        resource.setrlimit(what, (most, most))


def _most_processes(parts: Parts) -> int:
    """Processes and threads of our uid. Inside a user namespace only what runs there counts."""
    if parts.namespaces:
        return _THREADS if parts.seccomp else 3
    return _THREADS + sum(_threads_of(namespaces.UNPRIVILEGED if os.geteuid() == 0 else os.geteuid()))


def _threads_of(uid: int) -> list[int]:
    counts = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}").st_uid == uid:
                counts.append(len(os.listdir(f"/proc/{pid}/task")))
        except OSError:
            continue  # ended meanwhile
    return counts
