"""What a person sees of a run: a live table on a terminal, one line per update in a log."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from resd.training import journal
from resd.training.sinks import Record, Sink

SHOWN_UPDATES = 8


def console_sink(console: Console, updates: int) -> Sink:
    """The sink that suits where `console` writes. `updates` is how many there will be at most."""
    return LiveTable(console, updates) if console.is_terminal else Lines(console, updates)


class Lines:
    """One line per record."""

    def __init__(self, console: Console, updates: int) -> None:
        self.console, self.updates = console, updates

    def write(self, record: Record) -> None:
        if record.kind == "evaluation":
            line = evaluation_line(record)
        else:
            named = update_cells(record, self.updates).items()
            line = "  ".join(f"{name} {value}" for name, value in named if value)
        self.console.print(line, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Nothing is held back."""


class LiveTable:
    """The last few updates in a table that stays at the bottom; evaluations scroll by above it."""

    def __init__(self, console: Console, updates: int) -> None:
        self.updates = updates
        self.rows: deque[dict[str, str]] = deque(maxlen=SHOWN_UPDATES)
        self.live = Live(console=console, auto_refresh=False)
        self.live.start()

    def write(self, record: Record) -> None:
        if record.kind == "evaluation":
            self.live.console.print(evaluation_line(record), highlight=False)
            return
        self.rows.append(update_cells(record, self.updates))
        table = Table(*self.rows[-1], box=None, pad_edge=False)
        for row in self.rows:
            table.add_row(*row.values())
        self.live.update(table, refresh=True)

    def close(self) -> None:
        self.live.stop()


def update_cells(record: Record, updates: int) -> dict[str, str]:
    """What is worth a glance, by heading. A metric that the algorithm does not have is ""."""
    metrics = record.metrics
    return {
        "update": f"{record.step}/{updates}",
        "batch": f"{(record.batch or 0) + 1}.{(record.round or 0) + 1}",
        "solved": _number(metrics.get("train/solved/mean"), "{:.3f}"),
        "tests": _number(metrics.get("train/test_cases/mean"), "{:.3f}"),
        "entries": _number(metrics.get("playbook/total_bullets"), "{:.0f}"),
        "loss": _number(metrics.get("actor/loss"), "{:.4f}"),
        "tokens": _number(metrics.get("response_length/mean"), "{:.0f}"),
        "s/step": _number(record.timing.get("timing_s/step"), "{:.1f}"),
    }


def evaluation_line(record: Record) -> str:
    """All averages of an evaluation but the bootstrap."""
    parts = [
        f"{name.split('/', 2)[2].replace('/', ' ')} {value:.3f}"
        for name, value in record.metrics.items()
        if not name.endswith("bootstrap")
    ]
    seconds = record.timing.get("timing_s/evaluation", 0.0)
    return "  ".join([f"evaluation after {record.step} updates", *parts, f"({seconds:.1f} s)"])


def summary_table(run: Path) -> Table:
    """Held-out results before and after, and the playbook's size, from the run's journals."""
    rows = journal.read(run / journal.METRICS)
    evaluations = [row for row in rows if row["kind"] == "evaluation"]
    updates = [row for row in rows if row["kind"] == "update"]
    first, last = evaluations[0], evaluations[-1]
    table = Table(
        "held out", f"after {first['step']} updates", f"after {last['step']}", box=None, pad_edge=False
    )
    for name in (name for name in last if name.startswith("val/") and not name.endswith("bootstrap")):
        table.add_row(name.removeprefix("val/"), _number(first.get(name), "{:.3f}"), f"{last[name]:.3f}")
    if (entries := _last(updates, "playbook/total_bullets")) is not None:
        table.add_row("playbook entries", "0", f"{entries:.0f}")
    return table


def metrics_table(metrics: Mapping[str, float]) -> Table:
    """Names and values."""
    table = Table("metric", "value", box=None, pad_edge=False)
    for name, value in metrics.items():
        table.add_row(name, f"{value:.4f}")
    return table


def _last(rows: Sequence[Mapping[str, Any]], name: str) -> Any:
    return rows[-1].get(name) if rows else None


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
