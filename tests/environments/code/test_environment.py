"""Verdicts and feedback, and replies that try to win without solving."""

import json
import pickle
import time

import pytest

from environments.code.hostile import HOSTILE
from environments.together import graded
from resd.environments import load
from resd.environments.base import KnowsSolutions, ParallelEnvironment
from resd.records import Problem, ResdError, Response

DOUBLES = {
    "id": "double",
    "prompt": "Print twice the number.",
    "tests": {
        "testtype": "stdin",
        "inputs": ["3\n", "40\n", "500\n"],
        "outputs": ["6\n", "80\n", "1000\n"],
        "public": 2,
    },
}
PAIRS = {
    "prompt": "Swap a pair.",
    "starter_code": "class Solution:\n    def swap(self, pair: List[int]) -> List[int]:\n",
    "tests": json.dumps(
        {
            "testtype": "functional",
            "fn_name": "swap",
            "inputs": ["[1, 2]", "[3, 4]", '["a", null]', "[7, 7]"],
            "outputs": ["[2, 1]", "[4, 3]", '[null, "a"]', "[7, 7]"],
        }
    ),
}
HALVES = {
    "prompt": 'def near(x):\n    return round(x, 3)\n\ndef half(x):\n    """Half of x."""\n',
    "entry_point": "half",
    "canonical_solution": "    return x / 2\n",
    "test": """
def check(candidate):
    import random
    assert True
    assert candidate(3) == 1.5, "three"
    assert 2 == candidate(4)
    assert abs(candidate(x=0.3) - 0.15) < 1e-9
    for _ in range(5):
        x = random.randint(1, 1000)
        assert near(candidate(x)) == near(x / 2)
    chain = candidate(candidate(8))
    assert chain == 2
    assert type(candidate(2)) is float and candidate(2)
""",
}
ROWS = [DOUBLES, PAIRS, HALVES]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("code") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def code(path):
    return load("code", path=path, time_limit=0.2)


@pytest.fixture(scope="module")
def problems(code):
    return code.problems("test")


def fenced(source):
    return f"Here it is.\n```python\n{source}\n```"


def grade(code, problem, source):
    return code.grade(problem, fenced(source))


def test_protocols(code, problems):
    assert isinstance(code, ParallelEnvironment)
    assert isinstance(code, KnowsSolutions)
    assert code.workers >= 1
    assert code.grade(problems[2], code.solution(problems[2])).solved
    assert code.solution(problems[0]) is None
    json.dumps([problem.metadata for problem in problems])
    for problem, words in zip(problems, ["standard input", "`swap`", "`half`"], strict=True):
        assert words in problem.question
    assert "class Solution" in problems[1].question
    assert "0.2 s" in problems[0].question


@pytest.mark.parametrize(
    "source",
    [
        "print(int(input()) * 2)",
        "import sys\nprint(int(sys.stdin.read()) * 2, end='  \\n\\n')\nsys.exit()",
        "import sys\nfor line in sys.stdin.buffer:\n    sys.stdout.write(str(2 * int(line)))",
        "def main():\n    print(int(open(0).readline()) * 2)\nif __name__ == '__main__':\n    main()",
        "n = int(input())\nprint(reduce(lambda a, b: a + b, [n, n]))",
    ],
)
def test_programs_on_standard_input(code, problems, source):
    verdict = grade(code, problems[0], source)
    assert (verdict.reward, verdict.passed, verdict.total, verdict.feedback) == (1.0, 3, 3, "")


@pytest.mark.parametrize(
    "source",
    [
        "class Solution:\n    def swap(self, pair: List[int]) -> List[int]:\n        return pair[::-1]",
        "def swap(pair):\n    a, b = pair\n    return b, a",
        "class Solution:\n    pass\nswap = lambda pair: list(deque(reversed(pair)))",
    ],
)
def test_functions(code, problems, source):
    # One argument, whose JSON text is a list: the reply gets the list.
    assert grade(code, problems[1], source).solved


def test_wrong_answers(code, problems):
    verdict = grade(code, problems[0], "n = int(input())\nprint(n * 2 if n < 9 else n)")
    assert (verdict.reward, verdict.passed, verdict.total) == (0.0, 1, 3)
    assert verdict.feedback == "1 of 3 tests passed (wrong answers: 2).\n\nInput: 40\nOutput: 40\nWanted: 80"
    verdict = grade(code, problems[0], "n = int(input())\nprint(n * 2 if n < 99 else n)")
    assert verdict.feedback.endswith("All public tests passed; private tests got wrong answers.")
    verdict = grade(code, problems[1], "def swap(pair):\n    return pair")
    assert "Input: swap([1, 2])\nOutput: [1, 2]\nWanted: [2, 1]\n\nInput: swap([3, 4])" in verdict.feedback
    assert verdict.details["statuses"] == ["wrong", "wrong", "wrong", "passed"]


