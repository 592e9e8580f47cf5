"""The page, from runs: everything is chosen here, and laid out in templates/."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from resd import __version__
from resd.report import accuracy
from resd.report.alarms import alarms
from resd.report.chart import MOST_BOUNDARIES
from resd.report.comparison import compare
from resd.report.costs import costs
from resd.report.curves import (
    PLAYBOOK,
    TRAINING,
    by_update,
    group_legend,
    losses_differ,
    progress,
    shared_boundaries,
    without_zeros,
)
from resd.report.facts import compare_settings, shared_facts
from resd.report.heat import LEVELS, heats
from resd.report.labels import told_apart
from resd.report.life import shelf
from resd.report.reflections import MOST_EXAMPLES, examples
from resd.report.results import held_out, results
from resd.report.rounds import choose_story
from resd.report.runs import Run
from resd.report.samples import sizes
from resd.report.seeds import Group, group_runs
from resd.report.spending import axes, is_estimated

TEMPLATES = Path(__file__).parent / "templates"
# With more groups, texts are shown of the first run of each of so many.
MOST_TOLD = 6


def render(runs: Sequence[Run], *, live: bool = False, left_out: Sequence[str] = ()) -> str:
    """One HTML document. All text in it is escaped: what models wrote is shown, never obeyed.

    `left_out` says which other runs are not on it, and why. With `live` it has a script, which asks the
    server it came from for news; otherwise it has none.
    """
    script = (TEMPLATES / "watch.js").read_text(encoding="utf-8") if live else ""
    page = _environment().get_template("page.html")
    return page.render(**context(runs), left_out=left_out, script=script, policy=_policy(script))


def context(runs: Sequence[Run]) -> dict[str, Any]:
    """What the template is given."""
    runs = told_apart(runs)
    groups = group_runs(runs)
    told = [group.runs[0] for group in groups[:MOST_TOLD]]
    measured = axes(runs)
    return {
        "runs": [run.name for run in runs],
        "groups": groups,
        "several": len(runs) > 1,
        "seeds": any(len(group.runs) > 1 for group in groups),
        "told": len(told),
        "facts": shared_facts(runs),
        "updates": any(run.updates for run in runs),
        "version": __version__,
        **_numbers(runs, groups),
        **_curves(runs, groups),
        "axes": measured,
        "estimated": is_estimated(runs),
        "heats": heats(told),
        "heat_levels": LEVELS,
        "shelves": [shelf(run) for run in told if run.has_playbook],
        "stories": {run.name: story for run in told if (story := choose_story(run))},
        "examples": _examples(told),
    }


def _numbers(runs: Sequence[Run], groups: Sequence[Group]) -> dict[str, Any]:
    tables = {run.name: results(run) for run in runs}
    return {
        "comparison": compare(groups),
        "results": {name: table for name, table in tables.items() if table},
        "sizes": sizes(runs),
        "tasks": len({metric.source for run in runs for metric in held_out(run)}),
        "alarms": alarms(runs),
        "settings": compare_settings(groups),
    }


def _curves(runs: Sequence[Run], groups: Sequence[Group]) -> dict[str, Any]:
    measured = axes(runs)
    playbook, zeros = without_zeros(PLAYBOOK, groups)
    return {
        "progress": progress(groups, measured),
        "accuracy": accuracy.figures(groups, measured[0]),
        "accuracy_legend": accuracy.legend(),
        "training": by_update(TRAINING, groups, measured[0]),
        "losses_differ": losses_differ(groups),
        "playbook_curves": by_update(playbook, groups, measured[0]),
        "playbook_zeros": zeros,
        "group_legend": group_legend(groups),
        "costs": costs(groups, measured[0]),
        "batches_drawn": 0 < len(shared_boundaries(runs)) <= MOST_BOUNDARIES,
    }


def _examples(told: Sequence[Run]) -> dict[str, Any]:
    most = max(2, MOST_EXAMPLES // max(1, len(told) - 1))
    return {run.name: found for run in told if (found := examples(run, most))}


def _policy(script: str) -> str:
    """What the browser may load: nothing but the styles in the page, and the script that is ours."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    if not script:
        return policy
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"{policy}; script-src 'sha256-{digest}'; connect-src 'self'"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
