"""Landlock: the kernel refuses files, TCP, abstract sockets and signals beyond what a process was granted."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

from . import linux

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV  # the others mean folders only
_RIGHTS_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15}  # how many rights over files a version knows; later: 16
_ALL_NETWORK, _ALL_SCOPES = 0b11, 0b11


def version() -> int:
    """The kernel's Landlock version, 0 if it has none."""
    try:
        return linux.syscall("landlock", _CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
    except OSError:
        return 0


def ruleset(abi: int, readable: Iterable[str], writable: Iterable[str]) -> int:
    """A descriptor of the rules: only these paths, no TCP, no signals and abstract sockets to outside."""
    every = (1 << _RIGHTS_BY_VERSION.get(abi, 16)) - 1
    words = [every] + [_ALL_NETWORK] * (abi >= 4) + [_ALL_SCOPES] * (abi >= 6)
    attributes = struct.pack(f"{len(words)}Q", *words)
    fd = linux.syscall("landlock", _CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    for path in readable:
        _allow(fd, path, every & (_READ_FILE | _READ_DIR))
    for path in writable:
        _allow(fd, path, every & ~_EXECUTE & ~_IOCTL_DEV)
    return fd


def restrict_self(ruleset: int) -> None:
    """From now on the rules hold for this process and its children. Needs no_new_privs. Closes `ruleset`."""
    linux.syscall("landlock", _RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    fd = os.open(path, os.O_PATH)
    try:
        rights = rights if os.path.isdir(path) else rights & _ON_FILES
        linux.syscall("landlock", _ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, fd), 0)
    finally:
        os.close(fd)
