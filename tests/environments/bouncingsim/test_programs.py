"""Where programs are found, and which are refused."""

import subprocess
import sys

import pytest

from resd.environments.bouncingsim import ProgramError, check_program, extract_program
from resd.environments.bouncingsim.programs import MAX_CHARACTERS


def fenced(text, tag="python"):
    return f"Some words.\n```{tag}\n{text}\n```\nMore words."


@pytest.mark.parametrize(
    ("reply", "program"),
    [
        (fenced("A"), "A"),
        (fenced("A", tag=""), "A"),
        (fenced("A", tag="py"), "A"),
        (fenced("A", tag=" Python "), "A"),
        (fenced("A") + fenced("B"), "B"),
        (fenced("A") + "\n" + fenced("B", tag="text"), "A"),
        ("Use ```math``` and ```\nA\n```", None),
        ("Use ```math```.\n```python\nA\n```", "A"),
        ("1. Item\n   ```python\n   A:\n     B\n   ```", "A:\n  B"),
        ("```python\nA```", "A"),
        ("```python\r\nA\r\n```", "A"),
        (f"<think>{fenced('A')}</think>{fenced('B')}", "B"),
        (f"{fenced('A')}</think>{fenced('B')}", "B"),
        (f"<think>{fenced('A')}", None),
        (f"<think>{fenced('A')}</think>nothing", None),
        ("```python\nA", None),
        (fenced("A", tag="json"), None),
        ("", None),
    ],
)
def test_extraction(reply, program):
    found = extract_program(reply)
    assert (found and found.strip()) == program


ENTRY = "def predict_position(t):\n    return [[0.0, 0.0]]\n"
GOOD = {
    "plain": ENTRY,
    "imports": "from __future__ import annotations\nimport math as m\nfrom math import sin, cos\n" + ENTRY,
    "class": "class A:\n    def __init__(self):\n        super().__init__()\n" + ENTRY,
    "main": ENTRY + "if __name__ == '__main__':\n    print(predict_position(1))\n",
    "lambda": "predict_position = lambda t: [[0, 0]]",
    "annotated": "predict_position: object = lambda t: [[0, 0]]",
    "words in texts": ENTRY + "s = 'import os; eval(open(x)).__class__'  # exec\n",
    "own names": "exit = next = 1.0\n" + ENTRY,
}


@pytest.mark.parametrize("program", GOOD.values(), ids=GOOD)
def test_allowed(program):
    check_program(program)


BAD = {
    "import os": "to import os is not allowed (line 1)",
    "import math, sys": "to import sys is",
    "import math.os": "to import math.os is",
    "from os import path": "to import from os is",
    "from . import math": "to import from . is",
    "from .. import x": "to import from . is",
    "().__class__": "the attribute __class__ is",
    "x = 1\n(lambda: 0).__globals__": "the attribute __globals__ is not allowed (line 2)",
    "e.__traceback__.tb_frame": "is not allowed",
    "e.tb_frame": "the attribute tb_frame is",
    "g.gi_frame.f_back.f_locals": "the attribute f_locals is",
    "exec('1')": "the name exec is",
    "f = eval": "the name eval is",
    "open('x')": "the name open is",
    "__import__('os')": "the name __import__ is",
    "__builtins__": "the name __builtins__ is",
    "getattr(1, 'x')": "the name getattr is",
}


@pytest.mark.parametrize(("program", "message"), BAD.items())
def test_refused(program, message):
    with pytest.raises(ProgramError) as error:
        check_program(f"{program}\n{ENTRY}")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("def f(:", "is not valid Python (line 1): invalid syntax."),
        ("x = '\x00'\n" + ENTRY, "is not valid Python"),
        ("\ud800", "is not valid Python"),
        ("x = 1", "defines no function predict_position"),
        ("#" * MAX_CHARACTERS + "\n", f"at most {MAX_CHARACTERS}"),
        ("x = " + "(" * 5000, "is not valid Python (line 1): too many nested parentheses"),
        ("x = " + "-" * 40_000 + "1", "is nested too deeply"),
        ("x = " + "1 + " * 12_000 + "1", "is nested too deeply"),
        ("x = a" + ".b" * 20_000, "is nested too deeply"),
    ],
)
def test_unreadable(program, message):
    with pytest.raises(ProgramError) as error:
        check_program(program)
    assert message in str(error.value)


@pytest.mark.parametrize("line", ["import {}", "from {} import x", "x.__{}__", "__{}__"])
def test_refusals_are_short(line):
    with pytest.raises(ProgramError) as error:
        check_program(line.format("a" * 9000))
    assert len(str(error.value)) < 120


@pytest.mark.parametrize("unit", ["```", "`", "```python\n", "\n", " ", "x", "```\n```\n", "\t```"])
def test_huge_replies_are_searched_in_linear_time(unit):
    """A search that is quadratic would take hours here."""
    extract_program(unit * (3_000_000 // len(unit)))


def test_reading_a_program_prints_nothing():
    """In a process of its own: tests see warnings in another way."""
    script = (
        "from resd.environments.bouncingsim import check_program\n"
        "check_program('def predict_position(t):\\n    return ' + '1if 1else ' * 50 + '1')"
    )
    ran = subprocess.run([sys.executable, "-W", "always", "-c", script], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
