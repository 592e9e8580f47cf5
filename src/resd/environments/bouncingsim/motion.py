"""Exact motion of convex polygons that neither rotate nor lose energy, from one collision to the next.

A polygon that does not rotate is a point in a smaller room: a wall moves inwards by the polygon's support
in the direction of the wall, and two polygons touch when the difference of their centres reaches the border
of their Minkowski difference, whose edges are those of either polygon. Between collisions all is linear, so
the times of collisions are found exactly, without steps.

Only `math` is used, and nothing from the rest of the package: this very source, with a scene above it, is
the program that solves a problem (`resd.environments.bouncingsim.solutions`).
"""

import math

Vector = tuple[float, float]
# The unit normal that points out of a convex body, and the body's support in its direction, in metres.
Edge = tuple[float, float, float]
# A time in seconds, and the normal of the edge that is reached then.
Hit = tuple[float, float, float]

NEVER: Hit = (math.inf, 0.0, 0.0)
# What lies at most so deep inside an edge, in metres, touches it: rounding, not overlap.
SLACK = 1e-7
# A body that would be inside another for less than this time, in seconds, has passed its corner.
GRAZE = 1e-9
MAX_COLLISIONS = 50_000


class Polygon:
    """A regular polygon: vertex k is `radius` metres from (x, y), at the angle 2 pi k / sides + rotation."""

    def __init__(self, sides: int, radius: float, position: Vector, rotation: float = 0.0) -> None:
        self.sides, self.radius = sides, radius
        self.x, self.y = position
        step = 2 * math.pi / sides
        corners = [rotation + step * k for k in range(sides)]
        self.vertices = [(radius * math.cos(angle), radius * math.sin(angle)) for angle in corners]
        self.normals = [(math.cos(angle + step / 2), math.sin(angle + step / 2)) for angle in corners]
        self.apothem = radius * math.cos(step / 2)
        self.area = 0.5 * sides * radius * radius * math.sin(step)

    def support(self, nx: float, ny: float) -> float:
        """How far the polygon reaches from its centre in the direction of a unit vector."""
        return max(nx * x + ny * y for x, y in self.vertices)


class Ball(Polygon):
    """A polygon that moves; (x, y) is where its centre was at `time`, when its velocity last changed."""

    def __init__(self, sides: int, radius: float, position: Vector, velocity: Vector) -> None:
        super().__init__(sides, radius, position)
        self.vx, self.vy = velocity
        self.time = 0.0

    def at(self, time: float) -> Vector:
        elapsed = time - self.time
        return self.x + self.vx * elapsed, self.y + self.vy * elapsed

    def kick(self, time: float, dvx: float, dvy: float) -> None:
        """Change the velocity by (dvx, dvy) at `time`."""
        self.x, self.y = self.at(time)
        self.vx += dvx
        self.vy += dvy
        self.time = time


def walls_for(container: Polygon, ball: Ball) -> list[Edge]:
    """The borders of the room that the ball's centre has, in the coordinates of the world."""
    return [
        (nx, ny, nx * container.x + ny * container.y + container.apothem - ball.support(nx, ny))
        for nx, ny in container.normals
    ]


def difference(one: Polygon, other: Polygon) -> list[Edge]:
    """The polygon that `other`'s centre, seen from `one`'s, cannot be in."""
    own = [(nx, ny, one.apothem + other.support(-nx, -ny)) for nx, ny in one.normals]
    return own + [(-nx, -ny, other.apothem + one.support(-nx, -ny)) for nx, ny in other.normals]


def wall_hit(ball: Ball, walls: list[Edge]) -> Hit:
    """When the ball, as it moves now, reaches a wall, and which."""
    first = NEVER
    for nx, ny, offset in walls:
        speed = nx * ball.vx + ny * ball.vy
        if speed > 0.0:
            gap = offset - nx * ball.x - ny * ball.y
            time = ball.time + max(gap, 0.0) / speed
            if time < first[0]:
                first = (time, nx, ny)
    return first


