"""Alarms: how often things happened that should not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resd.report.results import NONE
from resd.report.runs import Run, number, series, total


@dataclass(frozen=True, slots=True)
class Alarm:
    """One thing that should not happen. `cells` has, for each run, a text and whether it needs attention."""

    name: str
    meaning: str
    cells: Sequence[tuple[str, bool]]

    @property
    def is_raised(self) -> bool:
        return any(look for _, look in self.cells)

    @property
    def is_partial(self) -> bool:
        """Whether some runs do not have this at all."""
        return any(text == NONE for text, _ in self.cells)


# Name, metric that counts it, metric that counts the whole ("" for none), what it means.
_COUNTS = (
    (
        "reflections rejected",
        "context/reflections_rejected",
        "context/reflections",
        "no JSON could be read, or what it says is degenerate",
    ),
    ("lessons rejected", "context/lessons_rejected", "", "degenerate: no words, or endless repetition"),
    ("curations rejected", "context/curations_rejected", "context/curations", "no JSON could be read"),
    (
        "curator's operations rejected",
        "context/operations_rejected",
        "",
        "not a valid addition, degenerate, or one too many",
    ),
    ("success tags rejected", "context/tag_replies_rejected", "", "no JSON could be read"),
    ("unknown tags", "context/tags_unknown", "", "a tag of no known entry or kind"),
    (
        "prompts truncated",
        "context/prompts_truncated",
        "",
        "of reflector, tagger and curator, over the token budget",
    ),
    (
        "teacher equals student",
        "self_distillation/teacher_equals_student",
        "updates",
        "what it was shown did not move its predictions",
    ),
)
_SKIPPED = (
    ("gradient not finite", False, "the step was skipped; no weight was changed"),
    ("nothing to learn from", True, "no attempt had a teacher prompt or an advantage; the step was skipped"),
)
_SHARES = (
    ("teacher prompts truncated", "self_distillation/reprompt_truncated_fraction", "mean share of attempts"),
    ("responses cut at the limit", "response_length/clip_ratio", "mean share of attempts"),
)


def alarms(runs: Sequence[Run]) -> list[Alarm]:
    """Values that should be zero, for each run; rows that no run has are left out."""
    rows = [
        Alarm(name, meaning, [_count(run, key, whole) for run in runs])
        for name, key, whole, meaning in _COUNTS
    ]
    rows += [Alarm(name, meaning, [_share(run, key) for run in runs]) for name, key, meaning in _SHARES]
    for name, idle, meaning in _SKIPPED:
        rows.append(Alarm(name, meaning, [_skipped(run, idle=idle) for run in runs]))
    rows.append(
        Alarm("metrics not finite", "NaN or infinite values in the log", [_holes(run) for run in runs])
    )
    return [row for row in rows if any(text != NONE for text, _ in row.cells)]


def _count(run: Run, key: str, whole: str) -> tuple[str, bool]:
    count = total(run.updates, key)
    if count is None:
        return NONE, False
    of = len(run.updates) if whole == "updates" else total(run.updates, whole)
    text = f"{count:.0f}" if of is None else f"{count:.0f} of {of:.0f}"
    first = next((f", first in update {step:g}" for step, value in series(run.updates, key) if value), "")
    return text + first, count > 0


def _skipped(run: Run, *, idle: bool) -> tuple[str, bool]:
    """Updates without an optimizer step: those that had nothing to train on, or the others."""
    rows = [row for row in run.updates if "actor/skipped" in row]
    skipped = [row for row in rows if row["actor/skipped"]]
    hits = [row for row in skipped if (number(row, "actor/trained_fraction") == 0) == idle]
    first = f", first in update {hits[0]['step']}" if hits else ""
    return (f"{len(hits)} of {len(rows)}{first}", bool(hits)) if rows else (NONE, False)


def _share(run: Run, key: str) -> tuple[str, bool]:
    values = [value for _, value in series(run.updates, key)]
    mean = sum(values) / len(values) if values else None
    return (NONE, False) if mean is None else (f"{mean:.3f}", mean > 0)


def _holes(run: Run) -> tuple[str, bool]:
    rows = [*run.updates, *run.evaluations]
    count = sum(value is None for row in rows for value in row.values())
    return str(count), count > 0
