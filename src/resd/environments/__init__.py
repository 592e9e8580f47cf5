"""Problems and graders. `load("manufactoria", family="has")` gives an `Environment`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from resd.environments.base import Environment
from resd.environments.checks import a_kind, check_environment, is_environment
from resd.environments.importing import describe_error, imported
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
    """The environment called `name`: one of `KNOWN`, or "module:name" for one of your own.

    `path` is a file or folder of its data; without it, the data prepared by `resd data prepare` is used.
    `options` are passed to the factory, which may be a class. The name may also refer to an existing
    environment object. Raises ResdError for unknown names and options, and for anything but an environment.
    """
    place = KNOWN.get(name, name)
    if ":" not in place:
        known = f"{', '.join(KNOWN)}, or module:name of your own, as in sums:Sums"
        raise ResdError(f"environment: {name!r} is not known; known: {known}")
    found = imported(*place.split(":", 1))
    if path is not None:
        options = {"path": path, **options}
    made = _as_it_is(name, found, options) if is_environment(found) else _made(name, found, options)
    return check_environment(name, made)


def _as_it_is(name: str, environment: Any, options: Mapping[str, Any]) -> Any:
    if options:
        raise ResdError(
            f"environment {name}: is already an object, and takes no options ({', '.join(options)}); leave "
            "environment.options out, or name a class or function"
        )
    return environment


def _made(name: str, factory: Any, options: Mapping[str, Any]) -> Any:
    if not callable(factory):
        raise ResdError(
            f"environment {name}: is {a_kind(factory)}; name a class, a function that returns an "
            "environment, or an environment"
        )
    _check_options(name, factory, options)
    try:
        return factory(**options)
    except ResdError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's class raises
        given = f" (environment.options has {', '.join(options)})" if options else ""
        raise ResdError(f"environment {name}: cannot be created: {describe_error(error)}{given}") from error


def _check_options(name: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(factory).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    unknown = [key for key in options if key not in parameters]
    missing = [key for key, p in parameters.items() if p.default is p.empty and key not in options]
    for keys, fault in ((unknown, "has no option"), (missing, "needs the option")):
        if keys:
            known = f"its options are {', '.join(parameters)}" if parameters else "it has no options"
            raise ResdError(f"environment {name}: {fault} {', '.join(keys)}; {known}")
