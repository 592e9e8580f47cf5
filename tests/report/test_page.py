"""The page: its numbers are those of the journals, and nothing in it is obeyed."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

import toy
from resd.records import ResdError
from resd.report import write_report
from resd.report.page import MOST_PLAYBOOKS
from support import save_tiny

MakeRun = Callable[..., Path]


class Page(HTMLParser):
    """Cells of table rows by section id, all tags, and the visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.section = ""
        self.rows: dict[str, list[list[str]]] = {}
        self.metrics: dict[str, list[str]] = {}
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self._cell = False
        self.feed(html)
        assert not self.open, "all elements are closed"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.tags.append(tag)
        if tag != "meta":
            self.open.append(tag)
        if tag == "section":
            self.section = str(given["id"])
        if tag == "tr":
            self.rows.setdefault(self.section, []).append([])
            if "data-metric" in given:
                self.metrics[str(given["data-metric"])] = self.rows[self.section][-1]
        if tag in ("td", "th"):
            self.rows[self.section][-1].append("")
            self._cell = True

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Of SVG, such as <line/>."""
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell:
            self.rows[self.section][-1][-1] += data.strip()


def report(tmp_path: Path, *runs: Path) -> tuple[Page, str]:
    output = tmp_path / "pages" / "report.html"
    write_report(runs, output)
    html = output.read_text()
    return Page(html), html


def test_held_out_numbers_are_those_of_the_journal(make_run: MakeRun, tmp_path: Path) -> None:
    page, _ = report(tmp_path, make_run())
    head = page.rows["held-out"][0]
    assert head[3:] == ["before (update 0)", "best (update 2)", "after (update 4)", "change"]
    assert page.metrics["val/toy/reward/mean@2"][3:] == ["0.100", "0.500", "0.300", "+0.200"]
    assert page.metrics["val/toy/reward/best@2"][3:] == ["0.225", "0.625", "0.425", "+0.200"]
    assert page.metrics["val/toy/test_cases/mean@2"][3:] == ["0.300", "0.500", "0.400", "+0.100"]
    assert page.metrics["val/toy/response_length/mean"][3:] == ["61.5", "61.5", "61.5", "0.0"]
    assert not any("bootstrap" in key for key in page.metrics)


def test_solved_is_told_where_the_reward_is_a_share(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if row["kind"] == "evaluation":
            row["val/toy/solved/mean@2"] = row["val/toy/reward/mean@2"] / 2
            row["val/toy/solved/best@2"] = row["val/toy/reward/best@2"]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page, _ = report(tmp_path, folder)
    assert page.metrics["val/toy/solved/mean@2"][3:] == ["0.050", "0.250", "0.150", "+0.100"]
    assert "val/toy/solved/best@2" not in page.metrics


def test_a_real_run(tmp_path: Path) -> None:
    stream = toy.build_toy(toy.toy_config(save_tiny(tmp_path / "model"), tmp_path / "run"))
    stream.train()
    page, html = report(tmp_path, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    first, last = (row for row in (rows[0], rows[-1]))
    for key, cells in page.metrics.items():
        form = "{:.1f}" if "response_length" in key else "{:.3f}"
        assert (cells[3], cells[5]) == (form.format(first[key]), form.format(last[key]))
    shown = {key for key in last if key.startswith("val/") and "boot" not in key and "solved" not in key}
    assert page.metrics.keys() == shown
    assert html.count("<figure>") == 11
    assert "Wrong letter." in page.text
    entries = [row for row in rows if row["kind"] == "update"][-1]["playbook/total_bullets"]
    assert len(page.rows["playbook"]) == entries + 1


def test_everything_is_escaped(make_run: MakeRun, tmp_path: Path) -> None:
    page, html = report(tmp_path, make_run("<script>run"), make_run("b&b", algorithm="sdpo"))
    assert "script" not in page.tags
    assert not re.search("<script", html, re.IGNORECASE)
    assert "{{ 7 * 7 }}" in page.text
    assert page.text.count("<script>alert('x')") > 5
    assert not re.search(r"""(src|href)=["'](?!#)""", html)
    assert "http://" not in html
    assert "https://" not in html


