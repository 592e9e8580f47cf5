"""Loads the contents of a run's folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import yaml

from resd.context.journal import Change
from resd.context.playbook import Playbook, load_playbooks
from resd.records import ResdError
from resd.training import journal

CONFIG = "config.yaml"
# Characters of any one text that the page shows: responses of reasoning models are long.
MOST_TEXT = 6000

Row = Mapping[str, Any]
Points = tuple[tuple[float, float], ...]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Run:
    """One run, possibly unfinished. `name` distinguishes it from the others on the page.

    `updates` and `evaluations` are rows of metrics.jsonl in order, `timing` the updates' rows of
    timing.jsonl; `playbooks` are by problem id ("" is the global one), and `changes` are what made them.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    updates: Sequence[Row]
    evaluations: Sequence[Row]
    timing: Sequence[Row]
    playbooks: Mapping[str, Playbook]
    changes: Sequence[Change]

    @property
    def steps(self) -> int:
        """Updates done."""
        return max((row["step"] for row in (*self.updates, *self.evaluations)), default=0)

    @property
    def has_playbook(self) -> bool:
        return bool(self.playbooks)

    def setting(self, path: str) -> Any:
        """A value of the configuration by its dotted name; None if there is none."""
        value: Any = self.config
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    @property
    def steps_with_updates(self) -> list[int]:
        return [int(row["step"]) for row in self.updates]

    def rollouts(self, step: int) -> list[dict[str, Any]]:
        """The rows of one update; [] if they were not kept."""
        return journal.read(self.rollout_file(step))

    def rollout_file(self, step: int) -> Path:
        return self.folder / journal.ROLLOUTS / f"{step}.jsonl"

    def evaluation_file(self, step: int) -> Path:
        return self.folder / journal.EVALUATIONS / f"{step}.jsonl"


def once_per_run(function: Callable[[Run], T]) -> Callable[[Run], T]:
    """Cache a function's result as long as the run lives: many charts need it, and it reads many files."""
    known: WeakKeyDictionary[Run, T] = WeakKeyDictionary()

    @wraps(function)
    def remembered(run: Run) -> T:
        if run not in known:
            known[run] = function(run)
        return known[run]

    return remembered


def load_runs(folders: Sequence[Path]) -> list[Run]:
    """Load each folder once. Raises ResdError for a folder that is not a run, and for a damaged file."""
    return [load_run(folder, name) for folder, name in distinct(folders)]


def distinct(folders: Sequence[Path]) -> list[tuple[Path, str]]:
    """Each folder once, with the name of its run. Raises ResdError for none."""
    found = list({folder.resolve(): folder for folder in folders})
    if not found:
        raise ResdError("no run was given; give at least one run folder")
    return list(zip(found, names(found), strict=True))


def check_folder(folder: Path) -> None:
    """Raises ResdError for a folder that is not a run's."""
    if not (folder / CONFIG).is_file():
        raise ResdError(f"run {folder}: has no {CONFIG}; give the folder of a run")


def load_run(folder: Path, name: str) -> Run:
    """Read one run's journals. An incomplete last line is skipped; the run may have just begun."""
    check_folder(folder)
    rows = _checked(folder / journal.METRICS)
    timing = _checked(folder / journal.TIMING)
    path = folder / journal.PLAYBOOK
    return Run(
        name=name,
        folder=folder,
        config=_config(folder / CONFIG),
        updates=_kind(rows, "update"),
        evaluations=_kind(rows, "evaluation"),
        timing=_kind(timing, "update"),
        playbooks=load_playbooks(path) if path.is_file() else {},
        changes=journal.read(path),
    )


def names(folders: Sequence[Path]) -> list[str]:
    """The shortest path endings of equal depth that are all different."""
    depth = max(len(folder.parts) for folder in folders)
    for length in range(1, depth + 1):
        ends = ["/".join(folder.parts[-length:]) for folder in folders]
        if len(set(ends)) == len(ends):
            return ends
    return [str(folder) for folder in folders]


def number(row: Row, key: str) -> float | None:
    """A finite number of a row; None if it is missing or was not finite."""
    value = row.get(key)
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good and value is not None else None


def series(rows: Sequence[Row], key: str) -> Points:
    """(step, value) of the rows that have a value."""
    return tuple((row["step"], value) for row in rows if (value := number(row, key)) is not None)


def total(rows: Sequence[Row], key: str) -> float | None:
    """The sum over all rows; None when no row has the metric."""
    values = [value for _, value in series(rows, key)]
    return sum(values) if values else None


def damaged(path: Path, error: Exception) -> ResdError:
    """The error for a file whose rows lack expected fields."""
    return ResdError(f"{path} does not hold what it should ({error!r}); restore the file or remove it")


def clip(text: str, most: int = MOST_TEXT) -> str:
    """The text, or its two ends around a note of how much is left out."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters left out ...]\n{text[-half:]}"


def batch_ends(run: Run) -> tuple[float, ...]:
    """Where one batch was left for the next, between two updates."""
    pairs = zip(run.updates, run.updates[1:], strict=False)
    return tuple(before["step"] + 0.5 for before, after in pairs if before.get("batch") != after.get("batch"))


def tags_by_update(run: Run, tag: str) -> Points:
    """How often entries of the global playbook were given `tag`, by update; () in per_example mode.

    Every context update ends with one "advance", which is what divides the journal into updates.
    """
    if set(run.playbooks) != {""}:
        return ()
    counts = [0]
    for change in run.changes:
        counts[-1] += change["op"] == "tag" and change["tag"] == tag
        if change["op"] == "advance":
            counts.append(0)
    steps = [row["step"] for row in run.updates]
    return tuple(zip(steps, map(float, counts), strict=False))


def _kind(rows: Sequence[Row], kind: str) -> list[Row]:
    return [row for row in rows if row["kind"] == kind]


def _checked(path: Path) -> list[dict[str, Any]]:
    """The rows of a journal. Raises ResdError for a row without kind and step."""
    rows = journal.read(path)
    for line, row in _bad(rows):
        raise ResdError(
            f"journal {path}, line {line}: has no kind and step ({', '.join(row) or 'empty'}); "
            "restore the file or cut it before this line"
        )
    return rows


def _bad(rows: Sequence[Row]) -> Iterator[tuple[int, Row]]:
    for line, row in enumerate(rows, start=1):
        if row.get("kind") not in ("update", "evaluation") or number(row, "step") is None:
            yield line, row


def _config(path: Path) -> Mapping[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ResdError(f"config {path}: is not valid YAML; restore the file") from error
    if not isinstance(config, dict):
        raise ResdError(f"config {path}: is not a mapping; restore the file")
    return config
