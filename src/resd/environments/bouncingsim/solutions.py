"""Programs that solve a problem: the scene, and the source of the engine that made the truth."""

from __future__ import annotations

import inspect
from functools import cache

from resd.environments.bouncingsim import motion
from resd.environments.bouncingsim.programs import ENTRY
from resd.environments.bouncingsim.scene import Scene


def solve(scene: Scene) -> str:
    """A whole program for the scene, without the fence."""
    return f"{_engine()}\n\n{_scene_source(scene)}\n\n{_ENTRY_SOURCE}"


@cache
def _engine() -> str:
    return inspect.getsource(motion)


def _scene_source(scene: Scene) -> str:
    container = scene["container"]
    shape = container["sides"], container["radius"], tuple(container["center"])
    balls = [
        (ball["sides"], ball["radius"], tuple(ball["position"]), tuple(ball["velocity"]))
        for ball in scene["balls"]
    ]
    lines = ",\n".join(f"    {ball!r}" for ball in balls)
    rotation = container.get("rotation", 0.0)
    return f"CONTAINER = Polygon(*{shape!r}, math.radians({rotation!r}))\nBALLS = [\n{lines},\n]"


_ENTRY_SOURCE = f"""\
def {ENTRY}(t):
    world = World(CONTAINER, [Ball(*ball) for ball in BALLS])
    return [[round(x, 2), round(y, 2)] for x, y in world.positions(t)]
"""
