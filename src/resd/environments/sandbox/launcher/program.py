"""The launcher's main loop: confine once, then one forked child per job, one job at a time."""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import sys
import sysconfig
from typing import Any, NoReturn

from . import confinement, harness, landlock, linux, namespaces, seccomp, supervision

MAX_MESSAGE = 4096
DESCRIPTORS = 5  # standard input, output, error, results, request: what a child gets, in this order
# What programs often import, and the modules that need shared libraries which a job cannot see.
_PRELOADED = """
    abc array bisect bz2 calendar cmath collections contextlib copy dataclasses datetime decimal enum
    fractions functools hashlib heapq inspect io itertools json lzma math numbers operator queue random re
    statistics string textwrap threading time traceback typing unicodedata zlib
"""
_SPARE_FD, _LAST_FD = 200, 300  # far above those that a child uses


def main(wanted: list[str], packages: dict[str, str]) -> None:
    """Serve on descriptor 0 until the parent closes it.

    `wanted`: which parts of the host to use. `packages`: names and places of what jobs may import beyond the
    standard library.
    """
    control = socket.socket(fileno=os.dup(0))
    try:
        parts, own_space = _set_up(wanted, packages)
        _try_out(parts, own_space)
    except Exception as error:
        control.send(json.dumps({"failed": f"{error}"[:500]}).encode())
        return
    control.send(json.dumps({"landlock": parts.landlock, "seccomp": parts.seccomp}).encode())
    while _serve(control, parts, own_space):
        pass


def _set_up(wanted: list[str], packages: dict[str, str]) -> tuple[confinement.Parts, int]:
    readable = sorted({os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")})
    sys.path[:] = [path for path in sys.path if os.path.isdir(path)]
    inside = "namespaces" in wanted
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # a process with threads may not enter a user namespace
    sys.path += sorted({os.path.dirname(place) for place in packages.values()})
    for name in (*_PRELOADED.split(), *packages):
        importlib.import_module(name)
    os.environ.clear()
    readable += packages.values()
    if os.geteuid() == 0 and not inside:
        _reach_through_descriptors([path for path in readable if os.path.isdir(path)])
    company = 1 if os.geteuid() == 0 else 2  # the launcher; and, of a user, who waits for it
    own_space = namespaces.enter(readable) if inside else -1
    if not inside:
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
    version = landlock.version() if "landlock" in wanted else 0
    gc.collect()
    gc.disable()
    gc.freeze()  # a child's first collection must not copy all of our pages
    filtered = "seccomp" in wanted and seccomp.supported()
    parts = confinement.Parts(inside, version, filtered, readable, company)
    return parts, own_space


def _reach_through_descriptors(folders: list[str]) -> None:
    """Import through open folders, so that a library below a folder closed to others can still be used.

    A job that has left root's uid could not walk through, say, /root.
    """
    for place, folder in enumerate(folders):
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        os.dup2(fd, _SPARE_FD + place, inheritable=False)
        os.close(fd)
        short = f"/proc/self/fd/{_SPARE_FD + place}"
        for paths in _search_paths():
            paths[:] = [
                short + path.removeprefix(folder) if path.startswith(folder) else path for path in paths
            ]
    sys.path_importer_cache.clear()


def _search_paths() -> list[list[str]]:
    packages = [getattr(module, "__path__", None) for module in list(sys.modules.values())]
    return [sys.path, *(path for path in packages if isinstance(path, list))]


def _try_out(parts: confinement.Parts, own_space: int) -> None:
    """One empty job, so that a part which the host refuses is found out now."""
    read_fd, write_fd = os.pipe()
    pid = namespaces.fork_into_new_space(own_space) if parts.namespaces else os.fork()
    if pid == 0:
        try:
            confinement.confine(parts, 1.0, 512)
            os._exit(0)
        except BaseException as error:
            os.write(write_fd, f"{error}".encode()[:500])
            os._exit(1)
    os.close(os.pidfd_open(pid))  # what a job is watched with
    os.close(write_fd)
    message = os.read(read_fd, 500).decode()
    os.close(read_fd)
    if os.waitpid(pid, 0)[1] != 0:
        raise OSError(message or "a child could not be confined")


def _serve(control: socket.socket, parts: confinement.Parts, own_space: int) -> bool:
    """One job. False when the parent has gone."""
    message, fds, _, _ = socket.recv_fds(control, MAX_MESSAGE, DESCRIPTORS)
    if not message:
        return False
    if len(fds) != DESCRIPTORS:
        return True  # "stop", for a job that has ended meanwhile
    limits = json.loads(message)
    pid = namespaces.fork_into_new_space(own_space) if parts.namespaces else os.fork()
    if pid == 0:
        _child(fds, parts, limits)
    for fd in fds:
        os.close(fd)
    tree = None if parts.namespaces or parts.seccomp else supervision.Tree(pid)
    ended = supervision.watch(pid, limits["cpu_s"], limits["wall_s"], control, tree)
    control.send(json.dumps([ended.reason, ended.status, ended.cpu_s]).encode())
    return True


def _child(fds: list[int], parts: confinement.Parts, limits: dict[str, Any]) -> NoReturn:
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _only(fds)
        confinement.confine(parts, limits["cpu_s"], limits["memory_mb"])
    except BaseException as error:
        os.write(harness.STDERR, f"the child could not be confined: {error}\n".encode())
        os._exit(1)
    harness.main()


def _only(fds: list[int]) -> None:
    """Descriptors 0 to 4 become `fds`; all others are closed, save those of libraries."""
    for place, fd in enumerate(fds):
        os.dup2(fd, _LAST_FD + place)
    for place in range(len(fds)):
        os.dup2(_LAST_FD + place, place)
    os.closerange(len(fds), _SPARE_FD)
    os.closerange(_LAST_FD, _LAST_FD + len(fds))
