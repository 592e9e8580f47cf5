"""Problems, prompts, verdicts: whole replies, run in the sandbox."""

import copy
import json
import pickle
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from environments.together import graded
from resd.environments import load
from resd.environments.base import KnowsSolutions, ParallelEnvironment
from resd.environments.bouncingsim import BouncingSim, check_program, extract_program
from resd.environments.bouncingsim.judging import judge_value
from resd.records import Problem, ResdError, Response

EASY = BouncingSim()
MEDIUM = BouncingSim(level="medium")
STRAIGHT = """
def predict_position(t):
    return [[x + vx * t, y + vy * t] for x, y, vx, vy in BALLS]
"""


def fenced(text, tag="python"):
    return f"Some words.\n```{tag}\n{text}\n```\nMore words."


def body(*lines):
    return fenced("import math\ndef predict_position(t):\n" + "\n".join(f"    {line}" for line in lines))


def straight(problem):
    balls = [(*ball["position"], *ball["velocity"]) for ball in problem.metadata["balls"]]
    return fenced(f"BALLS = {balls}\n{STRAIGHT}")


@pytest.fixture(scope="module")
def train():
    return EASY.problems("train")


def test_problems(train):
    assert (EASY.name, MEDIUM.name) == ("bouncingsim_easy", "bouncingsim_medium")
    assert [len(train), len(EASY.problems("test"))] == [640, 100]
    assert [len(MEDIUM.problems(split)) for split in ("train", "test")] == [320, 100]
    assert train[3].id == "bouncingsim/easy/train/0003"
    everything = [p for e in (EASY, MEDIUM) for split in ("train", "test") for p in e.problems(split)]
    assert len({problem.id for problem in everything}) == len({p.question for p in everything}) == 1160
    assert load("bouncingsim") == EASY != load("bouncingsim", level="medium")
    assert load("bouncingsim").problems("train") == train
    assert isinstance(EASY, ParallelEnvironment)
    assert isinstance(EASY, KnowsSolutions)
    json.dumps([problem.metadata for problem in train[:3]])


def test_the_question_states_every_fact_of_the_scene(train):
    for problem in [*train[:20], *MEDIUM.problems("test")[:20]]:
        metadata, question = problem.metadata, problem.question
        assert f"Container: {metadata['container']['sides']} sides, circumradius 375" in question
        assert f"where {len(metadata['balls'])} balls" in question
        for number, ball in enumerate(metadata["balls"], start=1):
            line = next(line for line in question.splitlines() if line.startswith(f"{number}. "))
            x, y = ball["position"]
            vx, vy = (int(v) if v == int(v) else v for v in ball["velocity"])
            assert line == (
                f"{number}. {ball['sides']} sides, circumradius 20, centre ({x}, {y}), "
                f"velocity ({vx}, {vy}) m/s"
            )
        positions = json.dumps(metadata["positions"][-1])
        assert positions not in question


def test_collisions_can_be_withheld(train):
    kept_back = BouncingSim(collisions="withheld").problems("train")[0].question
    stated = train[0].question
    for word in ("bounce off each other", "density", "mass", "energy"):
        assert word in stated
        assert word not in kept_back
    assert len(kept_back.splitlines()) == len(stated.splitlines()) - 1


def test_solutions_run_within_the_rules():
    """For every tenth problem, in this process: the sandbox comes below."""
    for environment in (EASY, MEDIUM):
        for problem in [*environment.problems("train"), *environment.problems("test")][::10]:
            program = extract_program(environment.solution(problem))
            check_program(program)
            names = {"__name__": "program"}
            exec(program, names)
            begin = time.process_time()
            for t, wanted in zip(problem.metadata["timestamps"], problem.metadata["positions"], strict=True):
                value = names["predict_position"](t)
                prediction = judge_value(value, t, wanted, 0.02)
                assert prediction.kind == "ok", problem.id
            assert time.process_time() - begin < 1.0


def test_a_solution_earns_the_full_reward(train):
    problems = [*train[:3], *MEDIUM.problems("test")[:3]]
    replies = [EASY.solution(problem) for problem in problems]
    for verdict in [*graded(EASY, problems, replies), EASY.grade(problems[0], replies[0])]:
        assert (verdict.reward, verdict.passed, verdict.total, verdict.feedback) == (1.0, 15, 15, "")
        assert verdict.details == {
            "incorrect_format": False,
            "truncated": False,
            "status": "ok",
            "error_in_test_cases": False,
            "timed_out": False,
        }


