"""Our scenes: sizes, distribution, splits, and that they can be told again."""

import math
from itertools import combinations
from random import Random

import pytest

from resd.environments.bouncingsim import simulate
from resd.environments.bouncingsim.generator import LEVELS, draw_scene, generated_rows, is_stable
from resd.environments.bouncingsim.scene import scene_key

# Published: per cent of times that pass for balls that stay at their start, and that fly straight on.
FLOORS = {"easy": (3.6, 25.9), "medium": (0.2, 15.3)}


@pytest.mark.parametrize("level", LEVELS)
def test_rows(level):
    rows, sizes = generated_rows(level, 0), LEVELS[level]
    splits = [row["split"] for row in rows]
    assert (splits.count("train"), splits.count("test")) == (sizes.train, sizes.test)
    assert len({scene_key(row) for row in rows}) == len({row["id"] for row in rows}) == len(rows)
    assert {len(row["balls"]) for row in rows} == set(range(sizes.balls[0], sizes.balls[1] + 1))
    for row in rows:
        room = 375 * math.cos(math.pi / row["container"]["sides"]) - 25
        assert row["container"]["sides"] in range(3, 7)
        for ball in row["balls"]:
            assert math.dist(ball["position"], (750, 750)) <= room
            assert sizes.speed[0] - 0.01 <= math.hypot(*ball["velocity"]) <= sizes.speed[1] + 0.01
        for one, other in combinations(row["balls"], 2):
            assert math.dist(one["position"], other["position"]) >= 45


def test_sizes_are_the_published_ones():
    assert [(level.train, level.test) for level in LEVELS.values()] == [(640, 100), (320, 100)]


@pytest.mark.parametrize("level", LEVELS)
def test_floors_are_near_the_published_ones(level):
    """What simple answers score says how far balls fly, and how often they hit something."""
    stays, straight = 0, 0
    rows = generated_rows(level, 0)
    for row in rows:
        for time, truth in zip(row["timestamps"], row["positions"], strict=True):
            pairs = list(zip(row["balls"], truth, strict=True))
            stays += _mean(math.dist(ball["position"], at) for ball, at in pairs) <= 50
            straight += _mean(math.dist(_flown(ball, time), at) for ball, at in pairs) <= 50
    total = 15 * len(rows)
    assert 100 * stays / total == pytest.approx(FLOORS[level][0], abs=1)
    assert 100 * straight / total == pytest.approx(FLOORS[level][1], abs=2)


def _mean(values):
    listed = list(values)
    return sum(listed) / len(listed)


def _flown(ball, time):
    return [at + speed * time for at, speed in zip(ball["position"], ball["velocity"], strict=True)]


def test_seeds():
    """The same scenes everywhere: the last row depends on all rows before it."""
    last = generated_rows("medium", 0)[-1]
    assert last["positions"][-1] == [
        [604.14, 868.42],
        [660.28, 770.36],
        [714.89, 552.53],
        [668.48, 823.9],
        [599.51, 506.54],
    ]
    keys = [{scene_key(row) for row in generated_rows("medium", seed)} for seed in (0, 1)]
    assert not keys[0] & keys[1]


def test_the_order_of_balls_makes_no_new_scene():
    scene = next(filter(None, (draw_scene(LEVELS["easy"], Random(seed)) for seed in range(9))))
    other = {**scene, "balls": scene["balls"][::-1]}
    assert scene_key(scene) == scene_key(other)
    assert scene_key(scene) != scene_key({**scene, "balls": scene["balls"][:2]})


def test_scenes_that_hang_by_a_hair_are_unstable():
    """A point that meets the point of another ball goes either way."""
    balls = [
        {"sides": 4, "radius": 20.0, "position": [650, 750], "velocity": [500.0, 0.0]},
        {"sides": 4, "radius": 20.0, "position": [850, 750], "velocity": [0.0, 0.0]},
    ]
    scene = {"container": {"sides": 4, "radius": 375.0, "center": [750, 750]}, "balls": balls}
    assert not is_stable(scene, Random(0))
    balls[0]["position"][1] = balls[1]["position"][1] = 760
    balls[0]["velocity"] = [-100.0, 0.0]
    assert is_stable(scene, Random(0))


@pytest.mark.parametrize("level", LEVELS)
def test_the_truth_is_rounded_to_centimetres(level):
    for row in generated_rows(level, 0)[:20]:
        for found, kept in zip(simulate(row, row["timestamps"]), row["positions"], strict=True):
            for here, there in zip(found, kept, strict=True):
                assert there == [round(part, 2) for part in here]
