"""Rows of files: the format of the published scenes, checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from resd.environments.bouncingsim.judging import wrong_form
from resd.environments.bouncingsim.scene import read_scene, read_times
from resd.records import ResdError


def check_row(row: Mapping[str, Any], id_: str, difficulty: int) -> None:
    """Raises ResdError unless a row holds a scene of this difficulty, its times, positions and tolerance."""
    where = f"bouncingsim: row {id_}"
    balls = len(read_scene({**row, "id": id_})[1])
    if row.get("difficulty", difficulty) != difficulty:
        raise ResdError(
            f"{where}: has difficulty {row['difficulty']!r:.40}, not the {difficulty} of this level; "
            "choose the level that the file is for"
        )
    tolerance: Any = row.get("tolerance")
    if type(tolerance) not in (int, float) or not 0 < tolerance < 1e9:
        raise ResdError(f"{where}: tolerance must be metres above 0, not {tolerance!r:.80}")
    _check_positions(_list(row, "timestamps", where), _list(row, "positions", where), balls, where)


def _check_positions(times: Sequence[Any], positions: Sequence[Any], balls: int, where: str) -> None:
    if not times or len(times) != len(positions):
        raise ResdError(
            f"{where}: has {len(times)} timestamps and {len(positions)} positions; give as many of each"
        )
    read_times(times)
    for time, position in zip(times, positions, strict=True):
        if wrong_form(position, balls):
            raise ResdError(f"{where}: positions at t = {time:g} are not one pair for each of {balls} balls")


def _list(row: Mapping[str, Any], field: str, where: str) -> Sequence[Any]:
    value = row.get(field)
    if type(value) is not list:
        raise ResdError(f"{where}: {field} must be a list, not {value!r:.80}")
    return value
