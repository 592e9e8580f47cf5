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
_SCRATCH = 16 * _MEGABYTE
_THREADS = 64
_OPEN_FILES = 64


@dataclass(frozen=True)
class Parts:
    """What of the host is used.

    `landlock` is the version in use, 0: none. `company`: how many processes of the child's uid its user
    namespace holds beside it.
    """

    namespaces: bool
    landlock: int
    seccomp: bool
    readable: Sequence[str]
    company: int


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
        seccomp.install(own_files=parts.namespaces)


def leave_root() -> None:
    os.setgroups([])
    os.setresgid(*[namespaces.UNPRIVILEGED] * 3)
    os.setresuid(*[namespaces.UNPRIVILEGED] * 3)


def _limit(parts: Parts, cpu_s: float, memory_mb: int) -> None:
    limits = {
        resource.RLIMIT_CPU: int(cpu_s) + 2,  # the launcher ends a job at the exact limit; this if it cannot
        resource.RLIMIT_AS: memory_mb * _MEGABYTE,
        resource.RLIMIT_FSIZE: _SCRATCH if parts.namespaces else 0,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_STACK: _STACK,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_NPROC: _most_processes(parts),
    }
    for what, most in limits.items():
        had = resource.getrlimit(what)[1]
        if most is None or (had != resource.RLIM_INFINITY and had < most):
            most = had
        resource.setrlimit(what, (most, most))


def _most_processes(parts: Parts) -> int | None:
    """Processes and threads of our uid; in a user namespace only what runs there counts. None: no limit."""
    if parts.namespaces:
        # Without the filter there may be no second process, whose time nobody would count: and no threads.
        return parts.company + (_THREADS if parts.seccomp else 1)
    if parts.seccomp:
        return None  # there are no new processes, and memory bounds the threads
    uid = namespaces.UNPRIVILEGED if os.geteuid() == 0 else os.geteuid()
    return _THREADS + _threads_of(uid)


def _threads_of(uid: int) -> int:
    count = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}").st_uid == uid:
                count += len(os.listdir(f"/proc/{pid}/task"))
        except OSError:
            continue  # ended meanwhile
    return count
