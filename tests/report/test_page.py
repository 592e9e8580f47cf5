"""The page: its numbers are those of the journals, and nothing in it is obeyed."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

import toy
from resd.records import ResdError
from resd.report import write_report
from resd.report.life import MOST_PLAYBOOKS
from support import save_tiny

from .conftest import HOSTILE, rollouts, write_lines
from .test_seeds import change

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
        if tag not in ("meta", "input", "br"):
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
    assert head[1:] == ["before (update 0)", "best (update 2)", "after (update 4)", "change"]
    assert page.metrics["val/toy/reward/mean@2"][1:] == ["0.100", "0.500", "0.300", "+0.200"]
    assert page.metrics["val/toy/reward/best@2"][1:] == ["0.225", "0.625", "0.425", "+0.200"]
    assert page.metrics["val/toy/test_cases/mean@2"][1:] == ["0.300", "0.500", "0.400", "+0.100"]
    assert page.metrics["val/toy/response_length/mean"][1:] == ["61.5", "61.5", "61.5", "0.0"]
    assert not any("bootstrap" in key for key in page.metrics)


def test_the_header_counts_in_words_of_one_meaning(make_run: MakeRun, tmp_path: Path) -> None:
    _, html = report(tmp_path, make_run())
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", html))
    assert (facts["batches"], facts["tries per problem"], facts["seed"]) == (
        "2, each of 2 problems",
        "1",
        "3",
    )


def test_solved_is_told_where_the_reward_is_a_share(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if row["kind"] == "evaluation":
            row["val/toy/solved/mean@2"] = row["val/toy/reward/mean@2"] / 2
            row["val/toy/solved/best@2"] = row["val/toy/reward/best@2"]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page, _ = report(tmp_path, folder)
    assert page.metrics["val/toy/solved/mean@2"][1:] == ["0.050", "0.250", "0.150", "+0.100"]
    assert "val/toy/solved/best@2" not in page.metrics


def test_a_real_run(tmp_path: Path) -> None:
    stream = toy.build_toy(toy.toy_config(save_tiny(tmp_path / "model"), tmp_path / "run"))
    stream.train()
    page, html = report(tmp_path, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    first, last = (row for row in (rows[0], rows[-1]))
    for key, cells in page.metrics.items():
        form = "{:.1f}" if "response_length" in key else "{:.3f}"
        means = [cell.partition("±")[0] for cell in cells]
        assert (means[1], means[3]) == (form.format(first[key]), form.format(last[key]))
    shown = {key for key in last if key.startswith("val/") and "boot" not in key and "solved" not in key}
    assert page.metrics.keys() == shown
    assert html.count("<figure") == 13
    assert "Wrong letter." in page.text
    updates = [row for row in rows if row["kind"] == "update"]
    assert html.count(", still there") == updates[-1]["playbook/total_bullets"]
    assert html.count('class="life"') == sum(row["playbook/added"] for row in updates)


def test_everything_is_escaped(make_run: MakeRun, tmp_path: Path) -> None:
    page, html = report(tmp_path, make_run("<script>run"), make_run("b&b", algorithm="sdpo"))
    assert "script" not in page.tags
    assert not re.search("<script", html, re.IGNORECASE)
    assert "{{ 7 * 7 }}" in page.text
    assert page.text.count("<script>alert('x')") > 5
    assert not re.search(r"""(src|href)=["'](?!#)""", html)
    assert "http://" not in html
    assert "https://" not in html


def figures(html: str, title: str) -> list[str]:
    return [part for part in html.split("<figure") if f"<figcaption>{title}" in part]


def test_several_runs_share_the_curves(make_run: MakeRun, tmp_path: Path) -> None:
    page, html = report(
        tmp_path, make_run("one"), make_run("two", algorithm="grpo", steps=2, evaluated=(0, 2))
    )
    head, _, one, two = page.rows["held-out"][:4]
    # No column of the seed, which is the same and told above.
    assert head[:5] == ["run", "update", "success mean@2", "success best@2", "tests passed mean@2"]
    assert (one[:2], one[3:5]) == (["one · resd", "4"], ["0.100", "0.300"])
    assert (two[:2], two[3:5]) == (["two · grpo", "2"], ["0.100", "0.500"])
    assert ["algorithm", "resd", "grpo"] in page.rows["differences"]
    assert not any(row[0] == "model" for row in page.rows["differences"])  # the same in both
    (loss,) = figures(html, "Loss")
    assert loss.count("<polyline") == 2
    (playbook,) = figures(html, "Playbook size")
    assert playbook.count("<polyline") == 1


@pytest.mark.parametrize("names", [["one"], ["one", "two"]])
def test_what_is_measured_is_told_once_and_not_folded(
    make_run: MakeRun, tmp_path: Path, names: list[str]
) -> None:
    _, html = report(tmp_path, *(make_run(name) for name in names))
    assert html.count("mean@k averages") == 1
    assert "mean@k averages" in re.sub(r"<details.*?</details>", "", html, flags=re.DOTALL)


