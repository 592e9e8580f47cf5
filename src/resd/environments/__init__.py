"""Problems and graders. `load("manufactoria", family="has")` gives an `Environment`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resd.environments.base import Environment
from resd.records import ResdError


def load(name: str, **options: Any) -> Environment:
    """The environment called `name`: "manufactoria", or "module:factory" for one of your own.

    `options` go to the factory, which may be a class. Raises ResdError for unknown names and options.
    """
    factory = _factory(name)
    try:
        return factory(**options)
    except TypeError as error:
        given = f" (environment.options has {', '.join(options)})" if options else ""
        raise ResdError(f"environment {name}: {error}{given}") from error


def _factory(name: str) -> Callable[..., Environment]:
    if ":" in name:
        return _imported(*name.split(":", 1))
    if name != "manufactoria":
        raise ResdError(f"environment: {name!r} is not known; known: manufactoria, or module:factory")
    from resd.environments.manufactoria import Manufactoria

    return Manufactoria


def _imported(module: str, attribute: str) -> Callable[..., Environment]:
    """From a module that is installed, or lies in the current folder."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # last: a file here must not hide an installed package
    try:
        factory: Callable[..., Environment] = getattr(importlib.import_module(module), attribute)
    except (ImportError, ValueError) as error:
        raise ResdError(f"environment {module}:{attribute}: {module} cannot be imported ({error})") from error
    except AttributeError as error:
        raise ResdError(f"environment {module}:{attribute}: {error}; name a class or function") from error
    return factory
