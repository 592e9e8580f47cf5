"""Console output of a run: a live table on a terminal, one line per update in a log."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from resd.config import RunConfig
from resd.training import journal
from resd.training.plan import Plan
from resd.training.sinks import Record, Sink

SHOWN_UPDATES = 8
# Fixed widths of columns that would otherwise grow during a run and shift their neighbours.
WIDTHS = {"update": 7, "playbook": 3, "tokens": 4, "s/step": 5, "left": 6}
# Columns hidden on a narrow terminal, first to last.
DISPENSABLE = ("tokens", "loss", "batch", "s/step", "tests")
VARIABLES = {
    "reward": "reward",
    "solved": "solved",
    "test_cases": "tests passed",
    "response_length": "response tokens",
}


def console_sink(console: Console, updates: int) -> Sink:
    """The sink suited to the output of `console`. `updates` is their maximum number."""
    return LiveTable(console, updates) if console.is_terminal else Lines(console, updates)


class Lines:
    """One line per record, aligned so that a log can be read down its columns."""

    def __init__(self, console: Console, updates: int) -> None:
        self.console, self.updates = console, updates

    def write(self, record: Record) -> None:
        if record.kind == "evaluation":
            line = evaluation_line(record)
        else:
            cells = update_cells(record, self.updates).items()
            line = "  ".join(f"{name} {value:>{WIDTHS.get(name, 0)}}" for name, value in cells if value)
        self.console.print(line, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Nothing is buffered."""


class LiveTable:
    """The last few updates in a table fixed at the bottom; evaluations scroll by above it."""

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
        table = make_table()
        shown = columns(self.rows[-1], self.live.console.width)
        for name in shown:
            table.add_column(name, justify="right", min_width=WIDTHS.get(name), no_wrap=True)
        for row in self.rows:
            table.add_row(*(row[name] for name in shown))
        self.live.update(table, refresh=True)

    def close(self) -> None:
        self.live.stop()


def columns(row: Mapping[str, str], width: int) -> list[str]:
    """The names of the cells to show: empty ones are hidden, and more on a narrow terminal."""
    shown = {
        name: max(len(name), len(value), WIDTHS.get(name, 0)) + 2 for name, value in row.items() if value
    }
    for name in DISPENSABLE:
        if sum(shown.values()) > width:
            shown.pop(name, None)
    return list(shown)


def make_table() -> Table:
    """A table without borders, with dim headings."""
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")


def opening_line(config: RunConfig, plan: Plan) -> str:
    """What a run is about to do, printed immediately, since the first result may take a minute."""
    return (
        f"{config.algorithm.upper()} of {config.model} on {config.environment.name}: {plan.updates} "
        f"update{'s' * (plan.updates != 1)} "
        f"of {config.stream.batch_size} problems, {plan.evaluation_samples} samples held out"
    )


def adapters_line(left_out: int, parameters: int) -> str:
    """A note on models with experts, where most parameters get no adapters."""
    return (
        f"lora: {left_out / 1e6:,.4g} of {parameters / 1e6:,.4g} million parameters, experts and MLPs "
        "beside them, get no adapters and stay as they are"
    )


def update_cells(record: Record, updates: int) -> dict[str, str]:
    """The main metrics, by heading. A metric that the algorithm does not have is "".

    `left` assumes that every remaining update takes as long as this one, and evaluations no time.
    """
    metrics = record.metrics
    seconds = record.timing.get("timing_s/step")
    return {
        "update": f"{record.step}/{updates}",
        "batch": f"{(record.batch or 0) + 1}.{(record.round or 0) + 1}",
        "switched": "yes" if metrics.get("training/switched") else "",
        "solved": _number(metrics.get("train/solved/mean"), "{:.3f}"),
        "tests": _number(metrics.get("train/test_cases/mean"), "{:.3f}"),
        "playbook": _number(metrics.get("playbook/total_bullets"), "{:.0f}"),
        "loss": _number(metrics.get("actor/loss"), "{:.4f}"),
        "tokens": _number(metrics.get("response_length/mean"), "{:.0f}"),
        "s/step": _number(seconds, "{:.1f}"),
        "left": "" if seconds is None else _clock(seconds * (updates - record.step)),
    }


def evaluation_line(record: Record) -> str:
    """The means, and the best reward, within 80 columns."""
    parts = []
    for name, value in without_repeats(record.metrics).items():
        *_, variable, statistic = name.split("/")
        if variable == "response_length":
            parts.append(f"tokens {value:.0f}")
        elif statistic.startswith("mean@"):
            parts.append(f"{'tests' if variable == 'test_cases' else variable} {value:.3f}")
        elif variable == "reward" and not statistic.endswith("bootstrap"):
            parts.append(f"{statistic} {value:.3f}")
    seconds = record.timing.get("timing_s/evaluation", 0.0)
    return "  ".join([f"held out after {record.step}", *parts, f"({seconds:.1f} s)"])


def summary_table(run: Path) -> Table:
    """Held-out results before and after, and the playbook's size, from the run's journals."""
    rows = journal.read(run / journal.METRICS)
    evaluations = [row for row in rows if row["kind"] == "evaluation"]
    updates = [row for row in rows if row["kind"] == "update"]
    first, last = evaluations[0], evaluations[-1]
    table = make_table()
    table.add_column("held out")
    for heading in ("before", f"after {last['step']} updates", "change"):
        table.add_column(heading, justify="right")
    for name in without_repeats({k: v for k, v in last.items() if k.startswith("val/")}, first):
        if name.endswith("bootstrap") or name not in first:
            continue
        before, after = first[name], last[name]
        form = _form(name)
        table.add_row(spoken(name), f"{before:{form}}", f"{after:{form}}", f"{after - before:+{form}}")
    if (entries := _last(updates, "playbook/total_bullets")) is not None:
        table.add_row("playbook entries", "0", f"{entries:.0f}", f"{entries:+.0f}")
    return table


def metrics_table(metrics: Mapping[str, float]) -> Table:
    """Metrics with readable names, and their values."""
    table = make_table()
    table.add_column("held out")
    table.add_column("value", justify="right")
    for name, value in without_repeats(metrics).items():
        table.add_row(spoken(name), f"{value:{_form(name)}}")
    return table


def without_repeats(metrics: Mapping[str, float], *others: Mapping[str, float]) -> dict[str, float]:
    """The metrics without `solved` if it equals the reward (all or nothing), here and in the `others`."""
    return {
        name: value
        for name, value in metrics.items()
        if "/solved/" not in name
        or any(row.get(name) != row.get(name.replace("/solved/", "/reward/")) for row in (metrics, *others))
    }


def spoken(name: str) -> str:
    """val/chess/reward/mean@4 becomes "chess: reward, mean of 4"."""
    environment, variable, statistic = name.removeprefix("val/").rsplit("/", 2)
    kind, _, count = statistic.removesuffix("_bootstrap").partition("@")
    words = f"{kind} of {count}" if count else kind
    expected = ", expected" if statistic.endswith("_bootstrap") else ""
    return f"{environment}: {VARIABLES.get(variable, variable)}, {words}{expected}"


def _form(name: str) -> str:
    """The number format: lengths are in tokens, all else are fractions."""
    return ".1f" if "/response_length/" in name else ".3f"


def _clock(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d}"


def _last(rows: Sequence[Mapping[str, Any]], name: str) -> Any:
    return rows[-1].get(name) if rows else None


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
