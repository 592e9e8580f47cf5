"""Problems and graders. `load("manufactoria", family="has")` gives an `Environment`."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from resd.environments.base import Environment
from resd.records import ResdError

KNOWN = {
    "manufactoria": "resd.environments.manufactoria:Manufactoria",
    "bouncingsim": "resd.environments.bouncingsim:BouncingSim",
    "finer": "resd.environments.finer:FiNER",
    "formula": "resd.environments.formula:Formula",
    "code": "resd.environments.code:Code",
    "multiple_choice": "resd.environments.multiple_choice:MultipleChoice",
    "math": "resd.environments.math:Math",
    "tool_use": "resd.environments.tool_use:ToolUse",
    "ifeval": "resd.environments.ifeval:IFEval",
    "trl": "resd.environments.adapters:trl",
    "verl": "resd.environments.adapters:verl",
    "verifiers": "resd.environments.verifiers:verifiers",
}


def load(name: str, path: str | Path | None = None, **options: Any) -> Environment:
    """The environment called `name`: one of `KNOWN`, or "module:factory" for one of your own.

    `path` is a file or folder of its data; without it, what `resd data prepare` made is used. `options` go
    to the factory, which may be a class. Raises ResdError for unknown names and options.
    """
    factory = _factory(name)
    if path is not None:
        options = {"path": path, **options}
    _check_options(name, factory, options)
    try:
        return factory(**options)
    except TypeError as error:
        given = f" (environment.options has {', '.join(options)})" if options else ""
        raise ResdError(f"environment {name}: {error}{given}") from error


def _check_options(name: str, factory: Callable[..., Environment], options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(factory).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    unknown = [key for key in options if key not in parameters]
    missing = [key for key, p in parameters.items() if p.default is p.empty and key not in options]
    for keys, fault in ((unknown, "has no option"), (missing, "needs the option")):
        if keys:
            known = f"its options are {', '.join(parameters)}" if parameters else "it has no options"
            raise ResdError(f"environment {name}: {fault} {', '.join(keys)}; {known}")


def _factory(name: str) -> Callable[..., Environment]:
    place = KNOWN.get(name, name)
    if ":" not in place:
        raise ResdError(f"environment: {name!r} is not known; known: {', '.join(KNOWN)}, or module:factory")
    return imported(*place.split(":", 1))


def imported(module: str, attribute: str) -> Callable[..., Environment]:
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
