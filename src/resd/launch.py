"""The number of processes in a run, from torchrun's environment variables. No torch here."""

from __future__ import annotations

import os

from resd.records import ResdError


def world_size() -> int:
    """The number of processes in this run; 1 without torchrun. Raises ResdError if WORLD_SIZE is invalid."""
    said = os.environ.get("WORLD_SIZE", "1")
    if not said.isdecimal() or int(said) < 1:
        raise ResdError(f"WORLD_SIZE is {said!r}; start several processes with torchrun, or unset it for one")
    return int(said)
