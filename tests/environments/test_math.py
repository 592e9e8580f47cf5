r"""Mathematics: rows, the last \boxed{}, equivalence in bounded time."""

import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from environments.together import graded
from resd.environments import equivalence, load
from resd.environments.base import KnowsSolutions, ParallelEnvironment
from resd.environments.equivalence import Comparer
from resd.environments.math import MAX_ANSWER, Math, last_boxed
from resd.records import Problem, ResdError, Response

pytest.importorskip("math_verify")


def problem_of(target):
    return Problem("p", (), {"task": "math", "target": target})


@pytest.fixture(scope="module")
def environment():
    return Math()


def written(folder, *rows):
    file = folder / "test.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize(
    ("row", "target"),
    [
        ({"problem": "Q", "answer": r"\frac12", "solution": r"so \boxed{3}"}, r"\frac12"),
        ({"problem": "Q", "solution": r"first \boxed{1}, so $\boxed{\frac{1}{2}}$."}, r"\frac{1}{2}"),
        ({"question": "Q", "answer": "2 + 3 = 5\n#### 5"}, "5"),
        ({"prompt": "Q", "answer": 204}, "204"),
        ({"problem": "Q", "answer": r"$\boxed{7}$"}, "7"),
    ],
)
def test_rows(tmp_path, row, target):
    (problem,) = load("math", written(tmp_path, row)).problems("test")
    assert problem.id == "math/test/00000"
    assert problem.metadata["target"] == target
    assert problem.question.startswith("Q\n\n")
    assert r"\boxed{answer}" in problem.question


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": "Q", "answer": "5"}, "'problem' contains no text"),
        ({"problem": "Q"}, "'solution' contains no text"),
        ({"problem": "Q", "solution": "five"}, "has no answer"),
        ({"problem": "Q", "answer": None}, "'answer' contains no text"),
        ({"problem": "Q", "answer": "x" * 1001}, "has no answer of 1 to 1000 characters"),
    ],
)
def test_rows_that_are_none(tmp_path, row, words):
    with pytest.raises(ResdError) as error:
        load("math", written(tmp_path, {"problem": "Q", "answer": "5"}, row)).problems("test")
    assert words in str(error.value)
    assert "math/test/00001" in str(error.value)


@pytest.mark.parametrize(
    ("text", "boxed"),
    [
        (r"\boxed{1} and \boxed{ 2 } " + "words " * 1000, "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed {5}", "5"),
        (r"\boxed{1} then \boxed{2", "1"),
        (r"} { \boxed{1}", "1"),
        (r"\boxed{a\\}", "a\\\\"),
        (r"\boxed{}", ""),
        (r"\boxed{1", None),
        (r"\\boxed{1}", None),
        ("5", None),
    ],
)
def test_last_boxed(text, boxed):
    assert last_boxed(text) == boxed


@given(
    st.lists(st.sampled_from([r"\boxed{", "{", "}", r"\{", r"\}", "x", "\\", " "]), max_size=12).map("".join)
)
def test_last_boxed_is_balanced(text):
    boxed = last_boxed(text)
    if boxed is not None:
        bare = boxed.replace("\\\\", "").replace(r"\{", "").replace(r"\}", "")
        assert bare.count("{") == bare.count("}")
        assert boxed in text


def test_many_braces_take_no_time():
    begin = time.process_time()
    assert last_boxed(r"\boxed{" * 100_000) is None
    assert time.process_time() - begin < 2


EQUAL = [
    ("1/2", "0.5"),
    (r"\frac12", r"\dfrac{2}{4}"),
    ("x^2+1", "1+x^2"),
    (r"2\sqrt{3}", r"\sqrt{12}"),
    ("12345", "12,345"),
    (r"\{1,2\}", r"\{2, 1\}"),
    ("3", "x=3"),
    ("10", r"\$10"),
]
UNEQUAL = [("1/2", "0.6"), ("x^2", "2x"), ("(0,1)", "[0,1]"), ("5", "-5"), ("5", "five")]


def test_equivalence_also_in_threads(environment):
    pairs = [(*pair, 1.0) for pair in EQUAL] + [(*pair, 0.0) for pair in UNEQUAL]
    problems, replies = [problem_of(target) for target, *_ in pairs], [rf"\boxed{{{a}}}" for _, a, _ in pairs]
    assert isinstance(environment, ParallelEnvironment)
    verdicts = graded(environment, problems, replies)
    assert [verdict.reward for verdict in verdicts] == [reward for *_, reward in pairs]
    assert all((verdict.feedback == "") == verdict.solved for verdict in verdicts)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def test_text_that_is_equal_needs_no_process(monkeypatch):
    monkeypatch.setattr(Comparer, "equal", None)
    environment = Math()
    for target in ("5", r"\{x\}", r"\frac{1}{2}"):
        assert environment.grade(problem_of(target), environment.solution(problem_of(target))).solved
    assert isinstance(environment, KnowsSolutions)


