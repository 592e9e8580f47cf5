"""Quantities derived from a run: its curve, the cost of reaching half way, the total cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from statistics import fmean
from typing import Any

from resd.experiments.statistics import area, crossing, spent

Run = Mapping[str, Any]
Reading = Callable[[Run], float | None]
HALF = 0.5
TOKENS = ("tokens", "reflect_tokens", "tag_tokens", "curate_tokens")


def curve(run: Run) -> list[tuple[float, float]]:
    """(update, held-out mean@k); [] for a run that is not evaluated."""
    columns = run.get("evaluations", {})
    name = next((name for name in columns if name.startswith("reward/mean@")), None)
    return list(zip(columns["update"], columns[name], strict=True)) if name else []


def final(run: Run) -> float | None:
    points = curve(run)
    return points[-1][1] if points else None


def curve_area(run: Run) -> float | None:
    return area(curve(run))


def updates_to_half(run: Run) -> float | None:
    """Updates until half is solved; None if that is not reached."""
    return crossing(curve(run), HALF)


def costs(run: Run, kind: str) -> list[float]:
    """Costs by update: "updates", "rollouts", "tokens" (of all kinds of text) or "seconds"; [] if unknown."""
    series: Mapping[str, Sequence[float]] = run.get("series", {})
    if kind == "updates":
        return [1.0] * (int(curve(run)[-1][0]) if curve(run) else 0)
    names = TOKENS if kind == "tokens" else (kind,)
    columns = [series[name] for name in names if name in series]
    return [float(sum(value or 0 for value in row)) for row in zip(*columns, strict=True)]


def cost_to(level: float, kind: str) -> Reading:
    """The cost until the curve first reached that level; None if it never did."""

    def reading(run: Run) -> float | None:
        updates = crossing(curve(run), level)
        return None if updates is None else spent(costs(run, kind), updates)

    return reading


def cost_in_all(kind: str) -> Reading:
    return lambda run: sum(costs(run, kind)) or None


def cost_curve(run: Run, kind: str) -> list[tuple[float, float]]:
    """The curve by cost until each evaluation."""
    sums = [0.0, *accumulate(costs(run, kind))]
    return [(sums[int(update)], value) for update, value in curve(run) if update < len(sums)]


def first_successes(run: Run) -> list[int | None]:
    """For work on hard problems: the attempt that solved each, None for none."""
    return [row["first"] for row in run["discovery"].values()]


def solved_within(attempts: int) -> Reading:
    """The share of hard problems solved within `attempts` attempts."""

    def reading(run: Run) -> float | None:
        firsts = first_successes(run)
        return sum(first is not None and first <= attempts for first in firsts) / len(firsts)

    return reading


def attempts_needed(run: Run) -> float | None:
    """Mean over hard problems, an unsolved one counting as the whole budget."""
    return fmean(row["first"] or row["attempts"] for row in run["discovery"].values())


def tokens_needed(run: Run) -> float | None:
    """Mean over hard problems of all that was generated."""
    return fmean(row["tokens"] for row in run["discovery"].values())


def wrong(key: str) -> Reading:
    """A number of the run's wrong lessons."""
    return lambda run: float(run["wrong_lessons"][key]) if "wrong_lessons" in run else None


def mean_life(run: Run) -> float | None:
    """Mean number of updates from a wrong lesson's addition to its removal; None if none was removed."""
    lessons = run.get("wrong_lessons", {})
    removed = lessons["lives"][: lessons["added"] - lessons["left"]] if lessons else []
    return fmean(removed) if removed else None


def share_shown(run: Run) -> float | None:
    """The share of updates whose teacher prompts showed a wrong lesson."""
    lessons: Mapping[str, int] = run.get("wrong_lessons", {})
    return lessons["updates_shown"] / lessons["updates"] if lessons.get("updates") else None


def skill(name: str) -> Reading:
    return lambda run: run.get("skills", {}).get(name)
