"""Imports a user's code by "module:name", with clear errors if that fails."""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
import traceback
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from resd.records import ResdError

# Frames below these are not the user's: a location in them would not say what to fix.
_NOT_THEIRS = tuple(
    f"{folder}{os.sep}"
    for folder in (
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        Path(__file__).parents[1],
    )
)


def imported(module: str, attribute: str) -> Any:
    """Import from a module that is installed or in the current folder, or a path such as tasks/sums.py.

    Raises ResdError, whatever the module raises.
    """
    where = f"environment {module}:{attribute}"
    if not module or not attribute:
        raise ResdError(f"{where}: cannot be imported; write module:name, as in sums:Sums")
    module = _dotted(module, attribute, where)
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # last: a file here must not hide an installed package
    try:
        found = importlib.import_module(module)
    except ResdError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's module raises
        why = _hidden(module) or f"{module} cannot be imported ({describe_error(error)}); fix or install it"
        raise ResdError(f"{where}: {why}") from error
    try:
        return getattr(found, attribute)
    except AttributeError as error:
        raise ResdError(f"{where}: {_hidden(module) or _lacking(found, module, attribute)}") from error


def describe_error(error: BaseException) -> str:
    """An exception on one line, with the location in the user's own code that it comes from."""
    said = next(iter(str(error).strip().splitlines()), "")
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not _is_elsewhere(frame.filename)
    ]
    place = f", {Path(frames[-1].filename).name} line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{said and f': {said}'}{place}"


def _is_elsewhere(file: str) -> bool:
    return file.startswith(("<", *_NOT_THEIRS))


def _dotted(module: str, attribute: str, where: str) -> str:
    """A module's dotted name, also if given as the path of a file."""
    if not module.endswith(".py") and "/" not in module:
        return module
    file = Path(os.path.abspath(module)).with_suffix(".py")
    if not file.is_file():
        raise ResdError(f"{where}: there is no file {file}; write module:name, as in sums:Sums")
    if not file.is_relative_to(Path.cwd()):
        meant = f"{file.stem}:{attribute}"
        raise ResdError(f"{where}: is not in the current folder; start in {file.parent}, with {meant}")
    return ".".join(file.relative_to(Path.cwd()).with_suffix("").parts)


def _hidden(module: str) -> str:
    """The message if a file here is hidden by another module of the same name; else ""."""
    first = module.partition(".")[0]
    found, here = sys.modules.get(first), Path.cwd()
    mine = next((path for path in (here / f"{first}.py", here / first) if path.exists()), None)
    places = [getattr(found, "__file__", None), *getattr(found, "__path__", ())]
    if found is None or mine is None or any(place and mine.samefile(place) for place in places):
        return ""
    whose = "Python's own module" if first in sys.stdlib_module_names else "an installed module"
    return f"{whose} {first} was found in place of ./{mine.name}, which has its name; rename yours"


def _lacking(found: Any, module: str, attribute: str) -> str:
    close = get_close_matches(attribute, [name for name in vars(found) if not name.startswith("_")], n=1)
    meant = f"did you mean {module}:{close[0]}?" if close else "name a class, a function or an environment"
    return f"module {module!r} has no attribute {attribute!r}; {meant}"
