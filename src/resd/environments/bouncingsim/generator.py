"""Our own scenes, drawn as the published MULTIOBJ ones are (Sun et al., DELTA), from a seed.

What was published is kept: sizes of the splits, the number of balls and their speeds at each level, sizes,
where balls begin (uniform in distance from the centre, then moved by up to 2 radii along either axis), and
that scenes whose outcome depends on how they are computed are left out. The published check compares two
step sizes of Box2D. Ours has no steps: a scene is kept if moving every ball by `NUDGE` metres, about what
Box2D is off by, moves no ball by more than `MAX_DRIFT` metres at 0.5, 1 and 1.5 s. Drawing goes on from one
generator and repeated scenes are left out, so none is in a split twice or in both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, islice
from random import Random
from typing import Any

from resd.environments.bouncingsim.scene import scene_key, simulate

TIMES = tuple(step / 10 for step in range(1, 16))
TOLERANCE = 50.0
CENTER = (750, 750)
CONTAINER_RADIUS = 375.0
BALL_RADIUS = 20.0
SIDES = (3, 6)
NUDGE = 0.1
MAX_DRIFT = 15.0
_CHECKED = (0.5, 1.0, 1.5)
_NUDGES = 2
_TRIES = 1000


@dataclass(frozen=True)
class Level:
    """How many balls a scene has, how fast they are (m/s), and the sizes of the published splits."""

    difficulty: int
    balls: tuple[int, int]
    speed: tuple[float, float]
    train: int
    test: int


LEVELS = {
    "easy": Level(1, (3, 3), (400.0, 600.0), 640, 100),
    "medium": Level(2, (4, 5), (600.0, 800.0), 320, 100),
}


@lru_cache(maxsize=4)
def generated_rows(level: str, seed: int) -> tuple[dict[str, Any], ...]:
    """All rows of a level, those of training first, in the format of the published data."""
    sizes = LEVELS[level]
    scenes = islice(_distinct_scenes(sizes, Random(f"{level} {seed}")), sizes.train + sizes.test)
    return tuple(
        {
            "id": f"G_{sizes.difficulty}_{number}",
            "split": "train" if number <= sizes.train else "test",
            "difficulty": sizes.difficulty,
            **scene,
            "timestamps": list(TIMES),
            "positions": [[[round(x, 2), round(y, 2)] for x, y in balls] for balls in simulate(scene, TIMES)],
            "tolerance": TOLERANCE,
        }
        for number, scene in enumerate(scenes, start=1)
    )


def _distinct_scenes(level: Level, rng: Random) -> Iterator[dict[str, Any]]:
    seen = set()
    while True:
        scene = draw_scene(level, rng)
        if scene is not None and scene_key(scene) not in seen and is_stable(scene, rng):
            seen.add(scene_key(scene))
            yield scene


def draw_scene(level: Level, rng: Random) -> dict[str, Any] | None:
    """A scene; None where its balls came to lie too close to each other or to the walls."""
    sides = rng.randint(*SIDES)
    room = CONTAINER_RADIUS * math.cos(math.pi / sides) - BALL_RADIUS - 5
    centers = [
        (round(x + _offset(rng)), round(y + _offset(rng)))
        for x, y in _spread(rng.randint(*level.balls), room, rng)
    ]
    if any(math.dist(center, CENTER) > room for center in centers):
        return None
    if any(math.dist(*pair) < 2 * BALL_RADIUS + 5 for pair in combinations(centers, 2)):
        return None
    return {
        "container": {
            "sides": sides,
            "radius": CONTAINER_RADIUS,
            "center": list(CENTER),
            "rotation": 0.0,
        },
        "balls": [_ball(center, level, rng) for center in centers],
    }


def _spread(count: int, room: float, rng: Random) -> list[tuple[float, float]]:
    """Centres that are at least 2 radii and 4 m apart, uniform in angle and in distance up to `room`."""
    centers: list[tuple[float, float]] = []
    for _ in range(_TRIES):
        angle, distance = rng.uniform(0, 2 * math.pi), rng.uniform(0, room)
        center = (CENTER[0] + distance * math.cos(angle), CENTER[1] + distance * math.sin(angle))
        if all(math.dist(center, other) >= 2 * BALL_RADIUS + 4 for other in centers):
            centers.append(center)
        if len(centers) == count:
            return centers
    raise AssertionError("a few balls find room in a container of eighteen times their size")


def _offset(rng: Random) -> float:
    return rng.uniform(-2 * BALL_RADIUS, 2 * BALL_RADIUS)


def _ball(center: tuple[int, int], level: Level, rng: Random) -> dict[str, Any]:
    speed, angle = rng.uniform(*level.speed), rng.uniform(0, 2 * math.pi)
    return {
        "sides": rng.randint(*SIDES),
        "radius": BALL_RADIUS,
        "position": list(center),
        "velocity": [round(speed * math.cos(angle), 2), round(speed * math.sin(angle), 2)],
    }


def is_stable(scene: dict[str, Any], rng: Random) -> bool:
    """Whether small changes of where the balls begin stay small."""
    expected = simulate(scene, _CHECKED)
    return all(
        math.dist(here, there) <= MAX_DRIFT
        for _ in range(_NUDGES)
        for at, moved in zip(expected, simulate(_nudged(scene, rng), _CHECKED), strict=True)
        for here, there in zip(at, moved, strict=True)
    )


def _nudged(scene: dict[str, Any], rng: Random) -> dict[str, Any]:
    moved = deepcopy(scene)
    for ball in moved["balls"]:
        angle = rng.uniform(0, 2 * math.pi)
        ball["position"][0] += NUDGE * math.cos(angle)
        ball["position"][1] += NUDGE * math.sin(angle)
    return moved
