"""Namespaces: a private, minimal tree of files, no network, and a process id space that dies as a whole.

The launcher itself becomes process 1 of a space of its own, so that killing it kills all that it started;
each job becomes process 1 of a space below. All of it needs no privilege beyond unprivileged user namespaces.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterable

from . import linux

UNPRIVILEGED = 65534  # "nobody"
SCRATCH = "/tmp"
_STAGES = ("/tmp", "/var/tmp", "/mnt", "/run", "/home")
_STAT_TO_MOUNT = {1: 1, 2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: linux.MS_RELATIME}


def enter(readable: Iterable[str]) -> int:
    """Move into new namespaces and fork; returns in the child, which is the launcher from now on.

    Of the host's files only the folders `readable` stay, read-only. Returns a descriptor of the launcher's
    process id space. The process that called waits for the child and ends as it does. Raises OSError.
    """
    _new_user()
    linux.unshare(
        linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS | linux.CLONE_NEWPID
    )
    socket.sethostname("sandbox")
    _become_first()
    own_space = os.open("/proc/self/ns/pid", os.O_RDONLY)
    _minimal_tree(list(readable))
    _unprivileged()
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    return own_space


def _new_user() -> None:
    """A user namespace in which we are `UNPRIVILEGED`, or root and that, if we are root outside."""
    if os.geteuid() != 0:
        uid, gid = os.geteuid(), os.getegid()
        linux.unshare(linux.CLONE_NEWUSER)
        _write_maps("self", f"{UNPRIVILEGED} {uid} 1", f"{UNPRIVILEGED} {gid} 1")
        return
    start_r, start_w = os.pipe()
    helper = os.fork()  # two ids can only be mapped by one who stayed outside
    if helper == 0:
        os.close(start_w)  # or it would wait for itself where its parent ends before it writes
        _map_for_parent(start_r)
    linux.unshare(linux.CLONE_NEWUSER)
    os.write(start_w, b"x")
    os.close(start_w)
    os.close(start_r)
    if os.waitpid(helper, 0)[1] != 0:
        raise PermissionError("the ids of a user namespace could not be mapped")
    os.setgroups([])


def _map_for_parent(start: int) -> None:
    try:
        if not os.read(start, 1):
            os._exit(1)  # the parent is gone
        both = f"0 0 1\n{UNPRIVILEGED} {UNPRIVILEGED} 1"
        _write_maps(str(os.getppid()), both, both, deny_groups=False)
        os._exit(0)
    except BaseException:
        os._exit(1)


def _write_maps(pid: str, uids: str, gids: str, deny_groups: bool = True) -> None:
    texts = [("setgroups", "deny")] * deny_groups + [("uid_map", uids), ("gid_map", gids)]
    for name, text in texts:
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write(text)


def _minimal_tree(readable: list[str]) -> None:
    """A small tmpfs with the `readable` folders and an empty scratch folder becomes the root."""
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    # Opened before the tmpfs may hide them.
    sources = {path: os.open(path, os.O_PATH) for path in (*readable, "/dev/null", "/dev/urandom")}
    stage = next(path for path in _STAGES if os.path.isdir(path))
    linux.mount("tmpfs", stage, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=1m,mode=755")
    for path, fd in sources.items():
        _bind(f"/proc/self/fd/{fd}", stage + path, os.path.isdir(f"/proc/self/fd/{fd}"))
        os.close(fd)
    os.makedirs(stage + SCRATCH, exist_ok=True)
    for path in readable:
        packages = os.path.join(stage + path, "site-packages")
        if os.path.isdir(packages):
            linux.mount("tmpfs", packages, "tmpfs", linux.MS_RDONLY | linux.MS_NOSUID, "size=4k,mode=755")
    os.chdir(stage)
    linux.pivot_root_here()
    linux.mount("none", "/", None, linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | linux.MS_NOSUID)


def _bind(source: str, target: str, folder: bool) -> None:
    """Mount `source` at `target`, read-only. Flags that the host set on its mount must stay set."""
    os.makedirs(target if folder else os.path.dirname(target), exist_ok=True)
    if not folder:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o444))
    linux.mount(source, target, None, linux.MS_BIND | linux.MS_REC)
    had = os.statvfs(target).f_flag
    kept = sum(flag for bit, flag in _STAT_TO_MOUNT.items() if had & bit)
    flags = linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | linux.MS_NOSUID | kept
    linux.mount("none", target, None, flags | (linux.MS_NODEV if folder else 0))


def _become_first() -> None:
    """Fork into the new process id space; the caller waits outside it."""
    pid = os.fork()
    if pid:
        os.closerange(0, 64)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF)


def _unprivileged() -> None:
    """Leave root's uid for good, and keep what starting jobs needs: capabilities inside the namespace."""
    linux.prctl(linux.PR_SET_KEEPCAPS, 1)
    if os.getuid() != UNPRIVILEGED:
        os.setresgid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED)
        os.setresuid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED)
    linux.set_capabilities(linux.permitted_capabilities())


def fork_into_new_space(own_space: int) -> int:
    """fork(), but the child is process 1 of a new process id space."""
    linux.unshare(linux.CLONE_NEWPID)
    pid = os.fork()
    if pid:
        linux.setns(own_space, linux.CLONE_NEWPID)  # or the next unshare is refused
    return pid


def private_scratch(size: str = "16m") -> None:
    """In the child: an empty scratch folder that nobody else sees and that ends with the job."""
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWIPC)
    flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    linux.mount("tmpfs", SCRATCH, "tmpfs", flags, f"size={size},nr_inodes=1024,mode=1777")
    os.chdir(SCRATCH)