def test_rewards(train):
    partly = next(p for p in train if EASY.grade(p, straight(p)).passed)
    pays = BouncingSim(reward="pass_rate")
    verdict = pays.grade(partly, straight(partly))
    assert 0 < verdict.reward == verdict.pass_rate < 1
    assert EASY.grade(partly, straight(partly)).reward == 0.0
    examined = Problem(partly.id, partly.messages, {**partly.metadata, "split": "test"})
    assert pays.grade(examined, straight(partly)).reward == 0.0
    assert pays.grade(examined, EASY.solution(partly)).reward == 1.0


def test_feedback_reveals_or_not(train):
    shown = EASY.grade(train[0], straight(train[0])).feedback
    hidden = BouncingSim(reveal_answer=False).grade(train[0], straight(train[0])).feedback
    assert "times pass" in hidden
    assert ", true (" in shown
    assert ", true (" not in hidden


BROKEN = {
    "while True: pass": ("cpu_limit", "ran out of time"),
    "return 1 / (t - t)": ("error", "ZeroDivisionError"),
    "return predict_position(t)": ("error", "RecursionError"),
    "return [[1, 2]]": ("ok", "a list of length 1"),
    "return [[math.nan, 2]] * 3": ("ok", "is not finite"),
    "return [[10 ** 400, 2]] * 3": ("ok", "is not finite"),
    "return [[True, 2]] * 3": ("ok", "type bool"),
    "return {1, 2}": ("error", "is not JSON"),
    "raise SystemExit": (None, "times pass"),
}


@pytest.mark.parametrize(("line", "expected"), BROKEN.items())
def test_broken_programs(train, line, expected):
    status, sentence = expected
    verdict = EASY.grade(train[0], body(line))
    assert sentence in verdict.feedback
    assert status in (None, verdict.details["status"])
    assert (verdict.reward, verdict.passed, verdict.total) == (0.0, 0, 15)
    assert verdict.details["timed_out"] is (status == "cpu_limit")
    assert not verdict.details["incorrect_format"]


def test_calls_that_finished_before_the_limit_count(train):
    balls = [ball["position"] for ball in train[0].metadata["balls"]]
    program = body(f"while t > 0.35: pass\nreturn {balls}".replace("\n", "\n    "))
    verdict = BouncingSim(cpu_s=0.3).grade(train[0], program)
    assert "3 of 15 calls finished" in verdict.feedback
    assert "0.3 s of processor time" in verdict.feedback


def test_a_program_that_fails_before_it_is_called(train):
    verdict = EASY.grade(train[0], fenced("x = undefined\ndef predict_position(t): pass"))
    assert "failed before predict_position was called" in verdict.feedback
    assert "name 'undefined' is not defined" in verdict.feedback
    assert verdict.details["error_in_test_cases"]


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        ("no fence", "Put the whole program between a line ```python and a line ```."),
        ("<think>```python\nx\n```", "the thought never ended"),
        (fenced("import os\ndef predict_position(t): pass"), "to import os is not allowed (line 1)"),
        (fenced("def f(:"), "not valid Python (line 1)"),
        (fenced("x = 1"), "defines no function predict_position"),
    ],
)
def test_replies_without_a_program_that_can_be_run(train, reply, sentence):
    verdict = EASY.grade(train[0], reply)
    assert sentence in verdict.feedback
    assert (verdict.reward, verdict.passed, verdict.total) == (0.0, 0, 15)
    assert verdict.details["incorrect_format"]


def test_responses_are_graded_by_their_text(train):
    response = Response("r", EASY.solution(train[3]), (1,), (0.0,), "length")
    verdict = EASY.grade(train[3], response)
    assert verdict.solved
    assert verdict.details["truncated"]


def test_endless_loops_take_nothing_from_their_neighbours(train):
    """In a batch, those that end on their own are judged as if alone."""
    environment = BouncingSim(cpu_s=0.3)
    problems = train[:6]
    replies = [body("while True: pass") if i % 2 else EASY.solution(p) for i, p in enumerate(problems)]
    verdicts = graded(environment, [*problems, train[0]], [*replies, "no program"])
    assert [verdict.solved for verdict in verdicts] == [True, False] * 3 + [False]
    assert [verdict.details["timed_out"] for verdict in verdicts] == [False, True] * 3 + [False]


PIECES = [
    "```",
    "\n```python\n",
    "\n```\n",
    "def predict_position(t):\n",
    "    return [[t, t]] * 3\n",
    "    return predict_position\n",
    "x = '",
    "<think>",
    "</think>",
    "\x00",
    "\ud800",
    "é",
    "    raise KeyError('\\ud800')\n",
]


