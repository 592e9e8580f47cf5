"""The page of the readable runs, with warnings about the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from resd.records import ResdError
from resd.report.page import render
from resd.report.runs import Run, check_folder, distinct, load_run


def render_sound(folders: Sequence[Path], *, live: bool = False) -> tuple[str, list[str]]:
    """The document, and a sentence for each run that is left out, which is also shown on the page.

    Raises ResdError for a folder that is not a run, and if no run can be read.
    """
    runs, faults = _loaded(folders)
    try:
        return render(runs, live=live, left_out=faults), faults
    except ResdError:  # a file that only a chart reads
        if len(runs) == 1:
            raise
    errors = {run: error for run in runs if (error := _error(run))}
    sound = [run for run in runs if run not in errors]
    if not sound:
        raise next(iter(errors.values()))
    faults += [_left_out(run.folder, error) for run, error in errors.items()]
    return render(sound, live=live, left_out=faults), faults


def _loaded(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    runs: list[Run] = []
    errors: dict[Path, ResdError] = {}
    for folder, name in distinct(folders):
        check_folder(folder)
        try:
            runs.append(load_run(folder, name))
        except ResdError as error:
            errors[folder] = error
    if not runs:
        raise next(iter(errors.values()))
    return runs, [_left_out(folder, error) for folder, error in errors.items()]


def _error(run: Run) -> ResdError | None:
    try:
        render([run])
    except ResdError as error:
        return error
    return None


def _left_out(folder: Path, error: ResdError) -> str:
    return f"{folder} is left out: {error}"
