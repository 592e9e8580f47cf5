"""What the model is asked. Every fact of the scene is stated; how balls collide can be kept back."""

from __future__ import annotations

from typing import Any

from resd.environments.bouncingsim.programs import ENTRY
from resd.environments.bouncingsim.scene import Scene

# The published prompt says neither that balls hit each other nor what their masses are.
COLLISIONS = {
    "stated": (
        "- Balls also bounce off each other, when their polygons touch. Momentum and kinetic energy are "
        "conserved; the impulse acts along the normal of the edge where they touch. All balls have the same "
        "density, so the mass of a ball is proportional to the area of its polygon.\n"
    ),
    "withheld": "",
}


def make_prompt(scene: Scene, collisions: str, cpu_s: float) -> str:
    """The task, the scene, and the form of the answer."""
    balls = scene["balls"]
    return f"""\
Write a Python program that predicts where {len(balls)} balls in a closed container are at a given time.

The world is a plane with x to the right and y upwards. Lengths are in metres, times in seconds, angles in \
radians.

Shapes
- The container and the balls are regular polygons. A polygon with n sides, circumradius r and centre \
(cx, cy) has vertex k (k = 0, ..., n - 1) at distance r from the centre, at the angle 2*pi*k/n from the \
positive x-axis{_turned(scene["container"])}.
- Container: {_polygon(scene["container"], "center")}.

Balls, as they are at t = 0
{_listed(balls)}

Motion
- There is no gravity, no friction and no drag: between collisions a ball moves in a straight line at \
constant speed.
- Balls never rotate: each keeps the orientation that it has at t = 0.
- The walls of the container do not move. They are frictionless and perfectly elastic: a ball whose polygon \
touches a wall has the component of its velocity along the wall's normal reversed.
{COLLISIONS[collisions]}
Your program
- Define `{ENTRY}(t)`. `t` is a time in seconds, a float of at least 0. Return the centres of all balls at \
that time as `[[x1, y1], [x2, y2], ...]`: one pair for each ball, in the order above, in metres, rounded to \
2 decimals.
- Every call computes from t = 0 and does not rely on earlier calls.
- Only `math` may be imported. Files, input and output are not available.
- It is called for {len(scene["timestamps"])} times from {_number(scene["timestamps"][0])} to \
{_number(scene["timestamps"][-1])}. All calls together may take {_number(cpu_s)} s of processor time.
- A time passes if the balls are, on average, at most {_number(scene["tolerance"])} m from where they really \
are.

Think first if you like, then give the whole program in one fenced block tagged `python`."""


def _listed(balls: Any) -> str:
    return "\n".join(
        f"{number}. {_polygon(ball, 'position')}, velocity {_vector(ball['velocity'])} m/s"
        for number, ball in enumerate(balls, start=1)
    )


def _polygon(part: Any, center: str) -> str:
    return f"{part['sides']} sides, circumradius {_number(part['radius'])}, centre {_vector(part[center])}"


def _turned(container: Any) -> str:
    """Published containers are not turned: their prompt need not speak of it."""
    if not container.get("rotation"):
        return ""
    return f"; the container alone is turned counterclockwise by {_number(container['rotation'])} degrees"


def _vector(pair: Any) -> str:
    return f"({_number(pair[0])}, {_number(pair[1])})"


def _number(value: float) -> str:
    """Exactly as given, without a needless .0."""
    return str(int(value)) if value == int(value) else repr(value)