def test_every_cell_of_a_comparison_names_itself_where_the_heads_have_no_room(
    make_run: MakeRun, tmp_path: Path
) -> None:
    _, html = report(tmp_path, make_run("one", seed=0), make_run("two", algorithm="grpo"))
    (row,) = re.findall(r'<tr class="group">(?:(?!</tr>).)*one · resd.*?</tr>', html, re.DOTALL)
    assert re.findall('data-name="(.*?)"', row) == [
        *("seed", "update", "success mean@2", "success best@2", "tests passed mean@2"),
        *("entries", "tokens", "training time"),
    ]


def test_seeds_of_one_configuration_are_one_curve_with_a_band(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(f"r{i}", seed=i, gain=0.1 * i) for i in range(3)]
    page, html = report(tmp_path, *runs, make_run("g", algorithm="grpo"))
    group, *members = page.rows["held-out"][2:6]
    assert group[:3] == ["RESD", "3 seeds", "4"]
    # 0.3, 0.4, 0.5: mean 0.4, standard deviation 0.1, and 0.1 / sqrt(3) = 0.0577.
    assert group[4:6] == ["0.100", "0.400± 0.058"]
    assert [row[:2] for row in members] == [[f"r{i} · resd", str(i)] for i in range(3)]
    assert [row[5] for row in members] == ["0.300", "0.400", "0.500"]
    (chart,) = figures(html, "Held-out success, mean@2")
    assert chart.count("<polygon") > 0
    assert "RESD, update 4: 0.4 ± 0.058" in chart
    (loss,) = figures(html, "Loss")
    assert loss.count("<polyline") == 2
    assert ["algorithm", "resd", "grpo"] in page.rows["differences"]
    assert not any(row[0] == "seed" for row in page.rows["differences"])


def test_losses_that_are_different_quantities(make_run: MakeRun, tmp_path: Path) -> None:
    folders = [make_run("one"), make_run("two")]
    change(folders[1], optimizer={"learning_rate": 1e-6})
    assert "a quantity of its own" not in report(tmp_path, *folders)[1]
    change(folders[1], algorithm="grpo")
    (loss,) = figures(report(tmp_path, *folders)[1], "Loss")
    assert "a quantity of its own" in loss.partition("</figure>")[0]


def test_runs_are_told_apart_by_any_setting(make_run: MakeRun, tmp_path: Path) -> None:
    folders = [make_run("one"), make_run("two")]
    for folder, rate in zip(folders, ("1.0e-5", "1.0e-6"), strict=True):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["optimizer"] = {"learning_rate": float(rate)}
        (folder / "config.yaml").write_text(yaml.safe_dump({**config, "output": folder.name}))
    page, _ = report(tmp_path, *folders)
    assert page.rows["differences"] == [
        ["what differs", "one · learning_rate 1e-05", "two · learning_rate 1e-06"],
        ["optimizer.learning_rate", "1e-05", "1e-06"],
    ]
    assert "learning_rate: 1.0e-06" in page.text


