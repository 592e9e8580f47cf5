"""Tables, figures and the page, from results whose numbers are known."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import REPOSITORY
from resd.experiments import page
from resd.experiments.catalog import EXPERIMENTS, find
from resd.experiments.definition import Experiment
from resd.experiments.figures import colors_of, figures
from resd.experiments.results import Results, described, load, save
from resd.experiments.tables import NOTHING, tables
from resd.records import ResdError

MADE = {"command": "c", "commit": "x", "machine": "m", "date": "2026-01-02", "versions": {}}


def run(variant: str, seed: int, *success: float, **more: Any) -> dict[str, Any]:
    """A run of 8 updates, evaluated after every 4: 10 rollouts, 100 + 20 tokens and 2 seconds each."""
    series = {"rollouts": [10] * 8, "tokens": [100] * 8, "reflect_tokens": [20] * 8, "seconds": [2.0] * 8}
    evaluations = {"update": [0, 4, 8], "reward/mean@4": list(success)}
    return {"variant": variant, "seed": seed, "made": 0, "evaluations": evaluations, "series": series, **more}


def results(experiment: Experiment, *runs: dict[str, Any]) -> Results:
    return Results(experiment.name, [MADE], {v.name: described(v) for v in experiment.variants}, runs)


def rows(table: str) -> list[list[str]]:
    lines = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()]
    return [line for line in lines if set(line) != {"---"}]


PLAIN = replace(find("algorithms"), variants=tuple(replace(v, group="") for v in find("algorithms").variants))
ALGORITHMS = results(
    PLAIN,
    run("resd", 0, 0.0, 0.4, 0.8),
    run("resd", 1, 0.0, 0.6, 0.9),
    run("sdpo", 1, 0.0, 0.2, 0.2),
    run("sdpo", 0, 0.0, 0.0, 0.0),
    run("grpo", 0, 0.0, 0.8, 0.8),
    run("grpo", 1, 0.0, 0.2, 0.4),
)


SETTINGS = results(
    find("settings"),
    run("resd", 0, 0.0, 0.4, 0.8),
    run("resd", 1, 0.0, 0.4, 0.8),
    run("alpha_0", 0, 0.0, 0.1, 0.2),
    run("alpha_0", 1, 0.0, 0.1, 0.4),
    run("max_entries_4", 0, 0.0, 0.1, 0.9),
    run("max_entries_4", 1, 0.0, 0.1, 0.9),
)


def test_the_table_of_results() -> None:
    (_, main), (_, costs) = tables(PLAIN, ALGORITHMS)
    headings, *lines = rows(main)
    assert headings[-2:] == ["difference from resd", "beyond two standard errors"]
    by_name = {line[0]: line[1:] for line in lines}
    # Areas of resd: (0.4 + 1.2) / 4 and (0.6 + 1.5) / 4; half way at 5 and at 4 x 5/6 updates.
    assert by_name["resd"] == ["2", "85.0 ± 5.0", "46.2 ± 6.2", "4.2 ± 0.8", NOTHING, NOTHING]
    assert by_name["sdpo, attempt"] == ["2", "10.0 ± 10.0", "7.5 ± 7.5", "not reached", "-75.0 ± 5.0", "yes"]
    # Differences 0 and -50: a standard error of 25.
    assert by_name["grpo, n=8"] == ["2", "60.0 ± 20.0", "40.0 ± 20.0", "2.5 (1 of 2)", "-25.0 ± 25.0", "no"]
    headings, *lines = rows(costs)
    by_name = {line[0]: line[1:] for line in lines}
    assert headings[1] == "rollouts to 50 %"
    assert by_name["resd"] == ["42 ± 8", "0 ± 0", "1 (1 of 2)", "8 ± 2", "1 ± 0", "16 ± 0"]
    assert headings[2:5] == ["thousand tokens to 50 %", "to 90 %", "seconds to 50 %"], "nobody came to 95 %"
    assert by_name["grpo, n=8"][0] == "25 (1 of 2)"


def test_one_seed_has_no_error_and_no_verdict() -> None:
    found = results(PLAIN, run("resd", 0, 0.0, 0.4, 0.8), run("sdpo", 0, 0.0, 0.0, 0.1))
    _, main = tables(PLAIN, found)[0]
    (line,) = [line for line in rows(main) if line[0] == "sdpo, attempt"]
    assert line[2] == "10.0"
    assert line[-2:] == ["-70.0", "one seed"]


def test_rows_of_all_groups_are_compared_with_one_reference() -> None:
    lessons = {"updates": 8, "added": 3, "left": 1, "lives": [2, 3, 7], "updates_shown": 4, "shown": 9}
    none_left = {**lessons, "added": 0, "left": 0, "lives": []}
    poison = results(
        find("poison"),
        run("clean_votes", 0, 0.0, 0.4, 0.9),
        run("reversed_votes", 0, 0.0, 0.1, 0.2, wrong_lessons=lessons),
        run("reversed_measured", 0, 0.0, 0.4, 0.8, wrong_lessons=none_left),
    )
    (group, table), (heading, wrong) = tables(find("poison"), poison)
    assert heading == "Wrong lessons"
    assert group == "10 % wrong lessons, and all of the tags turned round"
    assert [row[0] for row in rows(table)] == ["variant", "votes, no faults", "votes", "measured"]
    assert [row[-2] for row in rows(table)] == [
        "difference from votes, no faults",
        NOTHING,
        "-70.0",
        "-10.0",
    ]
    lines = {(line[0], line[1]): line[2:] for line in rows(wrong)}
    # The last life is that of the one that is left.
    assert lines[group, "votes"] == ["3.0", "1.0", "2.5", "50"]
    assert lines[group, "measured"][2] == NOTHING


def test_the_reference_leads_groups_that_it_is_not_in() -> None:
    settings = results(
        find("settings"),
        run("resd", 0, 0.0, 0.4, 0.8),
        run("alpha_0", 0, 0.0, 0.4, 0.7),
        run("update_rate_0", 0, 0.0, 0.4, 0.6),
    )
    found = tables(find("settings"), settings)
    assert [(name, [line[0] for line in rows(table)[1:]]) for name, table in found] == [
        ("Divergence", ["resd", "alpha 0"]),
        ("Teacher", ["resd", "update_rate 0"]),
    ]


def test_skills_are_rows() -> None:
    skills = {"curator/exact": 0.99, "tagger/tags_right": 0.5}
    found = results(
        find("forgetting"),
        run("before", 0, 0.0, 0.0, 0.0, skills=skills),
        run("resd", 0, 0.0, 0.4, 0.8, skills=skills),
    )
    lines = {line[0]: line[1:] for line in rows(tables(find("forgetting"), found)[-1][1])}
    assert lines["variant"] == ["before", "resd"]
    assert lines["curations that add what is missing, word for word"] == ["99.0", "99.0"]


def discovery(variant: str, seed: int, *firsts: int | None) -> dict[str, Any]:
    took = {
        f"p{i}": {"first": first, "attempts": first or 512, "tokens": 1000, "seconds": 1.0}
        for i, first in enumerate(firsts)
    }
    return {"variant": variant, "seed": seed, "made": 0, "discovery": took}


def test_hard_problems() -> None:
    experiment = find("test_time")
    counts = {"variant": "count", "seed": 1000, "made": 0, "counts": {"p0": 3}, "samples": 8}
    found = results(
        experiment,
        counts,
        discovery("best_of", 0, 512, None),
        discovery("best_of", 1, None, 200),
        discovery("sdpo", 0, 4, 128),
        discovery("sdpo", 1, 33, 140),
    )
    (_, table), (heading, pace) = tables(experiment, found)
    lines = {line[0]: line[1:] for line in rows(table)}
    assert lines["variant"][1:4] == ["solved within 32, %", "solved within 128, %", "solved within 512, %"]
    assert lines["best of k"][:4] == ["2", "0 ± 0", "0 ± 0", "50 ± 0"]
    # Mean attempts: 512 and 356 against 66 and 86.5.
    assert lines["self-distillation, sdpo"][1:4] == ["25 ± 25", "75 ± 25", "100 ± 0"]
    assert lines["self-distillation, sdpo"][-3:] == ["76 ± 10", "-358 ± 88", "yes"]
    assert heading == "Attempts until 50% are solved, as by best of k in the end"
    paces = {line[0]: line[1:] for line in rows(pace)}
    assert paces["best of k"] == ["512", "1.00"]
    assert paces["self-distillation, sdpo"] == ["33", "0.06"]
    ((_, _, svg),) = figures(experiment, found)
    assert len(ET.fromstring(svg).findall("{http://www.w3.org/2000/svg}polyline")) == 2


def test_figures_stand_for_themselves() -> None:
    """Well-formed, with every class in their own style, nothing fetched, for light and dark pages."""
    found = list(figures(PLAIN, ALGORITHMS))
    assert [name for name, _, _ in found] == [
        f"algorithms{end}" for end in ("", "-rollouts", "-tokens", "-seconds")
    ]
    for _, _, svg in found:
        tree = ET.fromstring(svg)
        style = tree.findtext("{http://www.w3.org/2000/svg}style") or ""
        used = {name for element in tree.iter() for name in element.get("class", "").split()}
        assert used - {"chart", "unit", "tick", "batch"} <= set(re.findall(r"\.([\w-]+)", style))
        assert "prefers-color-scheme: dark" in style
        assert "href" not in svg
        assert svg.count("http") == 1


def test_a_forest_shows_each_difference_with_two_standard_errors() -> None:
    (_, _, svg) = next(iter(figures(find("settings"), SETTINGS)))
    tree = ET.fromstring(svg)
    tips = [e.text for e in tree.iter() if e.tag.endswith("title")]
    assert tips == ["alpha 0: -50.0 ± 10.0", "max_entries 4: +10.0 ± 0.0"]
    zero, *_ = (float(e.get("x1") or 0) for e in tree.iter() if e.get("class") == "zero")
    whiskers = (e for e in tree.iter() if "whisker" in e.get("class", ""))
    whisker, _ = ([float(e.get(end) or 0) for end in ("x1", "x2")] for e in whiskers)
    dot, right = (float(e.get("cx") or 0) for e in tree.iter() if e.tag.endswith("circle"))
    assert whisker[0] < dot < whisker[1] < zero < right
    point = (zero - dot) / 50
    assert whisker[1] - whisker[0] == pytest.approx(4 * 10 * point, abs=0.3)


def test_a_variant_has_one_colour_in_all_figures() -> None:
    assert colors_of(["base", "sdpo", "resd", "grpo"]) == {"resd": 0, "grpo": 1, "base": 2, "sdpo": 3}
    assert colors_of(["grpo", "x"]) == {"grpo": 1, "x": 0}


def test_curves_are_means_over_seeds_by_what_was_spent() -> None:
    svg = next(svg for name, _, svg in figures(PLAIN, ALGORITHMS) if name.endswith("tokens"))
    tips = [e.text or "" for e in ET.fromstring(svg).iter() if e.tag.endswith("title")]
    assert "resd, 0.96 thousand generated tokens: 85 ± 5" in tips
    assert "resd, 0.48 thousand generated tokens: 50 ± 10" in tips


def test_results_survive_the_file(tmp_path: Path) -> None:
    data = {
        "experiment": "algorithms",
        "made": ALGORITHMS.made,
        "variants": ALGORITHMS.variants,
        "runs": list(ALGORITHMS.runs),
    }
    save(tmp_path / "r.json", data)
    assert load(tmp_path / "r.json") == Results(**data)
    for text, reason in (("{}", "has no 'experiment'"), ("[]", "not a JSON object"), ("{", "not valid JSON")):
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(ResdError, match=reason):
            load(tmp_path / "r.json")


def test_a_page_is_made_of_the_files_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "of-old.svg").write_text("<svg/>")
    data = {"experiment": "algorithms", "made": [MADE], "variants": ALGORITHMS.variants}
    save(folder / "algorithms.json", {**data, "runs": list(ALGORITHMS.runs)})
    (folder / "settings.md").write_text("Of what is not there.\n")
    page.write(tmp_path)
    text = (tmp_path / "experiments.md").read_text()
    assert "| resd | 2 | 85.0 ± 5.0 |" in text
    assert "Made with `c` at commit x on m, 2026-01-02." in text
    assert text.count("resd experiment run") == len(EXPERIMENTS) - 1 + 1, "the others, and the example"
    assert "| [Algorithms](#algorithms): What does" not in text, "nothing is said about it yet"
    linked = set(re.findall(r"\]\((experiments/\S+\.svg)\)", text))
    assert linked == {str(path.relative_to(tmp_path)) for path in folder.glob("*.svg")}
    (folder / "algorithms.md").write_text("They\ndiffer.\n\nBy much.\n")
    page.write(tmp_path)
    text = (tmp_path / "experiments.md").read_text()
    assert re.search(r"\| \[Algorithms\]\(#algorithms\): What does .* \| They differ\. \|", text)
    assert "They\ndiffer.\n\nBy much.\n\n|" in text
    save(folder / "again.json", {**data, "runs": []})
    with pytest.raises(ResdError, match="another file of experiment algorithms"):
        page.write(tmp_path)


def test_the_committed_page_is_the_one_that_is_generated() -> None:
    """If not: `resd experiment docs`."""
    docs = REPOSITORY / "docs"
    generated = page.page(docs)
    for name, text in generated.items():
        assert (docs / name).read_text(encoding="utf-8") == text, name
    kept = {path.relative_to(docs) for path in (docs / page.FOLDER).glob("*.svg")}
    assert kept == set(generated) - {Path(page.PAGE)}


@pytest.mark.parametrize("path", sorted((REPOSITORY / "docs/experiments").glob("*.json")), ids=str)
def test_what_is_kept_is_small_and_says_nothing_of_places(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text) < 300_000
    assert not re.search(r'"/|/home|/root|/tmp|/work', text)
