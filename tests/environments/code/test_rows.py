"""Rows of all kinds; private tests, and pickles that are more than a text."""

import base64
import json
import os
import pickle
import zlib

import pytest

from resd.environments.code.private import decode_private, pickled_text
from resd.environments.code.rows import Case, read_task
from resd.records import ResdError

PUBLIC = [{"input": "3\n", "output": "6\n", "testtype": "stdin"}]
PRIVATE = [{"input": "4\n", "output": "8\n", "testtype": "stdin"}, {"input": "5", "output": "10"}]


def packed(data):
    return base64.b64encode(zlib.compress(data)).decode()


def livecodebench(**changes):
    row = {
        "question_content": "Double it.",
        "starter_code": "",
        "public_test_cases": json.dumps(PUBLIC),
        "private_test_cases": packed(pickle.dumps(json.dumps(PRIVATE))),
        "metadata": "{}",
    }
    return {**row, **changes}


def prepared(**tests):
    return {
        "prompt": "Double it.",
        "tests": {"testtype": "stdin", "inputs": ["1"], "outputs": ["2"], **tests},
    }


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_private_tests_of_every_protocol(protocol):
    text = json.dumps(PRIVATE) + " " * 70_000 + "\u20ac"
    assert pickled_text(pickle.dumps(text, protocol), "row") == text
    cases = packed(pickle.dumps(json.dumps(PRIVATE), protocol))
    assert decode_private(cases, "row") == PRIVATE
    assert decode_private(json.dumps(PRIVATE), "row") == PRIVATE


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_run_nothing(tmp_path, protocol):
    path = str(tmp_path / "made")
    data = pickle.dumps(Hostile(path), protocol)
    with pytest.raises(ResdError, match="which could run code"):
        decode_private(packed(data), "row 3")
    assert not os.path.exists(path)
    pickle.loads(data)
    assert os.path.exists(path)


@pytest.mark.parametrize(
    ("private", "message"),
    [
        (packed(pickle.dumps(["[]"])), "more than one text"),
        (packed(pickle.dumps(b"[]")), "more than one text"),
        (packed(pickle.dumps(7)), "more than one text"),
        (packed(pickle.dumps("[]"))[:-8], "neither JSON nor base64 of zlib|cut off"),
        (packed(pickle.dumps("[1" * 999)), "are not JSON"),
        (packed(pickle.dumps('{"a": 1}')), "not a JSON list"),
        (packed(b"not a pickle"), "not a pickle"),
        ("!!", "neither JSON nor base64"),
        ("[1", "are not JSON"),
    ],
)
def test_private_tests_that_cannot_be_read(private, message):
    with pytest.raises(ResdError, match=message):
        decode_private(private, "row 3")


def test_unpacking_is_bounded(monkeypatch):
    monkeypatch.setattr("resd.environments.code.private.MAX_BYTES", 1000)
    with pytest.raises(ResdError, match="unpack to more than 1000 bytes"):
        decode_private(packed(pickle.dumps(" " * 5000)), "row")


def test_livecodebench_rows():
    task = read_task("lcb/1", livecodebench())
    assert (task.kind, task.entry, task.time_limit) == ("stdin", "", 6.0)
    assert task.tests("public") == (Case("3\n", "6\n", True),)
    assert task.tests("all") == (
        Case("3\n", "6\n", True),
        Case("4\n", "8\n", False),
        Case("5", "10", False),
    )
    assert task.tests("half") == (Case("3\n", "6\n", True), Case("5", "10", False))


def test_livecodebench_functions():
    public = [{"input": '[1, 2]\n"a b"\n 3', "output": "[true, null]", "testtype": "functional"}]
    row = livecodebench(
        public_test_cases=json.dumps(public),
        private_test_cases=json.dumps(public),
        metadata=json.dumps({"func_name": "twice"}),
        starter_code="class Solution:\n    def twice(self, xs, s, n):\n        ",
    )
    task = read_task("lcb/2", row)
    assert (task.kind, task.entry) == ("functional", "twice")
    assert task.tests("all") == (
        Case([[1, 2], "a b", 3], [True, None], True),
        Case([[1, 2], "a b", 3], [True, None], False),
    )


def test_humaneval_rows():
    row = {
        "prompt": 'import math\n\ndef half(x):\n    return x / 2\n\ndef f(x):\n    """Doc."""\n',
        "entry_point": "f",
        "canonical_solution": "    return x\n",
        "test": "def check(candidate):\n    assert candidate(1) == 1\n",
    }
    task = read_task("he/0", row)
    assert (task.kind, task.entry, task.time_limit) == ("code", "f", 5.0)
    assert task.helpers == "import math\ndef half(x):\n    return x / 2"
    assert task.solution == row["prompt"] + row["canonical_solution"]
    with pytest.raises(ResdError, match="he/0: its test source is not valid Python"):
        read_task("he/0", {**row, "test": "def check("})


def test_prepared_rows():
    task = read_task("p/0", prepared(inputs=["1", "2", "3"], outputs=["2", "4", "6"], public=1, time_limit=2))
    assert [case.public for case in task.cases] == [True, False, False]
    assert task.time_limit == 2.0
    assert read_task("p/0", prepared()).time_limit == 1.0
    functional = prepared(
        testtype="functional", fn_name="f", inputs=['1\n"a"', [1, "a"]], outputs=["x", "[1]"]
    )
    assert [(c.input, c.output) for c in read_task("p/1", functional).cases] == [
        ([1, "a"], "x"),
        ([1, "a"], [1]),
    ]
    code = prepared(testtype="code", inputs=["assert f(len('a')) == 2"], outputs=[])
    assert read_task("p/2", code).entry == "f"


def test_trainer_rows():
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Double it."}]
    truth = json.dumps(prepared()["tests"])
    task = read_task("t/0", {"prompt": chat, "reward_model": {"ground_truth": truth}})
    assert (task.chat, task.prompt, task.kind) == (tuple(chat), "Double it.", "stdin")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "x"}, "has no tests"),
        ({"tests": prepared()["tests"]}, "'prompt' contains no text"),
        (prepared(testtype="wasm"), "testtype 'wasm' is not known"),
        (prepared(inputs=[]), "must be lists"),
        (prepared(inputs=["1", "2"]), "2 inputs and 1 outputs"),
        (prepared(inputs=[1]), "must be texts"),
        (prepared(time_limit=-1), "time_limit -1"),
        (prepared(testtype="functional", inputs=["1"]), "is not a function name"),
        (prepared(testtype="functional", fn_name="f", inputs=["[1"]), "are not JSON"),
        (prepared(testtype="functional", fn_name="f", inputs=[{"a": 1}]), "not a list of arguments"),
        (prepared(testtype="code", inputs=["assert f(g(1)) == 2"]), "call f, g; say which with fn_name"),
        (prepared(testtype="code", inputs=["assert f(1) =="]), "not valid Python"),
        (prepared(context="def f("), "not valid Python"),
        (prepared(context=3), "must be Python source"),
        ({**prepared(), "tests": "{"}, "is not JSON"),
        (livecodebench(public_test_cases="[1]"), "not a list of objects"),
    ],
)
def test_rows_that_are_not_understood(row, message):
    with pytest.raises(ResdError, match=f"row 3.*{message}"):
        read_task("row 3", row)


def test_no_public_tests():
    task = read_task("lcb/3", livecodebench(public_test_cases="[]"))
    assert len(task.tests("all")) == 2
    with pytest.raises(ResdError, match="lcb/3: has no public tests"):
        task.tests("public")
