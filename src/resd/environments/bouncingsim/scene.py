"""Scenes: what a row says, checked, and where its balls are at which time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, TypeAlias

from resd.environments.bouncingsim.motion import SLACK, Ball, Polygon, Vector, World, difference
from resd.records import ResdError

Scene: TypeAlias = Mapping[str, Any]

MAX_SIDES = 64
MAX_BALLS = 64
_MIN_RADIUS = 0.001
# What overlaps by less than this, in metres, touches; the engine must see it the same way.
_TOUCH = SLACK / 2


def simulate(scene: Scene, times: Sequence[float]) -> list[list[Vector]]:
    """The centre of each ball, in metres, at each of `times`: seconds from the start, ascending.

    `scene` is a row with `container` {sides, radius, center, rotation in degrees} and `balls` [{sides,
    radius, position, velocity}]; mass is area. Nothing is rounded. Raises ResdError for other rows and
    times, and where so many collisions are asked for that there is no end to them.
    """
    world = World(*read_scene(scene))
    checked = read_times(times)
    try:
        return [world.positions(time) for time in checked]
    except ValueError as error:
        raise ResdError(f"{_name(scene)}: {error}; ask for earlier times") from error


def read_scene(scene: Scene) -> tuple[Polygon, list[Ball]]:
    """The container and the balls of a row. Raises ResdError for a row that is no such scene."""
    if not isinstance(scene, Mapping):
        raise ResdError(f"bouncingsim: a scene is an object with container and balls, not {scene!r:.80}")
    name = _name(scene)
    if "boxes" in scene or "physics" in scene:
        raise ResdError(
            f"{name}: is a scene of another family (it has {'boxes' if 'boxes' in scene else 'physics'}); "
            "only balls that do not rotate in one container at rest (MULTIOBJ) can be simulated"
        )
    container = _read_container(scene.get("container"), f"{name}, container")
    given = scene.get("balls")
    if not isinstance(given, Sequence) or isinstance(given, str) or not 1 <= len(given) <= MAX_BALLS:
        raise ResdError(f"{name}: balls must be a list of 1 to {MAX_BALLS} balls")
    balls = [_read_ball(ball, f"{name}, ball {number}") for number, ball in enumerate(given, start=1)]
    _check_places(container, balls, name)
    return container, balls


def _read_container(given: Any, where: str) -> Polygon:
    rotation = _number(given, "rotation", where) if "rotation" in _object(given, where) else 0.0
    return Polygon(*_shape(given, where), _pair(given, "center", where), math.radians(rotation))


def _read_ball(given: Any, where: str) -> Ball:
    shape = _shape(given, where)
    return Ball(*shape, _pair(given, "position", where), _pair(given, "velocity", where))


def _check_places(container: Polygon, balls: Sequence[Ball], name: str) -> None:
    """Nothing may begin inside something else."""
    for number, ball in enumerate(balls, start=1):
        at = (ball.x - container.x, ball.y - container.y)
        for nx, ny in container.normals:
            if nx * at[0] + ny * at[1] + ball.support(nx, ny) > container.apothem + _TOUCH:
                raise ResdError(f"{name}: ball {number} begins outside the container; move it inside")
    for (i, one), (j, other) in combinations(enumerate(balls, start=1), 2):
        edges = difference(one, other)
        x, y = other.x - one.x, other.y - one.y
        if all(nx * x + ny * y < offset - _TOUCH for nx, ny, offset in edges):
            raise ResdError(f"{name}: balls {i} and {j} overlap at the start; move them apart")


def read_times(times: Sequence[float]) -> Sequence[float]:
    before = 0.0
    for time in times:
        if not _is_number(time) or time < before:
            raise ResdError(f"bouncingsim: times must be ascending seconds from 0 on, not {time!r:.80}")
        before = time
    return times


def _shape(given: Any, where: str) -> tuple[int, float]:
    sides = _object(given, where).get("sides")
    if type(sides) is not int or not 3 <= sides <= MAX_SIDES:
        raise ResdError(f"{where}: sides must be a whole number from 3 to {MAX_SIDES}, not {sides!r:.80}")
    radius = _number(given, "radius", where)
    if radius < _MIN_RADIUS:
        raise ResdError(f"{where}: radius must be at least {_MIN_RADIUS} m, not {radius!r}")
    return sides, radius


def _object(given: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ResdError(f"{where}: must be an object, not {given!r:.80}")
    return given


def _number(given: Any, field: str, where: str) -> float:
    value: Any = _object(given, where).get(field)
    if not _is_number(value):
        raise ResdError(f"{where}: {field} must be a finite number, not {value!r:.80}")
    return float(value)


def _pair(given: Any, field: str, where: str) -> Vector:
    value: Any = _object(given, where).get(field)
    if not isinstance(value, Sequence) or len(value) != 2 or not all(map(_is_number, value)):
        raise ResdError(f"{where}: {field} must be two finite numbers, not {value!r:.80}")
    return float(value[0]), float(value[1])


def _is_number(value: Any) -> bool:
    """Below 1e9 in size, so that no square or sum of them overflows."""
    return type(value) in (int, float) and -1e9 < value < 1e9


def scene_key(scene: Scene) -> tuple[Any, ...]:
    """What makes two scenes the same, whatever order their balls are named in."""
    return tuple(_fields(scene["container"])), tuple(sorted(tuple(_fields(ball)) for ball in scene["balls"]))


def _fields(part: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in sorted(part):
        value = part[name]
        yield name, tuple(value) if isinstance(value, list) else value


def _name(scene: Scene) -> str:
    return f"bouncingsim: scene {scene['id']}" if "id" in scene else "bouncingsim: scene"
