"""Problems and graders. `load("manufactoria", family="has")` gives an `Environment`."""

from __future__ import annotations

from typing import Any

from resd.environments.base import Environment
from resd.records import ResdError


def load(name: str, **options: Any) -> Environment:
    """The environment called `name`. Raises ResdError for unknown names and options."""
    if name != "manufactoria":
        raise ResdError(f"environment: {name!r} is not known; known: manufactoria")
    from resd.environments.manufactoria import Manufactoria

    try:
        return Manufactoria(**options)
    except TypeError as error:
        raise ResdError(f"environment manufactoria: {error}") from error


__all__ = ["Environment", "load"]