HOSTILE = ["9^{9^{9^{9}}}", r"\prod_{i=1}^{10^{7}} i", "(" * 450 + "1" + ")" * 450]


def test_hostile_answers_end():
    """Each is ended by its CPU time; the comparer goes on, in the same thread and in others."""
    comparer = Comparer(cpu_seconds=0.3)
    before = threading.active_count()
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda answer: comparer.equal("5", answer), HOSTILE)) == [None] * len(HOSTILE)
    assert comparer.equal("5", "10/2") is True
    assert threading.active_count() == before


def test_nothing_is_run(environment, tmp_path):
    target = tmp_path / "made"
    code = f"__import__('pathlib').Path('{target}').touch()"
    for answer in (code, rf"\text{{{code}}}", f"${code}$"):
        assert not environment.grade(problem_of("5"), rf"\boxed{{{answer}}}").solved
    assert not target.exists()


def test_the_process_has_no_secrets(monkeypatch):
    monkeypatch.setenv("RESD_TEST_SECRET", "secret")
    comparer = Comparer()
    comparer.equal("5", "4")
    pid = comparer._idle[0]._process.pid
    assert b"RESD_TEST_SECRET" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_a_process_that_ended_while_idle_is_replaced():
    comparer = Comparer()
    assert comparer.equal("5", "10/2")
    (idle,) = comparer._idle
    idle._process.kill()
    idle._process.wait()
    assert comparer.equal("5", "10/2")


def test_a_process_ends_with_its_comparer():
    comparer = Comparer()
    comparer.equal("5", "4")
    process = comparer._idle[0]._process
    del comparer
    assert process.returncode is not None


def test_feedback(environment):
    problem = problem_of("5")
    wrong = environment.grade(problem, r"\boxed{4}")
    assert wrong.feedback == "Wrong: 4 is not the right answer."
    assert wrong.details == {"incorrect_format": False, "truncated": False, "answer": "4"}
    shown = Math(reveal_answer=True).grade(problem, r"\boxed{4}").feedback
    assert shown == "Wrong: 4 is not the right answer. The right answer is 5."
    form = r"Give the final answer alone, as \boxed{answer}."
    for reply, words in [
        ("5", r"No answer: the reply has no \boxed."),
        (r"\boxed{5", r"No answer: \boxed was opened and never closed."),
        (
            r"<think>\boxed{5}",
            "No answer: the thought never ended; what is written inside it does not count.",
        ),
        (r"\boxed{}", r"Wrong: the last \boxed{} is empty."),
        (rf"\boxed{{{'1' * (MAX_ANSWER + 1)}}}", r"Wrong: the last \boxed{} is longer than 1000 characters."),
    ]:
        verdict = environment.grade(problem, reply)
        assert verdict.feedback == f"{words} {form}"
        assert verdict.details["incorrect_format"]
    cut = environment.grade(problem, Response("r", "So", (), (), "length"))
    assert cut.feedback.startswith("No answer: the reply was cut off")


def test_feedback_of_what_cannot_be_compared(monkeypatch):
    monkeypatch.setattr(Comparer, "equal", lambda *_: None)
    verdict = Math().grade(problem_of("5"), r"\boxed{9^9}")
    assert (verdict.reward, verdict.passed) == (0.0, 0)
    assert verdict.feedback == (
        "Wrong: 9^9 could not be compared within 2 seconds; give the answer in its simplest form."
    )


def test_mistakes(environment, monkeypatch):
    with pytest.raises(ResdError, match="does not belong to math"):
        environment.grade(Problem("p", ()), "")
    monkeypatch.setattr(equivalence.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ResdError, match=r"pip install 'resd\[tasks\]'"):
        load("math")
    monkeypatch.undo()
    monkeypatch.setattr(equivalence, "__name__", "no.such.module")
    with pytest.raises(ResdError, match="did not start"):
        Comparer().equal("1", "2")


@given(st.lists(st.one_of(st.sampled_from([r"\boxed{", "}", "<think>", "9^", "\0"]), st.text(max_size=4))))
def test_no_text_is_too_much(parts):
    class Never(Comparer):
        def equal(self, expected, answer):
            assert answer
            assert len(answer) <= MAX_ANSWER

    environment = Math()
    object.__setattr__(environment, "_comparer", Never())
    verdict = environment.grade(problem_of("5"), "".join(parts))
    assert (verdict.feedback == "") == verdict.solved
