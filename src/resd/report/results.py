"""The numbers of the page as tables: held-out results, the comparison of runs, what went wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from resd.report.runs import Row, Run, number, series, total
from resd.training.run_folder import HARMLESS, flatten

_HELD_OUT = re.compile(r"val/(?P<source>.+)/(?P<variable>[^/]+)/(?P<statistic>mean@\d+|best@\d+|mean)")
_WORDS = {
    "reward": "success (reward)",
    "solved": "solved (every test passed)",
    "test_cases": "test cases passed",
    "response_length": "response length",
}
NONE = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One held-out metric: its full name, and what its parts mean."""

    key: str
    source: str
    variable: str
    statistic: str

    @property
    def words(self) -> str:
        return _WORDS.get(self.variable, self.variable)

    def format(self, value: float | None) -> str:
        form = "{:.1f}" if self.variable == "response_length" else "{:.3f}"
        return NONE if value is None else form.format(value)


@dataclass(frozen=True, slots=True)
class Results:
    """Held-out results of one run: a row per metric, a cell per chosen evaluation, and the change."""

    run: str
    columns: Sequence[str]
    rows: Sequence[tuple[HeldOut, Sequence[str], str]]


@dataclass(frozen=True, slots=True)
class Alarm:
    """One thing that should not happen. `cells` are by run: text, and whether to look at it."""

    name: str
    meaning: str
    cells: Sequence[tuple[str, bool]]


def held_out(run: Run) -> list[HeldOut]:
    """The held-out metrics that a run has, in the order of the log.

    Without the bootstrap, and without `solved` where it is the reward.
    """
    keys = dict.fromkeys(key for row in run.evaluations for key in row if not _repeats(run, key))
    matches = [match for key in keys if (match := _HELD_OUT.fullmatch(key))]
    return [HeldOut(m[0], m["source"], m["variable"], m["statistic"]) for m in matches]


def _repeats(run: Run, key: str) -> bool:
    """Whether a key of `solved` says what that of the reward says: a reward of all or nothing."""
    twin = key.replace("/solved/", "/reward/")
    return twin != key and all(row.get(key) == row.get(twin) for row in run.evaluations)


def best_evaluation(run: Run) -> Row | None:
    """The evaluation with the highest mean reward, then test cases, over all sources; the first of equals."""
    metrics = [m for m in held_out(run) if m.statistic.startswith("mean@")]

    def rank(row: Row) -> tuple[float, ...]:
        return tuple(
            sum(number(row, m.key) or 0.0 for m in metrics if m.variable == variable)
            for variable in ("reward", "test_cases")
        )

    return max(run.evaluations, key=rank, default=None)


def results(run: Run) -> Results | None:
    """Before, best and after; None for a run that was not evaluated."""
    best = best_evaluation(run)
    if best is None:
        return None
    first, last = run.evaluations[0], run.evaluations[-1]
    chosen = [("before", first), ("best", best), ("after", last)] if last is not first else [("only", first)]
    columns = [f"{name} (update {row['step']})" for name, row in chosen]
    rows = []
    for metric in held_out(run):
        values = [number(row, metric.key) for _, row in chosen]
        rows.append((metric, [metric.format(value) for value in values], _change(metric, values)))
    return Results(run.name, columns, rows)


def facts(run: Run) -> dict[str, str]:
    """What a reader wants to know first of a run."""
    most = run.setting("stream.max_updates")
    batches = len({row.get("batch") for row in run.updates})
    return {
        "algorithm": _text(run.setting("algorithm")).upper(),
        "model": _text(run.setting("model")),
        "environment": environment(run),
        "seed": _text(run.setting("seed")),
        "updates done": f"{len(run.updates)}{f' of at most {most}' if most else ''}",
        "batches": f"{batches} of {_text(run.setting('stream.batch_size'))} problems",
        "tries": _text(run.setting("rollout.n")),
        "time": duration(run),
    }


def shared_facts(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """The facts that all runs have in common: all of them, for one run."""
    first, *others = [facts(run) for run in runs]
    return [(name, value) for name, value in first.items() if all(o[name] == value for o in others)]


def comparison(runs: Sequence[Run]) -> list[tuple[str, Sequence[str]]]:
    """(heading, one cell per run), for a table with one row per run: what differs, and what came of it."""
    shared = dict(shared_facts(runs))
    each = [facts(run) for run in runs]
    differing = [name for name in each[0] if name not in shared and name != "batches"]
    table: list[tuple[str, Sequence[str]]] = [("run", [run.name for run in runs])]
    table += [(name, [one[name] for one in each]) for name in differing]
    if any(other := _other_settings(runs)):
        table.append(("other settings", other))
    metrics = _shared_metrics(runs)
    several = len({metric.source for metric in metrics}) > 1
    for metric in metrics:
        heading = f"{'success' if metric.variable == 'reward' else 'tests'} {metric.statistic}"
        cells = [_before_after(run, metric) for run in runs]
        table.append((f"{metric.source}: {heading}" if several else heading, cells))
    entries = [total(run.updates[-1:], "playbook/total_bullets") for run in runs]
    if any(count is not None for count in entries):
        table.append(("entries", [NONE if count is None else f"{count:.0f}" for count in entries]))
    return table


def _other_settings(runs: Sequence[Run]) -> list[str]:
    """Per run, the settings beyond its facts that are not the same in all runs and change its numbers."""
    settings = [flatten(run.config) for run in runs]
    told = {"algorithm", "model", "seed", "rollout.n", "environment", *HARMLESS}
    keys = [
        key
        for key in dict.fromkeys(key for one in settings for key in one)
        if not any(f"{key}.".startswith(f"{name}.") for name in told)
        and any(one.get(key) != settings[0].get(key) for one in settings)
    ]
    return [", ".join(f"{key} {_text(one.get(key))}" for key in keys) for one in settings]


def environment(run: Run) -> str:
    """Name and options."""
    options = run.setting("environment.options")
    listed = (
        ", ".join(f"{key} {value}" for key, value in options.items()) if isinstance(options, dict) else ""
    )
    return _text(run.setting("environment.name")) + (f" ({listed})" if listed else "")


def duration(run: Run) -> str:
    """Of all updates and evaluations."""
    seconds = (total(run.timing, "timing_s/step") or 0.0) + run.evaluation_seconds
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


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
    """What should be zero, for each run; rows that no run has are left out."""
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


def _shared_metrics(runs: Sequence[Run]) -> list[HeldOut]:
    """Success and test cases, of all runs together."""
    metrics = {metric.key: metric for run in runs for metric in held_out(run)}
    return [metric for metric in metrics.values() if metric.variable in ("reward", "test_cases")]


def _before_after(run: Run, metric: HeldOut) -> str:
    points = series(run.evaluations, metric.key)
    if not points:
        return NONE
    first, last = metric.format(points[0][1]), metric.format(points[-1][1])
    return f"{first} → {last}" if len(points) > 1 else first


def _change(metric: HeldOut, values: Sequence[float | None]) -> str:
    before, after = values[0], values[-1]
    if len(values) < 2 or before is None or after is None:
        return ""
    text = metric.format(after - before)
    if float(text) == 0:
        return text.lstrip("-")
    return text.replace("-", "\N{MINUS SIGN}") if after < before else f"+{text}"


def _text(value: object) -> str:
    return NONE if value is None else str(value)
