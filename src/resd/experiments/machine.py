"""Provenance of results: commit, machine and versions, without names of hosts, people or folders."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("resd", "torch", "transformers")
UNKNOWN = "unknown"


def commit() -> str:
    """`git describe` of the source tree, ending in -dirty if files were modified."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN
    return done.stdout.strip()


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = UNKNOWN
    return found


def machine_kind(device: str) -> str:
    """The GPU's or the CPU's model, and how many cores there are."""
    cores = f"{os.cpu_count()} cores"
    if device == "cuda":
        import torch

        return f"{torch.cuda.get_device_name(0)}, {cores}"
    return f"{cpu_model()}, {cores}"


def cpu_model() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.machine() or sys.platform
