"""The summary of a run that is kept: a few kilobytes of numbers from its folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from resd.context import journal as changes
from resd.context.entries import Entry, dedup_key
from resd.context.playbook import load_playbooks
from resd.experiments.lives import is_wrong, merged, wrong_lessons
from resd.lab.rules import RULE_OF_TEXT
from resd.training import journal

DIGITS = 5
ROLES = ("reflect", "tag", "curate")
# Names of the columns, and the metrics of the updates that they hold.
SERIES = {"solved": "train/solved/mean", "entries": "playbook/total_bullets"}
RULE_OF_KEY = {dedup_key(text): rule.name for text, rule in RULE_OF_TEXT.items()}


def summarize_run(run: Path) -> dict[str, Any]:
    """Evaluations and updates by column, and a summary of the playbook, if there is one."""
    rows = journal.read(run / journal.METRICS)
    updates = [row for row in rows if row["kind"] == "update"]
    seconds = {
        row["step"]: row.get("timing_s/step")
        for row in journal.read(run / journal.TIMING)
        if row["kind"] == "update"
    }
    found: dict[str, Any] = {
        "evaluations": evaluations([row for row in rows if row["kind"] == "evaluation"]),
        "series": {
            **{name: [row.get(key) for row in updates] for name, key in SERIES.items()},
            "seconds": [seconds.get(row["step"]) for row in updates],
            **columns([generated(run, row["step"]) for row in updates]),
        },
    }
    found["series"] = {name: column for name, column in found["series"].items() if set(column) - {None}}
    if (run / journal.PLAYBOOK).is_file():
        found |= playbook_summary(run)
    kept: dict[str, Any] = rounded(found)
    return kept


def evaluations(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Columns `update` and, without the environment's name, the held-out metrics; no bootstrap.

    `solved/*` is left out where it is the reward.
    """
    found: dict[str, list[Any]] = {"update": [row["step"] for row in rows]}
    for key in dict.fromkeys(key for row in rows for key in row if key.startswith("val/")):
        twin = key.replace("/solved/", "/reward/")
        repeats = twin != key and all(row.get(key) == row.get(twin) for row in rows)
        if not key.endswith("bootstrap") and not repeats:
            found["/".join(key.rsplit("/", 2)[1:])] = [row.get(key) for row in rows]
    return found


def generated(run: Path, step: int) -> dict[str, int]:
    """The number of rollouts of an update, and the tokens generated for it by kind of text."""
    counts: Counter[str] = Counter()
    for row in journal.read(run / journal.ROLLOUTS / f"{step}.jsonl"):
        if row["kind"] == "attempt":
            counts["rollouts"] += 1
            counts["tokens"] += row["tokens"]
        elif row["role"] in ROLES:
            counts[f"{row['role']}_tokens"] += row["tokens"]
    return dict(counts)


def columns(rows: Sequence[Mapping[str, int]]) -> dict[str, list[int]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name, 0) for row in rows] for name in names}


def playbook_summary(run: Path) -> dict[str, Any]:
    """The final playbook and the lives of wrong lessons. Playbooks per problem are added up."""
    path = run / journal.PLAYBOOK
    books = load_playbooks(path)
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    withheld = config["context"]["probation"] == "withheld"
    own: dict[str, list[changes.Change]] = {}  # entries of two playbooks may have the same id
    for _, change in changes.read(path):
        own.setdefault(change.get("playbook", ""), []).append(change)
    lived = merged(wrong_lessons(each, withheld=withheld) for each in own.values())
    entries = [entry for book in books.values() for entry in book.entries]
    return {"playbook": contents(entries), "wrong_lessons": lived.summary()}


def contents(entries: Iterable[Entry]) -> dict[str, int]:
    """Counts of entries, of the lab's rules with a true lesson, of lessons wrong or of no rule, of tags."""
    entries = list(entries)
    true = [e for e in entries if not is_wrong(e.content) and dedup_key(e.content) in RULE_OF_KEY]
    wrong = sum(is_wrong(entry.content) for entry in entries)
    return {
        "entries": len(entries),
        "rules": len({RULE_OF_KEY[dedup_key(entry.content)] for entry in true}),
        "wrong": wrong,
        "unknown": len(entries) - len(true) - wrong,
        "helpful": sum(entry.helpful for entry in entries),
        "harmful": sum(entry.harmful for entry in entries),
    }


def rounded(value: Any) -> Any:
    """Round floats to five significant digits, recursively."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value
