"""Environments of the library `verifiers`: the real library where it is installed, in either interface."""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from resd import environments
from resd.records import ResdError

TASKSET = """
import verifiers.v1 as vf

__all__ = ["Sums"]


class Data(vf.TaskData):
    answer: str = ""


class Sum(vf.Task[Data]):
    @vf.reward(weight=1.0)
    async def right(self, trace) -> float:
        if trace.last_reply == "help":
            trace.info["feedback"] = "Do it yourself."
        return float(trace.last_reply == self.data.answer)

    @vf.metric
    async def words(self, trace) -> float:
        return float(len(trace.last_reply.split()))


class Config(vf.TasksetConfig):
    size: int = 20
    first: int = 0


class Sums(vf.Taskset[Sum, Config]):
    def load(self):
        for n in range(self.config.first, self.config.first + self.config.size):
            prompt = f"{n} + 1 = ?"
            yield Sum(Data(prompt=prompt, system_prompt="Be brief.", answer=str(n + 1)), self.config.task)


class Boxed(Sum):
    @vf.reward
    async def files(self, trace, runtime) -> float:
        return 1.0


class BoxedSums(vf.Taskset[Boxed, Config]):
    def load(self):
        yield Boxed(Data(prompt="1 + 1 = ?"), self.config.task)
"""

SINGLE_TURN = """
import verifiers as vf
from datasets import Dataset


def right(completion, answer) -> float:
    return float(completion[-1]["content"] == answer)


async def words(completion, state, **kwargs) -> float:
    return float(len(completion[-1]["content"].split()))


def rows(low, high):
    return Dataset.from_list([{"question": f"{n} + 1 = ?", "answer": str(n + 1)} for n in range(low, high)])


def sums(size=20, held_out=0):
    eval_dataset = {"eval_dataset": rows(size, size + held_out)} if held_out else {}
    rubric = vf.Rubric(funcs=[right, words], weights=[1.0, 0.0])
    return vf.SingleTurnEnv(dataset=rows(0, size), system_prompt="Be brief.", rubric=rubric, **eval_dataset)


def load_environment(size=20):
    return sums(size)


def talks():
    return vf.ToolEnv(tools=[], dataset=rows(0, 3), rubric=vf.Rubric(funcs=[right]))
"""


def has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


needs_tasksets = pytest.mark.skipif(not has("verifiers.v1.trace"), reason="needs verifiers 0.4")
needs_rubrics = pytest.mark.skipif(not has("verifiers.rubrics"), reason="needs verifiers 0.1")


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules in the current folder."""
    (tmp_path / "own_taskset.py").write_text(TASKSET)
    (tmp_path / "own_single_turn.py").write_text(SINGLE_TURN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    for name in ("own_taskset", "own_single_turn"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def check_sums(environment: Any, answer: Any) -> None:
    """20 sums, two of them held out, graded by `right` and measured in words."""
    train, test = environment.problems("train"), environment.problems("test")
    assert (len(train), len(test)) == (18, 2)
    assert len({p.question for p in [*train, *test]}) == 20
    assert len({p.id for p in [*train, *test]}) == 20
    for problem in (train[0], test[0]):
        assert [m["role"] for m in problem.messages] == ["system", "user"]
        right = environment.grade(problem, answer(problem))
        assert (right.reward, right.solved, right.feedback) == (1.0, True, "")
        wrong = environment.grade(problem, "no idea")
        assert (wrong.reward, wrong.solved) == (0.0, False)
        assert wrong.feedback.startswith("Reward 0: ")
        assert "right 0" in wrong.feedback
        assert "words 2" in wrong.feedback
        assert wrong.details.items() >= {"right": 0.0, "words": 2.0}.items()
        assert wrong.details.get("num_turns", 1.0) == 1.0


def answer(problem: Any) -> str:
    return str(int(problem.question.split()[0]) + 1)


@needs_tasksets
@pytest.mark.parametrize("id_", ["own_taskset:Sums", "own-taskset"])
def test_a_taskset(id_: str) -> None:
    environment = environments.load("verifiers", id=id_)
    assert environment.name == id_.replace("-", "_").replace(":", "_")
    check_sums(environment, answer)
    problem = environment.problems("test")[0]
    assert environment.grade(problem, f"<think>No tag in what tasks read.</think>{answer(problem)}").solved
    assert environment.grade(problem, "help").feedback == "Do it yourself."


@needs_tasksets
def test_arguments_of_a_taskset() -> None:
    for sizes, expected in (
        ({"args": {"size": 30}, "test_share": 0.2}, [24, 6]),
        ({"args": {"size": 30}, "test_args": {"size": 3, "first": 100}}, [30, 3]),
    ):
        environment = environments.load("verifiers", id="own_taskset:Sums", **sizes)
        assert [len(environment.problems(split)) for split in ("train", "test")] == expected
    with pytest.raises(ResdError, match="cannot be made with args"):
        environments.load("verifiers", id="own_taskset:Sums", args={"colour": 1})
    with pytest.raises(ResdError, match=r"test_share 0\.1 of 3 problems leaves one part empty"):
        environments.load("verifiers", id="own_taskset:Sums", args={"size": 3})


@needs_tasksets
def test_tasks_that_need_more_than_a_reply() -> None:
    with pytest.raises(ResdError, match="task 0 needs a runtime for files"):
        environments.load("verifiers", id="own_taskset:BoxedSums")


@needs_rubrics
@pytest.mark.parametrize("id_", ["own_single_turn:sums", "own-single-turn"])
def test_a_single_turn_environment(id_: str) -> None:
    check_sums(environments.load("verifiers", id=id_), answer)


@needs_rubrics
def test_a_single_turn_environment_with_an_eval_dataset() -> None:
    environment = environments.load("verifiers", id="own_single_turn:sums", args={"held_out": 5})
    assert [len(environment.problems(split)) for split in ("train", "test")] == [20, 5]


@needs_rubrics
def test_several_turns_are_refused() -> None:
    with pytest.raises(ResdError, match="several turns"):
        environments.load("verifiers", id="own_single_turn:talks")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "verifiers", None)
    with pytest.raises(ResdError, match="pip install verifiers"):
        environments.load("verifiers", id="own_taskset:Sums")
