"""The history of a playbook: each entry's creation, tags, measured credit and removal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from markupsafe import Markup

from resd.context.entries import SECTIONS
from resd.context.journal import Change
from resd.report.runs import Run
from resd.report.scales import label, ticks

MOST_ENTRIES = 60  # shown of one playbook
MOST_PLAYBOOKS = 5  # of those per problem
MOST_MARKS = 60  # of judgements in a row: in longer lives neighbours are added up
WIDTH, HEIGHT = 1000, 30  # of a row's drawing, which is stretched to its place

_TITLES = {section.key: section.title.capitalize() for section in SECTIONS}


@dataclass
class Life:
    """One entry. Times are context updates, from 0; `died` is None for entries present at the end.

    `helpful` and `harmful` count tags by update. `credits` are in nats.
    """

    id: str
    section: str
    content: str
    born: int
    died: int | None = None
    cause: str = ""
    merged: int = 0
    helpful: dict[int, int] = field(default_factory=dict)
    harmful: dict[int, int] = field(default_factory=dict)
    credits: list[float] = field(default_factory=list)

    @property
    def helped(self) -> int:
        return sum(self.helpful.values())

    @property
    def harmed(self) -> int:
        return sum(self.harmful.values())

    @property
    def outweighed(self) -> bool:
        return 0 < self.harmed >= self.helped

    @property
    def credit(self) -> float | None:
        """Mean over its measurements; None if it was never measured."""
        return fmean(self.credits) if self.credits else None

    @property
    def title(self) -> str:
        return _TITLES.get(self.section, self.section)


@dataclass(frozen=True, slots=True)
class Row:
    life: Life
    drawing: Markup


@dataclass(frozen=True, slots=True)
class Timeline:
    """The entries of one playbook: survivors, then removed ones, each in order of creation."""

    name: str  # the problem, "" for the global playbook
    alive: Sequence[Row]
    ended: Sequence[Row]
    hidden: int
    updates: int
    marks: Sequence[tuple[float, str]]  # of the axis: place in percent, text
    credited: bool

    @property
    def count(self) -> int:
        return len(self.alive)


@dataclass(frozen=True, slots=True)
class Shelf:
    """A run's playbooks, or the first of them."""

    run: str
    timelines: Sequence[Timeline]
    total: int


def shelf(run: Run) -> Shelf:
    names = list(run.playbooks)
    shown = [timeline(run, name) for name in names[:MOST_PLAYBOOKS]]
    return Shelf(run.name, shown, len(names))


def timeline(run: Run, name: str = "") -> Timeline:
    found, updates = lives(change for change in run.changes if change.get("playbook", "") == name)
    chosen = _chosen(found)
    most = max((n for life in chosen for by in (life.helpful, life.harmful) for n in by.values()), default=1)
    rows = [Row(life, draw(life, updates, most)) for life in chosen]
    across = [mark for mark in ticks(0, max(updates, 1), 6, whole=True) if mark <= updates]
    return Timeline(
        name,
        [row for row in rows if row.life.died is None],
        [row for row in rows if row.life.died is not None],
        len(found) - len(chosen),
        updates,
        [(100 * mark / max(updates, 1), label(mark, 1)) for mark in across],
        any(life.credits for life in chosen),
    )


def lives(changes: Iterable[Change]) -> tuple[list[Life], int]:
    """All entries that ever existed, in order of creation, and the number of updates.

    Unknown changes are skipped: the journal was checked when the run was loaded.
    """
    found: dict[str, Life] = {}
    now = 0
    for change in changes:
        if change["op"] == "advance":
            now += 1
        elif change["op"] == "state":
            now = int(change["update_count"])
            found |= {entry["id"]: _carried(entry, now) for entry in change["entries"]}
        else:
            _apply(found, change, now)
    return list(found.values()), now


def draw(life: Life, updates: int, most: int) -> Markup:
    """Its bar from creation to removal, with helpful tags drawn upwards and harmful ones downwards.

    `most` tags in one update take the whole height.
    """
    scale = WIDTH / max(updates, 1)
    end = updates if life.died is None else life.died
    middle, reach = HEIGHT / 2, HEIGHT / 2 - 2
    bar = Markup('<rect class="alive" x="{}" y="{}" width="{}" height="4"/>').format(
        f"{life.born * scale:.0f}", f"{middle - 2:g}", f"{max(6.0, (end - life.born) * scale):.0f}"
    )
    up = _ticks(life.helpful, updates, -reach / most)
    down = _ticks(life.harmful, updates, reach / most)
    drawn = bar + Markup('<path class="helpful" d="{}"/><path class="harmful" d="{}"/>').format(up, down)
    if life.died is not None:
        drawn += Markup('<rect class="end-of-life" x="{}" y="3" width="5" height="{}"/>').format(
            f"{min(end * scale, WIDTH - 5):.0f}", HEIGHT - 6
        )
    return Markup(
        '<svg class="life" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(WIDTH, HEIGHT, _words(life), drawn)


def _ticks(counts: dict[int, int], updates: int, height: float) -> str:
    """A path of one bar per update, or per few updates."""
    size = -(-updates // MOST_MARKS) or 1
    sums: dict[int, int] = {}
    for update, count in counts.items():
        sums[update // size] = sums.get(update // size, 0) + count
    scale = WIDTH / max(updates, 1)
    width = min(0.6 * size * scale, 24.0)
    return "".join(
        f"M{(place + 0.5) * size * scale - width / 2:.0f} {HEIGHT / 2:g}"
        f"v{count * height / size:.1f}h{width:.0f}V{HEIGHT / 2:g}z"
        for place, count in sorted(sums.items())
    )


def _words(life: Life) -> str:
    end = "still there" if life.died is None else f"removed in update {life.died + 1} ({life.cause})"
    return f"added in update {life.born + 1}, {life.helped} times helpful, {life.harmed} times harmful, {end}"


def _chosen(found: Sequence[Life]) -> list[Life]:
    """All, or the survivors and those with the most tags."""
    if len(found) <= MOST_ENTRIES:
        return list(found)
    ranked = sorted(found, key=lambda life: (life.died is not None, -life.helped - life.harmed))
    kept = {life.id for life in ranked[:MOST_ENTRIES]}
    return [life for life in found if life.id in kept]


def _apply(found: dict[str, Life], change: Change, now: int) -> None:
    match change:
        case {"op": "add", "id": id_, "section": section, "content": content}:
            found[id_] = Life(id_, section, content, now)
        case {"op": "merge", "id": id_}:
            found[id_].merged += 1
        case {"op": "tag", "id": id_, "tag": "helpful" | "harmful" as tag}:
            counts = found[id_].helpful if tag == "helpful" else found[id_].harmful
            counts[now] = counts.get(now, 0) + 1
        case {"op": "credit", "id": id_, "values": values}:
            found[id_].credits += [float(value) for value in values]
        case {"op": "remove", "ids": ids}:
            for id_ in ids:
                found[id_].died, found[id_].cause = now, str(change.get("method", "removed"))
        case _:
            pass


def _carried(entry: dict[str, Any], now: int) -> Life:
    """An entry of a journal that begins with a state: its earlier history by update is not known."""
    life = Life(entry["id"], entry["section"], entry["content"], int(entry["created"]))
    for counts, key in ((life.helpful, "helpful"), (life.harmful, "harmful")):
        if entry[key]:
            counts[now] = int(entry[key])
    return life
