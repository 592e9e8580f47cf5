"""Which problem's rounds are shown, and what is in them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from resd.records import ResdError
from resd.report.rounds import choose_story
from resd.report.runs import load_run

MakeRun = Callable[..., Path]


def test_the_first_problem_that_fails_and_then_succeeds(make_run: MakeRun) -> None:
    story = choose_story(load_run(make_run(), "run"))
    assert story is not None
    assert (story.problem, story.batch, story.learned) == ("q", 0, True)
    failed, solved = story.rounds
    assert (failed.step, failed.round, failed.passed, failed.total) == (1, 0, 2, 4)
    assert failed.thinking == "hm"
    assert failed.answer.startswith("try <script>")
    assert failed.reflection is not None
    assert failed.reflection.lessons == ("Look twice",)
    assert [addition.content for addition in failed.additions] == ["Curated lesson"]
    assert failed.teacher_prompt is not None
    assert solved.is_solved
    assert solved.reflection is None
    assert solved.teacher_prompt is None


@pytest.mark.parametrize(
    ("solved", "words"),
    [
        ([0, 0, 1, 0], "solved in round 3 of 4"),
        ([0, 1, 0, 1], "solved in rounds 2 and 4 of 4"),
        ([0, 1, 1, 1], "solved in rounds 2, 3 and 4 of 4"),
        ([1, 1], "solved in all 2 rounds"),
        ([0, 0], "not solved in 2 rounds"),
        ([0], "not solved in 1 round"),
        ([1], "solved in round 1 of 1"),
    ],
)
def test_the_outcome_of_every_round_is_told(make_run: MakeRun, solved: list[int], words: str) -> None:
    story = choose_story(load_run(make_run(), "run"))
    assert story is not None
    first = story.rounds[0]
    rounds = [replace(first, round=i, solved=each) for i, each in enumerate(solved)]
    assert replace(story, rounds=rounds).outcome == words


def edit(folder: Path, **changes: object) -> None:
    """Change every attempt in the rollouts."""
    for path in (folder / "rollouts").iterdir():
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows = [row | changes if row["kind"] == "attempt" else row for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_any_problem_if_none_succeeds(make_run: MakeRun) -> None:
    folder = make_run()
    edit(folder, passed=0)
    story = choose_story(load_run(folder, "run"))
    assert story is not None
    assert not story.learned
    assert len(story.rounds) == 2
    unread = story.rounds[0].reflection
    assert unread is not None
    assert (unread.parsed, unread.raw) == (False, "no JSON at all")


def test_the_best_try_is_shown(make_run: MakeRun) -> None:
    folder = make_run(steps=1)
    path = folder / "rollouts/1.jsonl"
    row = json.loads(path.read_text().splitlines()[0])
    tries = [row | {"key": f"p#{i}", "sample": i, "passed": passed} for i, passed in enumerate((1, 4, 2))]
    path.write_text("".join(json.dumps(one) + "\n" for one in tries))
    story = choose_story(load_run(folder, "run"))
    assert story is not None
    (only,) = story.rounds
    assert (only.tries, only.solved, only.passed) == (3, 1, 4)


def test_what_an_unfinished_update_left_is_not_shown(make_run: MakeRun) -> None:
    folder = make_run(steps=1)
    (folder / "rollouts/2.jsonl").write_text((folder / "rollouts/1.jsonl").read_text())
    story = choose_story(load_run(folder, "run"))
    assert story is not None
    assert [each.step for each in story.rounds] == [1]


def test_damaged_rollouts(make_run: MakeRun) -> None:
    folder = make_run()
    edit(folder, passed="many")
    with pytest.raises(ResdError, match="does not hold what it should"):
        choose_story(load_run(folder, "run"))
