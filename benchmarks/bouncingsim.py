"""BouncingSim: how near our scenes are to the published ones, and how fast scenes and replies are judged.

Run with `python benchmarks/bouncingsim.py`. The published floors were measured on scenes of the published
generator; a scene's truth takes Box2D 31 ms (steps of 1/4000 s) where these figures were taken. The floor for
grading is what it takes to start a Python process that does nothing. `--solutions` grades so many problems of
each level (default: all).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from resd.environments.base import Environment
from resd.environments.bouncingsim import BouncingSim, simulate
from resd.environments.bouncingsim.generator import LEVELS, generated_rows
from resd.environments.bouncingsim.judging import judge_value
from resd.records import Problem, Verdict
from resd.training.rollout import grading

Guess = Callable[[dict[str, Any], float], list[float]]

# Per cent of times that pass, and of problems where all do.
PUBLISHED = {
    ("stay at start", "easy"): (3.6, 0.0),
    ("stay at start", "medium"): (0.2, 0.0),
    ("straight line", "easy"): (25.9, 0.0),
    ("straight line", "medium"): (15.3, 0.0),
}
GUESSES: dict[str, Guess] = {
    "stay at start": lambda ball, _: list(ball["position"]),
    "straight line": lambda ball, t: [
        at + speed * t for at, speed in zip(ball["position"], ball["velocity"], strict=True)
    ],
}
ENDLESS = "```python\ndef predict_position(t):\n    while True:\n        pass\n```"


def score(guess: Guess, rows: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Per cent of times, and of scenes, that a guess for each ball passes."""
    passed = [
        [
            judge_value([guess(ball, t) for ball in row["balls"]], t, truth, row["tolerance"]).kind == "ok"
            for t, truth in zip(row["timestamps"], row["positions"], strict=True)
        ]
        for row in rows
    ]
    times = sum(map(len, passed))
    return 100 * sum(map(sum, passed)) / times, 100 * sum(map(all, passed)) / len(rows)


def seconds(work: Callable[[], object], repeats: int = 1) -> float:
    """The best of a few runs."""
    best = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begin)
    return best


def scenes() -> None:
    print(f"{'scenes':<24}{'rows':>6}{'made in, s':>12}{'truth, ms':>11}")
    for level in LEVELS:
        made = seconds(lambda level=level: generated_rows(level, 0))
        rows = generated_rows(level, 0)
        truth = seconds(lambda rows=rows: [simulate(row, row["timestamps"]) for row in rows], 3) / len(rows)
        print(f"{level:<24}{len(rows):>6}{made:>12.2f}{1000 * truth:>11.2f}")


def floors() -> None:
    print(f"\n{'floor':<24}{'times, %':>10}{'published':>11}{'problems, %':>13}{'published':>11}")
    for (name, level), published in PUBLISHED.items():
        times, problems = score(GUESSES[name], generated_rows(level, 0))
        shown = f"{times:>10.1f}{published[0]:>11.1f}{problems:>13.1f}{published[1]:>11.1f}"
        print(f"{name + ', ' + level:<24}{shown}")


def start_python() -> None:
    subprocess.run([sys.executable, "-I", "-c", ""], check=True)


def graded(environment: Environment, problems: Sequence[Problem], replies: Sequence[str]) -> list[Verdict]:
    """Verdicts in the order of the replies, made as a run makes them."""
    with grading(environment) as grade:
        waited = [grade(*pair) for pair in zip(problems, replies, strict=True)]
        return [verdict() for verdict in waited]


def solutions(count: int | None) -> None:
    """One reply at a time, then solutions of many problems, several at once."""
    easy = BouncingSim()
    problem = easy.problems("train")[0]
    reply = easy.solution(problem)
    assert reply is not None
    easy.grade(problem, reply)  # starts the sandbox
    alone, process = seconds(lambda: easy.grade(problem, reply), 10), seconds(start_python, 10)
    print(f"\na solution graded in {alone:.3f} s; a Python process starts in {process:.3f} s")
    for level in LEVELS:
        environment = BouncingSim(level=level)
        problems = [*environment.problems("train"), *environment.problems("test")][:count]
        begin = time.perf_counter()
        verdicts = graded(environment, problems, [environment.solution(each) or "" for each in problems])
        solved = sum(
            verdict.solved and verdict.reward == 1.0 and not verdict.feedback for verdict in verdicts
        )
        print(
            f"{level}: {solved} of {len(problems)} solutions solved, in {time.perf_counter() - begin:.1f} s"
        )


def loops(endless: int, good: int) -> None:
    """A batch with endless loops in it: the time limit is 1 s a reply."""
    environment = BouncingSim()
    problems: list[Problem] = environment.problems("test")[: endless + good]
    replies = [environment.solution(each) or "" for each in problems[:good]] + [ENDLESS] * endless
    begin = time.perf_counter()
    verdicts = graded(environment, problems, replies)
    taken = time.perf_counter() - begin
    solved = sum(verdict.solved for verdict in verdicts[:good])
    stopped = sum(verdict.details["timed_out"] for verdict in verdicts[good:])
    print(
        f"{endless} endless loops ({stopped} stopped for time) and {good} solutions ({solved} solved) "
        f"in {taken:.1f} s on {environment.workers} workers"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Scenes, floors and grading of BouncingSim.")
    parser.add_argument("--solutions", type=int, metavar="N", help="grade N solutions a level (default: all)")
    parser.add_argument("--loops", type=int, default=32, metavar="N", help="endless loops in the batch")
    arguments = parser.parse_args(argv)
    scenes()
    floors()
    solutions(arguments.solutions)
    loops(arguments.loops, good=4)


if __name__ == "__main__":
    main()