@settings(max_examples=120, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=12).map("".join)))
def test_grading_never_raises(reply):
    verdict = EASY.grade(PROBLEM, reply)
    assert 0 <= verdict.passed <= verdict.total == 15
    assert (verdict.feedback == "") == verdict.solved
    assert len(verdict.feedback) <= 2000


PROBLEM = EASY.problems("train")[0]


def test_copies_grade_too(train):
    for twin in (copy.deepcopy(EASY), pickle.loads(pickle.dumps(EASY))):
        assert twin == EASY
        assert twin.grade(train[0], EASY.solution(train[0])).solved


def row(**changes):
    """The first row of our own, as it would stand in a file."""
    metadata = {key: value for key, value in PROBLEM.metadata.items() if key != "task"}
    return json.loads(json.dumps({"id": "G_1_1", "difficulty": 1, **metadata, **changes}))


def write(path, *rows):
    path.write_text("\n".join(json.dumps(given) for given in rows))
    return path


def test_rows_of_a_folder_and_of_a_file(tmp_path):
    first = write(tmp_path / "multiobj_easy.jsonl", row(), row(split="test"), row(tolerance=10))
    write(tmp_path / "multiobj_medium.jsonl", row(difficulty=2))
    easy = BouncingSim(path=tmp_path)
    problems = easy.problems("train")
    assert [problem.id for problem in problems] == [f"bouncingsim/multiobj_easy/0000{i}" for i in (0, 2)]
    assert (
        len(easy.problems("test")) == len(BouncingSim(path=tmp_path, level="medium").problems("train")) == 1
    )
    assert [p.question for p in BouncingSim(path=str(first)).problems("train")] == [
        p.question for p in problems
    ]
    assert problems[0].question == PROBLEM.question
    assert "at most 10 m" in problems[1].question
    assert easy.grade(problems[1], easy.solution(problems[1])).solved


def test_no_solution_where_the_positions_are_of_another_world(tmp_path):
    moved = [[[x + 500, y] for x, y in balls] for balls in PROBLEM.metadata["positions"]]
    environment = BouncingSim(path=write(tmp_path / "scenes.jsonl", row(positions=moved)))
    assert environment.solution(environment.problems("train")[0]) is None


@pytest.mark.parametrize("level", ["easy", "medium"])
def test_published_rows(shared, level):
    environment = BouncingSim(path=shared / "data/bouncingsim", level=level)
    problems = environment.problems("train")
    assert len(problems) > 2 * len(environment.problems("test")) > 0
    solved = sum(environment.solution(problem) is not None for problem in problems)
    assert solved >= 0.995 * len(problems)
    assert environment.grade(problems[0], environment.solution(problems[0])).solved


def test_other_families_are_refused(shared):
    environment = BouncingSim(path=shared / "data/bouncingsim/other_families_sample.jsonl")
    with pytest.raises(ResdError, match="is a scene of another family"):
        environment.problems("train")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"difficulty": 2}, "has difficulty 2, not the 1 of this level"),
        ({"balls": []}, "1 to 64 balls"),
        ({"boxes": []}, "another family"),
        ({"tolerance": 0}, "tolerance must be metres above 0"),
        ({"tolerance": None}, "tolerance must be metres above 0"),
        ({"timestamps": None}, "timestamps must be a list"),
        ({"timestamps": []}, "0 timestamps and 15 positions"),
        ({"timestamps": [1.5] + [0.1] * 14}, "times must be ascending"),
        ({"positions": []}, "15 timestamps and 0 positions"),
        ({"positions": [[[1, 2]]] * 15}, "positions at t = 0.1 are not one pair for each of 3 balls"),
    ],
)
def test_bad_rows(tmp_path, changes, message):
    file = write(tmp_path / "scenes.jsonl", row(**changes))
    with pytest.raises(ResdError, match=message):
        BouncingSim(path=file).problems("train")


@pytest.mark.parametrize(
    "options", [{"level": "hard"}, {"collisions": "hidden"}, {"reward": "sum"}, {"cpu_s": 0}, {"cpu_s": True}]
)
def test_unknown_options(options):
    with pytest.raises(ResdError, match=next(iter(options))):
        BouncingSim(**options)


def test_unknown_split_path_and_foreign_problem():
    with pytest.raises(ResdError, match="train, test"):
        EASY.problems("dev")
    with pytest.raises(ResdError, match="does not exist"):
        BouncingSim(path="/nowhere").problems("train")
    with pytest.raises(ResdError, match="does not belong to bouncingsim"):
        EASY.grade(Problem("x", ({"role": "user", "content": "?"},)), "")
