"""The page, from runs: everything is chosen here, and laid out in page.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from resd import __version__
from resd.context.entries import SECTIONS
from resd.context.playbook import Playbook
from resd.report.chart import MOST_BOUNDARIES
from resd.report.curves import figures, shared_boundaries
from resd.report.results import alarms, comparison, results, shared_facts
from resd.report.rounds import choose_story
from resd.report.runs import Run

# Of one playbook per problem, only the first few are shown.
MOST_PLAYBOOKS = 5


@dataclass(frozen=True, slots=True)
class Shelf:
    """A run's playbooks: those that are shown, by problem id, and how many there are."""

    run: str
    shown: Mapping[str, Playbook]
    total: int


def render(runs: Sequence[Run]) -> str:
    """One HTML document. All text in it is escaped: what models wrote is shown, never obeyed."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(context(runs))


def context(runs: Sequence[Run]) -> dict[str, Any]:
    """What the template is given."""
    tables = {run.name: results(run) for run in runs}
    stories = {run.name: choose_story(run) for run in runs}
    return {
        "runs": [run.name for run in runs],
        "several": len(runs) > 1,
        "facts": shared_facts(runs),
        "comparison": comparison(runs),
        "results": {name: table for name, table in tables.items() if table},
        "figures": figures(runs),
        "batches_drawn": 0 < len(shared_boundaries(runs)) <= MOST_BOUNDARIES,
        "shelves": [shelf(run) for run in runs if run.has_playbook],
        "sections": {section.key: section.title.capitalize() for section in SECTIONS},
        "stories": {name: story for name, story in stories.items() if story},
        "alarms": alarms(runs),
        "updates": any(run.updates for run in runs),
        "version": __version__,
    }


def shelf(run: Run) -> Shelf:
    """The global playbook, or the first few of those per problem."""
    chosen = list(run.playbooks.items())[:MOST_PLAYBOOKS]
    return Shelf(run.name, dict(chosen), len(run.playbooks))
