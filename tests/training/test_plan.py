"""What is refused before a run begins."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from resd.config import check_config
from resd.records import ResdError
from resd.training.plan import check_evaluation, check_run

SAME = """
from resd.records import Problem, Verdict

class Same:
    name = "same"
    def __init__(self, train=4, test=4):
        self.sizes = {"train": train, "test": test}
    def problems(self, split):
        return [Problem(str(i), ({"role": "user", "content": "Go."},)) for i in range(self.sizes[split])]
    def grade(self, problem, response):
        return Verdict(1.0, 1, 1, "")
"""


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "same_task.py").write_text(SAME)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return lambda split="test", **options: check_config(
        {
            "environment": {"name": "same_task:Same", "options": options},
            "context": {"style": "compact"},
            "stream": {"batch_size": 2},
            "evaluation": {"split": split},
        },
        "test",
    )


def test_held_out_problems_are_not_trained_on(configure: Any) -> None:
    with pytest.raises(ResdError, match=r"4 of 4 held-out problems are trained on too \(0\)"):
        check_run(configure())
    _, plan = check_run(configure("train"))
    assert plan.problems == 4


def test_an_evaluation_asks_nothing_of_the_problems_to_train_on(configure: Any) -> None:
    _, held_out = check_evaluation(configure(train=0))
    assert len(held_out) == 4
    with pytest.raises(ResdError, match="has no such problems"):
        check_evaluation(configure(test=0))
    with pytest.raises(ResdError, match="0 problems to train on"):
        check_run(configure(train=0))


def test_a_grader_is_tried_before_anything_is_loaded(configure: Any, tmp_path: Path) -> None:
    source = SAME.replace("class Same", "class Deaf").replace('Verdict(1.0, 1, 1, "")', "response == ''")
    (tmp_path / "same_task.py").write_text(SAME + source)
    sys.modules.pop("same_task", None)
    config = configure("train")
    environment = config.environment.model_copy(update={"name": "same_task:Deaf"})
    with pytest.raises(
        ResdError, match="problem 0: grade gives no verdict on an empty reply: it returned a bool"
    ):
        check_run(config.model_copy(update={"environment": environment}))
