"""The main facts about a run, and how configurations differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import yaml

from resd.report.results import NONE
from resd.report.runs import Run, clip, total
from resd.report.seeds import Group, differing, settings, show
from resd.report.spending import is_estimated, spending

LONGEST_CONFIG = 20_000


@dataclass(frozen=True, slots=True)
class Settings:
    """Differences, as (setting, one value per group), and each group's whole configuration as YAML."""

    rows: Sequence[tuple[str, Sequence[str]]]
    whole: Sequence[tuple[str, str]]


def facts(run: Run) -> dict[str, str]:
    """The facts by name."""
    most = run.setting("stream.max_updates")
    batches = len({row.get("batch") for row in run.updates})
    return {
        "algorithm": _text(run.setting("algorithm")).upper(),
        "model": _text(run.setting("model")),
        "environment": environment(run),
        "seed": _text(run.setting("seed")),
        "updates done": f"{len(run.updates)}{f' of at most {most}' if most else ''}",
        "batches": f"{batches}, each of {_text(run.setting('stream.batch_size'))} problems",
        "tries per problem": _text(run.setting("rollout.n")),
        "generated tokens": generated(run),
        "training time": training_time(run),
    }


def shared_facts(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """The facts that all runs have in common: all of them, for one run."""
    first, *others = [facts(run) for run in runs]
    shared = [(name, value) for name, value in first.items() if all(o[name] == value for o in others)]
    return [(name, value) for name, value in shared if value != NONE]


def environment(run: Run) -> str:
    """Name and options."""
    options = run.setting("environment.options")
    listed = (
        ", ".join(f"{key} {value}" for key, value in options.items()) if isinstance(options, dict) else ""
    )
    return _text(run.setting("environment.name")) + (f" ({listed})" if listed else "")


def generated(*runs: Run) -> str:
    """Tokens of all roles, such as "131k", mean over the runs; with a "≈" if some were estimated."""
    found = [sum(sum(spent.tokens.values()) for spent in spending(run).values()) for run in runs]
    if not all(found):
        return NONE
    return ("≈ " if is_estimated(runs) else "") + short(fmean(found))


def training_time(*runs: Run) -> str:
    """Time of all updates, mean over the runs, without evaluations."""
    seconds = fmean(total(run.timing, "timing_s/step") or 0.0 for run in runs)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def short(count: float) -> str:
    """Three digits: 950, 13.1k, 2.40M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            scaled = count / size
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f}{letter}"
    return f"{count:.0f}"


def compare_settings(groups: Sequence[Group]) -> Settings:
    """Differences between groups, not counting seeds."""
    each = [settings(group.runs[0]) for group in groups]
    rows = [(key, [_text(one.get(key)) for one in each]) for key in differing(groups)]
    return Settings(rows, [(group.name, _yaml(group.runs[0])) for group in groups])


def _yaml(run: Run) -> str:
    text = yaml.safe_dump(dict(run.config), sort_keys=False, allow_unicode=True)
    return clip(text, LONGEST_CONFIG)


def _text(value: object) -> str:
    return NONE if value is None else show(value)