def test_several_runs_share_the_curves(make_run: MakeRun, tmp_path: Path) -> None:
    page, html = report(
        tmp_path, make_run("one"), make_run("two", algorithm="grpo", steps=2, evaluated=(0, 2))
    )
    head, one, two = page.rows[""]
    assert (one[0], two[0]) == ("one", "two")
    column = head.index("success mean@2")
    assert (one[column], two[column]) == ("0.100 → 0.300", "0.100 → 0.500")
    assert (one[head.index("algorithm")], two[head.index("algorithm")]) == ("RESD", "GRPO")
    assert "model" not in head  # the same in both
    chart = next(part for part in html.split("<figure>") if "<figcaption>Loss" in part)
    assert chart.count("<polyline") == 2
    playbook = next(part for part in html.split("<figure>") if "<figcaption>Playbook size" in part)
    assert playbook.count("<polyline") == 1


def test_runs_are_told_apart_by_any_setting(make_run: MakeRun, tmp_path: Path) -> None:
    folders = [make_run("one"), make_run("two")]
    for folder, rate in zip(folders, ("1.0e-5", "1.0e-6"), strict=True):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["optimizer"] = {"learning_rate": float(rate)}
        (folder / "config.yaml").write_text(yaml.safe_dump({**config, "output": folder.name}))
    page, _ = report(tmp_path, *folders)
    head, one, two = page.rows[""]
    column = head.index("other settings")
    assert (one[column], two[column]) == ("optimizer.learning_rate 1e-05", "optimizer.learning_rate 1e-06")


def test_many_runs_get_a_chart_for_every_curve(make_run: MakeRun, tmp_path: Path) -> None:
    _, html = report(tmp_path, *(make_run(name) for name in "abc"))
    charts = [part for part in html.split("<figure>") if "<figcaption>Training success" in part]
    assert [chart.count("<polyline") for chart in charts] == [3, 3]
    assert "Held-out success (reward): toy, best@2" in html


@pytest.mark.parametrize("algorithm", ["resd", "grpo"])
@pytest.mark.parametrize(("steps", "evaluated"), [(0, ()), (0, (0,)), (1, ()), (1, (0,)), (3, (0, 2))])
def test_partial_runs(
    make_run: MakeRun, tmp_path: Path, algorithm: str, steps: int, evaluated: tuple[int, ...]
) -> None:
    page, html = report(tmp_path, make_run(steps=steps, evaluated=evaluated, algorithm=algorithm))
    assert ("No evaluation yet." in page.text) == (not evaluated)
    assert ('id="rounds"' in html) == (steps > 0)
    assert ('id="playbook"' in html) == (steps > 0 and algorithm == "resd")
    assert "nan" not in html.lower().replace("nan or infinite", "")


def test_without_rollouts_and_timing(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    for path in (*(folder / "rollouts").iterdir(), folder / "timing.jsonl"):
        path.unlink()
    _, html = report(tmp_path, folder)
    assert 'id="rounds"' not in html
    assert "Seconds per update" not in html


def test_alarms(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows[2] |= {"actor/grad_norm": None, "actor/skipped": 1.0}
    rows[4] |= {"actor/trained_fraction": 0.0, "actor/skipped": 1.0}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page, _ = report(tmp_path, folder)
    alarms = {row[0]: row[1] for row in page.rows["alarms"]}
    assert alarms["reflections rejected"] == "▲ 1 of 20, first in update 2"
    assert alarms["gradient not finite"] == "▲ 1 of 4, first in update 2"
    assert alarms["nothing to learn from"] == "▲ 1 of 4, first in update 3"
    assert alarms["teacher equals student"] == "0 of 4"
    assert alarms["metrics not finite"] == "▲ 1"
    assert "curations rejected" not in alarms  # not in this log


def test_one_playbook_per_problem(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    count = MOST_PLAYBOOKS + 2
    entry = {"op": "add", "id": "misc-00001", "section": "others"}
    rows = [{"playbook": f"p{i}", **entry, "content": f"About {i}"} for i in range(count)]
    (folder / "playbook.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page, html = report(tmp_path, folder)
    assert f"The first {MOST_PLAYBOOKS} of {count} playbooks" in page.text
    assert f"About {MOST_PLAYBOOKS - 1}" in page.text
    assert f"About {MOST_PLAYBOOKS}" not in page.text
    assert "Judgements" not in html


def test_an_output_that_cannot_be_written(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResdError, match="cannot be written"):
        write_report([make_run()], tmp_path / "file/report.html")


def test_torch_is_not_imported(make_run: MakeRun, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from resd.report import write_report\n"
        "print([m for m in ('jinja2', 'yaml', 'torch') if m in sys.modules])\n"
        "write_report([Path(sys.argv[1])], Path(sys.argv[2]))\n"
        "print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])\n"
    )
    words = [sys.executable, "-c", code, str(make_run()), str(tmp_path / "page.html")]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "[]\n[]\n"
