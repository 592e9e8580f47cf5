"""Stacked bars of time and tokens."""

import re
from collections.abc import Callable
from pathlib import Path

from resd.report.costs import PHASES, costs
from resd.report.page import TEMPLATES, render
from resd.report.runs import load_runs
from resd.report.seeds import group_runs
from resd.report.spending import ROLES, axes

from .conftest import write_lines

MakeRun = Callable[..., Path]


def test_bars_have_other_colours_than_runs(make_run: MakeRun) -> None:
    runs = load_runs([make_run("a"), make_run("b", algorithm="sdpo")])
    seconds, tokens = costs(group_runs(runs), axes(runs)[0])
    assert set(re.findall(r'<rect class="(\w+?)\d"', str(seconds.figures[0].views[0].chart))) == {"phase"}
    assert set(re.findall(r'<rect class="(\w+?)\d"', str(tokens.figures[0].views[0].chart))) == {"role"}
    assert all('class="phase' in sample for sample, _ in seconds.legend)


def test_the_legend_is_of_what_can_be_seen(make_run: MakeRun) -> None:
    folder = make_run()
    row = {"kind": "update", "timing_s/generate": 90.0, "timing_s/grade": 0.5, "timing_s/step": 100.0}
    more = {"timing_s/context": 2.0, "timing_s/update": 0.0}
    write_lines(folder / "timing.jsonl", [{**row, **more, "step": 1}, {**row, "step": 2}])
    runs = load_runs([folder])
    seconds, _ = costs(group_runs(runs), axes(runs)[0])
    assert [label for _, label in seconds.legend] == ["generate", "context", "other"]
    assert seconds.unseen == ["grade"]


def test_the_style_sheet_has_a_colour_for_each(make_run: MakeRun) -> None:
    html = render(load_runs([make_run()]))
    for kind, count in (("phase", len(PHASES) + 1), ("role", len(ROLES))):
        assert re.findall(rf"\.{kind}(\d) {{ fill: var\(--{kind[0]}\d\); }}", html) == [
            str(i) for i in range(count)
        ]
    css = (TEMPLATES / "page.css").read_text()
    # In light, in dark and on paper; no two of a palette, and none that is a run's.
    for theme in re.findall(r":root \{(.*?)\}", css, re.DOTALL):
        colors = dict(re.findall(r"--([cpr]\d): (#\w+);", theme))
        assert len(colors) == len(set(colors.values())) == 8 + 6 + 4
