"""Wrong lessons' lives, against a playbook that is asked after every update."""

from random import Random

import pytest

from resd.context.credit import standing
from resd.context.playbook import Playbook
from resd.experiments.lives import is_wrong, wrong_lessons
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
