"""A seccomp filter, as BPF written by hand: what pure computation needs passes, everything else is refused.

Refused thus are new processes and programs, sockets, shared and anonymous files (memory that RLIMIT_AS does
not count), namespaces, mounts, tracing, keys, io_uring, bpf, userfaultfd, inotify, and whatever comes next.
Threads pass; so does a pair of connected sockets, which `asyncio` needs.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping

from . import linux
from .syscalls import AARCH64, X86_64

_FILTER_MODE = 2
_ARCHITECTURES: Mapping[str, tuple[int, Mapping[str, int]]] = {
    "x86_64": (0xC000003E, X86_64),
    "aarch64": (0xC00000B7, AARCH64),
}
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_EPERM, _ENOSYS = 1, 38
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_X32 = 0x40000000  # calls of the x32 flavour carry this bit under the same architecture
_CLONE_THREAD = 0x00010000
_AF_UNIX = 1

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant

_VALUES: Mapping[str, tuple[int, tuple[int, ...]]] = {
    "fcntl": (1, (0, 1, 2, 3, 4, 5, 6, 7, 1030)),  # duplicate, flags, locks
    "ioctl": (
        1,
        (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451),
    ),  # is it a terminal; flags
    "prctl": (0, (15, 16)),  # a thread's name
    "sendto": (5, (0,)),  # the length of an address: one of a pair could still write to others
    "socketpair": (0, (_AF_UNIX,)),
}
_OWN_PID = {"kill", "tgkill", "prlimit64"}
# What Landlock does not govern: modes and times of files that belong to the user whom the program runs as.
_CHANGES = {"chmod", "fchmod", "fchmodat", "utimensat"}


def supported() -> bool:
    return os.uname().machine in _ARCHITECTURES


def install(own_files: bool) -> None:
    """From now on the filter holds for this process and its threads. Needs no_new_privs. Raises OSError."""
    lines = instructions(os.uname().machine, os.getpid(), own_files)
    program = b"".join(struct.pack("HBBI", *line) for line in lines)
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    linux.prctl(linux.PR_SET_SECCOMP, _FILTER_MODE, ctypes.c_char_p(header))


def instructions(machine: str, pid: int, own_files: bool) -> list[Instruction]:
    """The filter for a machine, and for a process that may signal and limit only itself.

    `own_files`: it can reach no files that it could change but its own.
    """
    architecture, numbers = _ARCHITECTURES[machine]
    code = [_load(_ARCHITECTURE), (_EQUAL, 1, 0, architecture), _return(_KILL), _load(_NUMBER)]
    code += [(_AT_LEAST, 0, 1, _X32), _return(_KILL)]
    for name, number in numbers.items():
        if name in _CHANGES and not own_files:
            continue
        decision = _decision(name, pid)
        code += [(_EQUAL, 0, len(decision), number), *decision]
    return [*code, _return(_ERRNO | _EPERM)]


def _decision(name: str, pid: int) -> list[Instruction]:
    if name == "clone3":  # its flags lie in memory: the C library falls back to clone
        return [_return(_ERRNO | _ENOSYS)]
    if name == "clone":
        return _unless([(_ANY_BIT, 0, 0, _CLONE_THREAD)], 0)
    if name in _OWN_PID:
        return _unless([(_EQUAL, 0, 0, value) for value in {pid, 0 if name == "prlimit64" else pid}], 0)
    if name in _VALUES:
        argument, values = _VALUES[name]
        return _unless([(_EQUAL, 0, 0, value) for value in values], argument)
    return [_return(_ALLOW)]


def _unless(tests: list[Instruction], argument: int) -> list[Instruction]:
    """Allow if one of the tests holds for the low word of an argument (all of ours are 32 bits wide)."""
    jumps = [(code, len(tests) - place, 0, value) for place, (code, _, _, value) in enumerate(tests)]
    return [_load(_ARGUMENTS + 8 * argument), *jumps, _return(_ERRNO | _EPERM), _return(_ALLOW)]


def _load(offset: int) -> Instruction:
    return (_LOAD, 0, 0, offset)


def _return(action: int) -> Instruction:
    return (_RETURN, 0, 0, action)
