"""What a run has spent: rollouts, generated tokens by role, seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

from resd.report.runs import Points, Row, Run, damaged, number, once_per_run, series
from resd.training import journal

# Of generation, as rows and metrics name them, with the words of the page.
ROLES: Mapping[str, str] = {
    "rollout": "rollouts",
    "reflect": "reflections",
    "tag": "tags of successes",
    "curate": "curations",
}


@dataclass(frozen=True, slots=True)
class Spent:
    """Costs of one update. `estimated`: the tokens of some roles were estimated from characters."""

    rollouts: int
    tokens: Mapping[str, float]
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """A measure of a run's progress. `place` maps its steps to positions; {} if they are not known."""

    key: str
    name: str
    unit: str
    place: Callable[[Run], Mapping[float, float]]


@once_per_run
def spending(run: Run) -> dict[int, Spent]:
    """By update, as far as it is known: from metrics `tokens/<role>`, else from the rows of its rollouts."""
    found: dict[int, Spent] = {}
    for row in run.updates:
        step = int(row["step"])
        spent = _from_metrics(row) or _from_file(run.rollout_file(step))
        if spent is None:
            break
        found[step] = spent
    return found


def tokens_of(run: Run, role: str) -> Points:
    """Generated tokens of one role, by update; () where it had nothing to do."""
    points = tuple((float(step), spent.tokens.get(role, 0.0)) for step, spent in spending(run).items())
    return points if any(value for _, value in points) else ()


def axes(runs: Sequence[Run]) -> list[Axis]:
    """The axes that any of the runs has data for. Seconds become minutes or hours for long runs."""
    longest = max((max(_seconds(run).values(), default=0.0) for run in runs), default=0.0)
    unit, size = ("seconds", 1) if longest < 600 else ("minutes", 60) if longest < 18000 else ("hours", 3600)
    known = (
        Axis("updates", "updates", "update", _updates),
        Axis("rollouts", "rollouts", "rollouts", lambda run: _so_far(run, lambda spent: spent.rollouts)),
        Axis("tokens", "generated tokens", "generated tokens", _tokens),
        Axis("time", "training time", f"{unit} of training", lambda run: _scaled(_seconds(run), size)),
    )
    return [axis for axis in known if axis.key == "updates" or any(len(axis.place(run)) > 1 for run in runs)]


def is_estimated(runs: Sequence[Run]) -> bool:
    return any(spent.estimated for run in runs for spent in spending(run).values())


def _updates(run: Run) -> Mapping[float, float]:
    return {float(step): float(step) for step in range(run.steps + 1)}


def _tokens(run: Run) -> Mapping[float, float]:
    return _so_far(run, lambda spent: sum(spent.tokens.values()))


def _seconds(run: Run) -> Mapping[float, float]:
    """Seconds of the updates, without evaluations."""
    points = series(run.timing, "timing_s/step")
    sums = accumulate((seconds for _, seconds in points), initial=0.0)
    return dict(zip([0.0, *(step for step, _ in points)], sums, strict=True))


def _scaled(places: Mapping[float, float], size: float) -> Mapping[float, float]:
    return {step: place / size for step, place in places.items()}


def _so_far(run: Run, amount: Callable[[Spent], float]) -> Mapping[float, float]:
    found = spending(run)
    sums = accumulate((amount(spent) for spent in found.values()), initial=0.0)
    return dict(zip([0.0, *map(float, found)], sums, strict=True))


def _from_metrics(row: Row) -> Spent | None:
    tokens = {role: value for role in ROLES if (value := number(row, f"tokens/{role}")) is not None}
    mean = number(row, "response_length/mean")
    if "rollout" not in tokens or not mean:
        return None
    return Spent(round(tokens["rollout"] / mean), tokens)


def _from_file(path: Path) -> Spent | None:
    if not path.is_file():
        return None
    status = path.stat()
    return _counted(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=20_000)
def _counted(path: Path, _changed: int, _size: int) -> Spent:
    """Cached until the file changes, because a watched page is rendered again and again."""
    rows = journal.read(path)
    try:
        attempts = [row for row in rows if row["kind"] == "attempt"]
        said = [row for row in rows if row["kind"] == "context"]
        tokens = {"rollout": float(sum(row["tokens"] for row in attempts))}
        per_character = tokens["rollout"] / (sum(len(row["response"]) for row in attempts) or 1)
        for row in said:
            count = row["tokens"] if "tokens" in row else len(row["output"]) * per_character
            tokens[row["role"]] = tokens.get(row["role"], 0.0) + count
    except (KeyError, TypeError) as error:
        raise damaged(path, error) from error
    return Spent(len(attempts), tokens, any("tokens" not in row for row in said))
