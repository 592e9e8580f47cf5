"""Names of runs that say what sets them apart from the others on the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from resd.report.runs import Run
from resd.report.seeds import LONGEST_NAME, Group, differing, group_runs, settings, show


def told_apart(runs: Sequence[Run]) -> list[Run]:
    """The runs, renamed like "a · resd": all that differs, or only the algorithm if that would be long.

    Nothing that a name already contains is repeated.
    """
    groups = group_runs(runs)
    for keys in (differing(groups), [key for key in differing(groups) if key == "algorithm"]):
        named = {run: _label(run.name, group, keys) for group in groups for run in group.runs}
        if max(map(len, named.values())) <= LONGEST_NAME:
            return [replace(run, name=named[run]) for run in runs]
    return list(runs)


def _label(name: str, group: Group, keys: Sequence[str]) -> str:
    flat = settings(group.runs[0])
    words = [_words(key, flat.get(key)) for key in keys]
    return " · ".join([name, *(word for word in words if word.lower() not in name.lower())])


def _words(key: str, value: object) -> str:
    return show(value) if key == "algorithm" else f"{key.rpartition('.')[2]} {show(value)}"
