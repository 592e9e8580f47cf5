"""Wrong lessons' lives, against a playbook that is asked after every update."""

from pathlib import Path
from random import Random

import pytest

from resd.context import journal
from resd.context.credit import standing
from resd.context.playbook import Playbook
from resd.experiments.lives import is_wrong, wrong_lessons
from resd.experiments.summary import playbook_summary
from resd.lab.rules import RULES


def test_what_is_wrong() -> None:
    assert all(is_wrong(rule.wrong_lesson) for rule in RULES)
    assert is_wrong(f"  {RULES[0].wrong_lesson.upper()[:-1]} ")
    assert not any(is_wrong(lesson) for rule in RULES for lesson in rule.lessons)


def random_update(playbook: Playbook, random: Random) -> None:
    """Additions, tags, credit and pruning, as a context update makes them."""
    for _ in range(random.randrange(4)):
        rule = random.choice(RULES)
        playbook.add(rule.section, random.choice([rule.wrong_lesson, *rule.lessons]))
    for entry in playbook.entries:
        playbook.tag(entry.id, random.choice(["helpful", "harmful", "neutral"]))
        if random.random() < 0.5:
            playbook.credit(entry.id, [random.gauss(1.0, 0.4) for _ in range(3)])
    if random.random() < 0.5:
        playbook.refute()
        playbook.concise("staleness", 5)
    playbook.advance()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("withheld", [False, True])
def test_lives_are_those_of_the_playbook(seed: int, withheld: bool) -> None:
    playbook, random = Playbook(), Random(seed)
    changes, shown, seen = [], [], {}
    for _ in range(12):
        random_update(playbook, random)
        changes += playbook.drain()
        wrong = [entry for entry in playbook.entries if is_wrong(entry.content)]
        shown.append(sum(not withheld or standing(entry) == "proven" for entry in wrong))
        for entry in wrong:
            seen[entry.id] = seen.get(entry.id, 0) + 1
    found = wrong_lessons(changes, withheld=withheld)
    assert found.shown == shown
    assert found.left == len(wrong)
    assert sorted(life for life in found.lives if life) == sorted(seen.values())
    summary = found.summary()
    assert summary["updates_shown"] == sum(count > 0 for count in shown)
    assert summary["added"] == sum(c["op"] == "add" and is_wrong(c["content"]) for c in changes)


@pytest.mark.parametrize("seed", range(5))
def test_playbooks_of_problems_are_told_apart(tmp_path: Path, seed: int) -> None:
    """Their entries have the same ids, and their changes follow each other in one journal."""
    (tmp_path / "config.yaml").write_text("context: {probation: shown}")
    books, random, journals = {"p": Playbook(), "q": Playbook()}, Random(seed), {"p": [], "q": []}
    for _ in range(6):
        for name, book in books.items():
            random_update(book, random)
            own = book.drain()
            journals[name] += own
            journal.append(tmp_path / "playbook.jsonl", [{"playbook": name, **change} for change in own])
    found = playbook_summary(tmp_path)
    apart = [wrong_lessons(own, withheld=False).summary() for own in journals.values()]
    for key in ("updates", "added", "left", "shown", "updates_shown"):
        assert found["wrong_lessons"][key] == sum(each[key] for each in apart)
    assert sorted(found["wrong_lessons"]["lives"]) == sorted(life for each in apart for life in each["lives"])
    assert found["playbook"]["entries"] == sum(len(book) for book in books.values())