def test_what_may_be_shown(path, problems):
    source = "n = int(input())\nprint(n)"
    silent = load("code", path=path, reveal_answer=False)
    assert "Wanted" not in grade(silent, silent.problems("test")[0], source).feedback
    assert "Input: 3\nOutput: 3" in grade(silent, silent.problems("test")[0], source).feedback
    hides = "n = int(input())\nassert n < 99, n\nprint(n * 2)"
    frank = load("code", path=path, reveal_private=True)
    assert "Input: 500\nError: " in grade(frank, frank.problems("test")[0], hides).feedback
    said = grade(silent, silent.problems("test")[0], hides).feedback
    assert said.endswith(
        "A private test raised an error: AssertionError (line 2, in <module>)\nThat line: assert n < 99, n"
    )
    assert "500" not in said


def test_errors(code, problems):
    verdict = grade(code, problems[0], "n = int(input())\n\ndef f(n):\n    return n / 0\nprint(f(n))")
    assert verdict.feedback == (
        "0 of 3 tests passed (runtime errors: 3).\n\nInput: 3\n"
        "Error: ZeroDivisionError: division by zero (line 4, in f)\nThat line: return n / 0"
    )
    assert verdict.details["error_in_test_cases"]
    broken = grade(code, problems[1], "def swap(pair):\n    return List[pair\n")
    assert "SyntaxError" in broken.feedback
    assert "line 2" in broken.feedback
    missing = grade(code, problems[2], "def other(x):\n    return x")
    assert "Error: NameError: the program defines no half" in missing.feedback
    assert "program.py" not in missing.feedback
    wrong_arity = grade(code, problems[2], "def half():\n    return 1")
    assert "takes 0 positional arguments" in wrong_arity.feedback
    assert "resd" not in wrong_arity.feedback
    assert grade(code, problems[1], "import sys\ndef swap(pair):\n    sys.exit(0)").passed == 0


def test_no_program(code, problems):
    verdict = code.grade(problems[0], "print(1)")
    assert (verdict.passed, verdict.total, verdict.details["incorrect_format"]) == (0, 3, True)
    assert verdict.feedback.startswith("No program found")
    thought = Response("r", "<think>```python\nprint(6)\n```", (), (), "length")
    assert code.grade(problems[0], thought).details["truncated"]
    assert code.grade(problems[0], fenced("#" * 300_000)).feedback == "The program is too long to be run."


def test_limits_are_those_of_a_test(code, problems):
    slow = (
        "import time\ndef swap(pair):\n    start = time.process_time()\n"
        "    while time.process_time() - start < 0.12:\n        pass\n    return pair[::-1]"
    )
    assert grade(code, problems[1], slow).solved  # four tests, 0.2 s each
    third = "def swap(pair):\n    while pair[0] == 'a':\n        pass\n    return pair[::-1]"
    verdict = grade(code, problems[1], third)
    assert verdict.details["statuses"] == ["passed", "passed", "cpu_limit", "passed"]
    assert "Input: swap(['a', None])\nNo result: it took more than 0.2 s of CPU time." in verdict.feedback
    assert verdict.details["timed_out"]


def test_an_endless_loop_is_paid_for_three_times(code, problems):
    started = time.monotonic()
    verdict = grade(code, problems[1], "def swap(pair):\n    while True:\n        pass")
    assert verdict.details["statuses"] == ["cpu_limit"] * 3 + ["not_run"]
    assert time.monotonic() - started < 6
    memory = grade(
        code, problems[1], "def swap(pair):\n    return ['a' * 10**6] * 10**6 and bytearray(2 * 10**9)"
    )
    assert set(memory.details["statuses"]) <= {"memory_limit", "not_run"}


def test_what_a_program_writes_of_lines_is_only_text(code, problems):
    """Numbers that Python refuses to read, in errors that the program forged."""
    forged = "import os\nos.write(2, b'(line ' + b'9' * 5000)\nos._exit(3)"
    assert grade(code, problems[1], forged).reward == 0.0
    forged = (
        "import os\ndef swap(p):\n    os.write(3, b'e\"(line ' + b'9' * 5000 + b'\"\\nd\\n')\n    os._exit(0)"
    )
    assert grade(code, problems[1], forged).reward == 0.0