def may_meet(dx: float, dy: float, ux: float, uy: float, reach: float) -> bool:
    """Whether a point at (dx, dy) with velocity (ux, uy) comes within `reach` of the origin."""
    excess = dx * dx + dy * dy - reach * reach
    approach = dx * ux + dy * uy
    return excess <= 0.0 or (approach < 0.0 and approach * approach >= (ux * ux + uy * uy) * excess)


def entry(edges: list[Edge], dx: float, dy: float, ux: float, uy: float) -> Hit:
    """When a point at (dx, dy) with velocity (ux, uy) enters a convex polygon, and through which edge."""
    enters, leaves = NEVER, math.inf
    latest = -math.inf
    for nx, ny, offset in edges:
        gap = nx * dx + ny * dy - offset
        speed = nx * ux + ny * uy
        if speed < 0.0:
            time = 0.0 if -SLACK < gap <= 0.0 else -gap / speed
            if time > latest:
                latest, enters = time, (time, nx, ny)
        elif speed > 0.0:
            leaves = min(leaves, -gap / speed)
        elif gap > 0.0:
            return NEVER
    return enters if latest >= 0.0 and leaves - latest > GRAZE else NEVER


class World:
    """Balls in a container. All collisions up to the time asked for last have happened."""

    def __init__(self, container: Polygon, balls: list[Ball]) -> None:
        self.balls = balls
        self.walls = [walls_for(container, ball) for ball in balls]
        self.differences: dict[tuple[int, int], list[Edge]] = {}
        # (i, i) is when ball i reaches a wall; (i, j) with i < j, when two balls meet.
        self.hits: dict[tuple[int, int], Hit] = {}
        self.collisions = 0
        for i in range(len(balls)):
            self.plan(i, range(i + 1))

    def positions(self, time: float) -> list[Vector]:
        """The balls' centres at `time`, which must not lie before the time asked for last."""
        while self.hits:
            pair = min(self.hits, key=lambda pair: self.hits[pair])
            if self.hits[pair][0] > time:
                break
            self.collide(pair, self.hits[pair])
        return [ball.at(time) for ball in self.balls]

    def collide(self, pair: tuple[int, int], hit: Hit) -> None:
        self.collisions += 1
        if self.collisions > MAX_COLLISIONS:
            raise ValueError(f"more than {MAX_COLLISIONS} collisions before {hit[0]:g} s")
        i, j = pair
        if i == j:
            self.bounce(i, hit)
        else:
            self.exchange(i, j, hit)
            self.plan(j, range(len(self.balls)))
        self.plan(i, range(len(self.balls)))

    def bounce(self, i: int, hit: Hit) -> None:
        """Turn round the part of the velocity that goes into the wall."""
        ball, (time, nx, ny) = self.balls[i], hit
        twice = 2 * (nx * ball.vx + ny * ball.vy)
        ball.kick(time, -twice * nx, -twice * ny)

    def exchange(self, i: int, j: int, hit: Hit) -> None:
        """The impulse along the normal that conserves momentum and energy."""
        one, other, (time, nx, ny) = self.balls[i], self.balls[j], hit
        closing = nx * (other.vx - one.vx) + ny * (other.vy - one.vy)
        impulse = -2 * closing / (1 / one.area + 1 / other.area)
        one.kick(time, -impulse / one.area * nx, -impulse / one.area * ny)
        other.kick(time, impulse / other.area * nx, impulse / other.area * ny)

    def plan(self, i: int, others: range) -> None:
        """Find out anew what ball i meets."""
        self.hits[i, i] = wall_hit(self.balls[i], self.walls[i])
        for j in others:
            if j != i:
                pair = (i, j) if i < j else (j, i)
                self.hits[pair] = self.meeting(*pair)

    def meeting(self, i: int, j: int) -> Hit:
        one, other = self.balls[i], self.balls[j]
        now = max(one.time, other.time)
        (x, y), (other_x, other_y) = one.at(now), other.at(now)
        motion = other_x - x, other_y - y, other.vx - one.vx, other.vy - one.vy
        if not may_meet(*motion, one.radius + other.radius):
            return NEVER
        if (i, j) not in self.differences:
            self.differences[i, j] = difference(one, other)
        time, nx, ny = entry(self.differences[i, j], *motion)
        return now + time, nx, ny