def test_curves_by_every_axis(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    _, html = report(tmp_path, folder)
    (chart,) = figures(html, "Training success")
    assert re.findall(r'"by by-(\w+)"', chart) == ["updates", "rollouts", "tokens", "time"]
    assert re.findall(r'id="axis-(\w+)"', html) == ["updates", "rollouts", "tokens", "time"]
    # Two attempts of 17 tokens in each update; 15 tokens of context in odd updates, 5 in even ones.
    for place in ("8 rollouts: 0.4", "176 generated tokens: 0.4", "24 seconds of training: 0.4"):
        assert f"solved, {place}<" in chart
    for path in (*(folder / "rollouts").iterdir(), folder / "timing.jsonl"):
        path.unlink()
    _, html = report(tmp_path, folder)
    assert 'name="axis"' not in html


def test_the_share_of_samples_solved(make_run: MakeRun, tmp_path: Path) -> None:
    _, html = report(tmp_path, make_run())
    (chart,) = (part for part in html.split("<figure") if "Problems by share solved, run" in part)
    # Of 4 problems at update 4: all of a, 1 of 4 samples of b, 2 of c, none of d.
    for name in ("none", "less than half", "half or more", "all"):
        assert f"{name}, update 4: 0.25<" in chart
    assert "none, update 0: 0.5<" in chart


def test_token_values(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    assert 'id="tokens"' not in report(tmp_path, folder)[1]
    row = {"key": f"q#0{HOSTILE}", "tokens": ["a", HOSTILE], "divergence": [0.0, 2.5], "text": "a"}
    write_lines(folder / "tokens/3.jsonl", [row, {**row, "key": "k", "advantage": [-1.0, 1.0]}])
    page, html = report(tmp_path, folder)
    assert "script" not in page.tags
    assert 'class="h10" title="divergence 2.5"' in html
    assert 'class="n10" title="advantage -1"' in html


def test_a_large_run_makes_a_page_of_bounded_size(make_run: MakeRun, tmp_path: Path) -> None:
    folders = [make_run(f"r{i}", steps=300, evaluated=(0,), seed=i % 2) for i in range(2)]
    folders.append(make_run("other", steps=300, evaluated=(0,), algorithm="sdpo"))
    text = "<&" * 100_000
    for folder in folders:
        for step in (1, 2, 150, 300):
            rows = [row | {"response": text} for row in rollouts(step)]
            write_lines(folder / f"rollouts/{step}.jsonl", rows)
            many = {"tokens": ["<"] * 5000, "divergence": [0.5] * 5000, "advantage": [0.5] * 5000}
            write_lines(folder / f"tokens/{step}.jsonl", [{"key": "k", **many}] * 4)
    page, html = report(tmp_path, *folders)
    assert len(html.encode()) < 3_000_000
    assert "characters left out" in page.text
    assert "the first 800 of 5000 tokens" in page.text
    assert "240 entries that were removed or hardly judged are not shown" in page.text


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


@pytest.mark.parametrize("name", ["metrics.jsonl", "timing.jsonl"])
def test_values_that_were_not_finite(make_run: MakeRun, tmp_path: Path, name: str) -> None:
    """Any number but those that say where a line belongs may be null."""
    folder = make_run()
    whole = (folder / name).read_text().splitlines()
    keys = {key for line in whole for key in json.loads(line)} - {"kind", "step", "batch", "round"}
    for key in [*sorted(keys), "all of them"]:
        rows = [json.loads(line) for line in whole]
        rows = [
            {k: None if k == key or (key not in keys and k in keys) else v for k, v in r.items()}
            for r in rows
        ]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        _, html = report(tmp_path, folder)
        assert not re.search(
            r"\b(nan|inf|None)\b", re.sub(r"NaN or infinite|<style>.*?</style>", "", html, flags=re.S)
        )


def test_without_rollouts_and_timing(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    for path in (*(folder / "rollouts").iterdir(), folder / "timing.jsonl"):
        path.unlink()
    _, html = report(tmp_path, folder)
    assert 'id="rounds"' not in html
    assert 'id="costs"' not in html


def test_alarms(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows[2] |= {"actor/grad_norm": None, "actor/skipped": 1.0}
    rows[4] |= {"actor/trained_fraction": 0.0, "actor/skipped": 1.0}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page, html = report(tmp_path, folder)
    # The first cell is a name, and below it what it means.
    names = re.findall(r"<tr><td>(.*?)<small>", html)
    alarms = dict(zip(names, (row[1] for row in page.rows["alarms"] if row[0] != "what"), strict=True))
    assert alarms["reflections rejected"] == "▲ 1 of 20, first in update 2"
    assert alarms["gradient not finite"] == "▲ 1 of 4, first in update 2"
    assert alarms["nothing to learn from"] == "▲ 1 of 4, first in update 3"
    assert alarms["teacher equals student"] == "0 of 4"
    assert alarms["metrics not finite"] == "▲ 1"
    assert "curations rejected" not in alarms  # not in this log
    shown = re.sub(r"<details.*?</details>", "", html.partition('id="alarms"')[2], flags=re.DOTALL)
    assert ["reflections rejected" in shown, "unknown tags" in shown] == [True, False]
    assert f"{len(alarms) - 4} other checks: nothing to report" in page.text


def test_no_alarm_is_one_line(make_run: MakeRun, tmp_path: Path) -> None:
    page, html = report(tmp_path, make_run(algorithm="grpo"))
    checks = len([row for row in page.rows["alarms"] if row[0] != "what"])
    assert f"{checks} checks: nothing to report" in page.text
    assert "does not do this" not in page.text
    assert "<table" not in re.sub(
        r"<details.*?</details>", "", html.partition('id="alarms"')[2], flags=re.DOTALL
    )
    page, _ = report(tmp_path, make_run("one"), make_run("two", algorithm="grpo"))
    assert ": a run that does not do this" in page.text


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


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.yaml", "rollouts/2.jsonl", "evaluations/4.jsonl"])
def test_what_cannot_be_read_is_left_out(make_run: MakeRun, tmp_path: Path, name: str) -> None:
    """Whether it is read at once, or by a chart."""
    whole, broken = make_run("whole"), make_run("broken")
    (broken / name).write_text("[\n")
    (fault,) = write_report([broken, whole], tmp_path / "report.html")
    assert str(broken / name) in fault
    html = unescape((tmp_path / "report.html").read_text())
    assert fault in html
    assert "4 of at most 8" in html
    (whole / name).write_text("[\n")
    with pytest.raises(ResdError, match=name):
        write_report([broken, whole], tmp_path / "report.html")
