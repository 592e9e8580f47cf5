"""Lives of playbook entries, from a journal that is made by a real playbook."""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

from resd.context.playbook import Playbook
from resd.report.life import HEIGHT, MOST_ENTRIES, WIDTH, Life, draw, lives, shelf, timeline
from resd.report.runs import load_run

MakeRun = Callable[..., Path]


def played() -> Playbook:
    """Of 3 updates: the first entry is tagged and stays, the second is harmful and goes."""
    playbook = Playbook()
    playbook.add("others", "Stays")
    playbook.add("others", "Goes")
    playbook.advance()
    for tag in ("helpful", "helpful", "harmful"):
        playbook.tag("misc-00001", tag)
    playbook.tag("misc-00002", "harmful")
    playbook.add("formulas", "stays.")
    playbook.advance()
    playbook.concise("staleness", 1)
    playbook.add("others", "New")
    playbook.advance()
    return playbook


def test_birth_tags_and_end_are_those_of_the_playbook(tmp_path: Path) -> None:
    playbook = played()
    playbook.save(tmp_path / "playbook.jsonl")
    changes = [json.loads(line) for line in (tmp_path / "playbook.jsonl").read_text().splitlines()]
    found, updates = lives(changes)
    assert updates == playbook.update_count == 3
    alive = {life.id: life for life in found if life.died is None}
    for entry in playbook.entries:
        life = alive.pop(entry.id)
        assert (life.content, life.born) == (entry.content, entry.created)
        assert (life.helped, life.harmed) == (entry.helpful, entry.harmful)
    assert not alive
    (gone,) = (life for life in found if life.died is not None)
    assert (gone.born, gone.died, gone.cause) == (0, 2, "staleness")
    first = found[0]
    assert (first.merged, first.helpful, first.harmful) == (1, {1: 2}, {1: 1})


def test_a_journal_that_begins_with_a_state(tmp_path: Path) -> None:
    playbook = played()
    playbook.drain()
    playbook.tag("misc-00003", "helpful")
    playbook.save(tmp_path / "playbook.jsonl")
    changes = [json.loads(line) for line in (tmp_path / "playbook.jsonl").read_text().splitlines()]
    found, updates = lives(changes)
    assert updates == 3
    assert {life.id: (life.born, life.helped) for life in found} == {
        entry.id: (entry.created, entry.helpful) for entry in playbook.entries
    }


def test_credit_is_a_mean() -> None:
    add = {"op": "add", "id": "misc-00001", "section": "others", "content": "Lesson"}
    credit = {"op": "credit", "id": "misc-00001", "values": [1.0, -0.5]}
    ((life,), _) = lives([add, credit, {**credit, "values": [1.0]}, {"op": "advance"}])
    assert life.credit == 0.5
    ((life,), _) = lives([add])
    assert life.credit is None


def test_the_drawing() -> None:
    life = Life("misc-00001", "others", "Lesson", 1, 3, "staleness", helpful={1: 4, 2: 2}, harmful={2: 4})
    tree = ET.fromstring(draw(life, 4, 4))
    bar, end = tree.findall("rect")
    assert (float(bar.attrib["x"]), float(bar.attrib["width"])) == (WIDTH / 4, WIDTH / 2)
    assert float(end.attrib["x"]) == 3 * WIDTH / 4
    up, down = (path.attrib["d"] for path in tree.findall("path"))
    assert re.findall(r"v(-?[0-9.]+)", up) == [str(-(HEIGHT / 2 - 2)), str(-(HEIGHT / 2 - 2) / 2)]
    assert re.findall(r"v(-?[0-9.]+)", down) == [str(HEIGHT / 2 - 2)]
    assert "removed in update 4" in tree.attrib["aria-label"]


def test_of_many_entries_those_that_last_are_shown(make_run: MakeRun) -> None:
    folder = make_run()
    rows = [
        {"op": "add", "id": f"misc-{i:05d}", "section": "others", "content": f"Lesson {i}"}
        for i in range(1, MOST_ENTRIES + 31)
    ]
    rows += [{"op": "tag", "id": "misc-00002", "tag": "helpful"}]
    rows += [{"op": "remove", "ids": [f"misc-{i:05d}" for i in range(1, 41)], "method": "staleness"}]
    (folder / "playbook.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = timeline(load_run(folder, "run"))
    assert (len(found.alive), len(found.ended), found.hidden) == (MOST_ENTRIES - 10, 10, 30)
    assert "misc-00002" in [row.life.id for row in found.ended]


def test_playbooks_of_problems_are_apart(make_run: MakeRun) -> None:
    folder = make_run()
    entry = {"op": "add", "id": "misc-00001", "section": "others", "content": "Lesson"}
    rows = [{"playbook": f"p{i}", **entry} for i in range(7)]
    rows += [{"playbook": "p0", "op": "advance"}]
    (folder / "playbook.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = shelf(load_run(folder, "run"))
    assert found.total == 7
    assert [(t.name, t.count, t.updates) for t in found.timelines[:2]] == [("p0", 1, 1), ("p1", 1, 0)]
