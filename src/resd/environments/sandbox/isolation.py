"""What a host can offer, how much of it is asked for, and how little is accepted."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from resd.records import ResdError

_LEAST_LANDLOCK = 3  # earlier ones let programs truncate files (Linux before 6.2)
# For each level, what is tried in turn: the first that the host can do is used.
LEVELS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "strongest": (("namespaces", "landlock", "seccomp"), ("landlock", "seccomp")),
    "landlock": (("landlock", "seccomp"),),
    "weak": ((),),
}


@dataclass(frozen=True)
class Isolation:
    """What is in use. `landlock`: the version of its interface, 0 without."""

    namespaces: bool
    landlock: int
    seccomp: bool
    uid: int

    @property
    def sufficient(self) -> bool:
        """No network, no writes outside, all processes end: by namespaces, or by the two others together."""
        return self.namespaces or (self.landlock >= _LEAST_LANDLOCK and self.seccomp)

    def __str__(self) -> str:
        parts = ["namespaces"] if self.namespaces else []
        parts += [f"Landlock {self.landlock}"] if self.landlock else []
        parts += ["seccomp"] if self.seccomp else []
        return ", ".join([*(parts or ["limits only"]), f"uid {self.uid}"])


def check_level(level: str) -> None:
    """Raises ResdError for a level that does not exist, and where there can be none."""
    if sys.platform != "linux":
        raise ResdError(
            f"sandbox: programs can be run on Linux only, this is {sys.platform}; use a container"
        )
    if level not in LEVELS:
        raise ResdError(f"sandbox: isolation {level!r} is not known; choose one of {', '.join(LEVELS)}")


def refusal(reasons: list[str]) -> ResdError:
    """The one sentence for a host that offers too little."""
    return ResdError(
        f"sandbox: this host cannot keep programs from its files and the network ({'; '.join(reasons)}); "
        'allow unprivileged user namespaces, or Landlock and seccomp (Linux 6.2), or accept isolation="weak"'
    )


def places(packages: Iterable[str]) -> dict[str, str]:
    """Where each package lies: a folder, or the file of a module. Raises ResdError for one not installed."""
    found = {}
    for name in packages:
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        folders = list(spec.submodule_search_locations or []) if spec else []
        place = folders[0] if folders else spec and spec.origin
        if not place:
            raise ResdError(f"sandbox: package {name!r} is not installed; install it or do without")
        found[name] = os.path.realpath(place)
    return found