def test_public_tests_do_not_see_private_ones(code, tmp_path):
    """A reply could otherwise have them told in its feedback."""
    tests = {"testtype": "functional", "fn_name": "f", "inputs": [[1], [987654321]], "outputs": [2, 3]}
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "f", "tests": {**tests, "public": 1}}))
    code = load("code", path=tmp_path / "rows.jsonl", time_limit=0.5)
    source = """
import sys
def f(x):
    seen, frame = [], sys._getframe()
    while frame:
        seen += [repr(value) for value in frame.f_locals.values()]
        frame = frame.f_back
    return str(123456789 * 8 + 9) in repr(seen)
"""
    verdict = code.grade(code.problems("test")[0], fenced(source))
    assert "Output: False" in verdict.feedback


def test_assertions(code, problems):
    verdict = grade(code, problems[2], "def half(x):\n    return x / 2")
    assert (verdict.solved, verdict.total) == (True, 11)
    verdict = grade(code, problems[2], "def half(x):\n    return x // 2")
    assert verdict.details["statuses"][1] == "passed"
    assert "Input: half(3)\nOutput: 1\nWanted: half(3) == 1.5" in verdict.feedback
    verdict = grade(code, problems[2], "def half(x):\n    return x / 2 + (x == 0.3)")
    assert "Input: half(x=0.3)\nOutput: 1.15\nWanted: abs(half(x=0.3) - 0.15) < 1e-09" in verdict.feedback
    assert not grade(code, problems[2], "def half(x):\n    return x / 2 if x != 8 else 5").solved
    # Helpers of the statement are there.
    assert grade(code, problems[2], "def half(x):\n    return x * near(0.5)").solved


def test_rewards(path):
    partial = load("code", path=path, tests="all", reward="pass_rate")
    source = "n = int(input())\nprint(n * 2 if n < 9 else n)"
    assert grade(partial, partial.problems("train")[0], source).reward == pytest.approx(1 / 3)
    assert grade(partial, partial.problems("test")[0], source).reward == 0.0
    public = load("code", path=path, reward="pass_rate")
    assert grade(public, public.problems("train")[0], source).reward == 0.5
    half = load("code", path=path, tests="half")
    assert grade(half, half.problems("train")[0], "print(int(input()) * 2)").total == 2


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_replies(code, problems, name):
    for problem in problems:
        verdict = grade(code, problem, HOSTILE[name])
        assert verdict.reward == 0.0
        assert verdict.passed < verdict.total
        assert 0 < len(verdict.feedback) <= 2000


def test_expected_values_do_not_enter(code, problems, monkeypatch):
    """No text that goes to a program holds what its tests want, in any form."""
    sent = []
    run = code._judge.sandbox.run

    def seen(program, entry, calls, limits):
        sent.append(json.dumps([program, entry, calls]))
        return run(program, entry, calls, limits)

    monkeypatch.setattr(code._judge.sandbox, "run", seen)
    secret = "def half(x):\n    marker = 5\n    return 0"
    grade(code, problems[0], "marker = 5")
    grade(code, problems[1], "marker = 5\ndef swap(p):\n    return 0")
    grade(code, problems[2], secret)
    with_program = [text for text in sent if "marker = 5" in text]
    assert len(with_program) >= 5
    for text in with_program:
        assert not any(wanted in text for wanted in ("1000", "[2, 1]", "1.5", "0.15", "1e-9", "assert"))


def test_verdicts_keep_the_order(code, problems):
    replies = [fenced(f"print(int(input()) * {factor})") for factor in (2, 3, 2, 1)]
    verdicts = graded(code, [problems[0]] * 4, replies)
    assert [verdict.solved for verdict in verdicts] == [True, False, True, False]


def test_copies_find_the_tests(code, path, problems):
    source = "print(int(input()) * 2)"
    for copy in (load("code", path=path), pickle.loads(pickle.dumps(code))):
        assert grade(copy, problems[0], source).solved


def test_options_and_other_problems(code, problems, path):
    for options, message in [
        ({"reward": "most"}, "reward 'most' is not known"),
        ({"tests": "none"}, "choose one of public, half, all"),
        ({"time_limit": 0}, "give seconds"),
        ({"isolation": "none"}, "isolation 'none' is not known"),
    ]:
        with pytest.raises(ResdError, match=message):
            load("code", path=path, **options)
    with pytest.raises(ResdError, match="does not belong to code"):
        code.grade(Problem("x", problems[0].messages), "reply")
    with pytest.raises(ResdError, match="is not in the data"):
        code.grade(Problem("x", problems[0].messages, problems[0].metadata), "reply")
