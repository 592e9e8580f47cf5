"""What passes is what people and healthy models write; what does not is what decayed models wrote."""

import inspect
import random

import pytest

from resd import environments
from resd.context import plausible
from resd.context.plausible import is_degenerate
from resd.environments.manufactoria import solutions
from resd.lab import rules

SOUND = [
    "",
    "OK",
    "Mind the end.",
    "EMPTY in t must lead to NONE.",
    "No, no, no: the tape must not be empty, no matter what.",
    "The tape RRRRRRRRRRRRRRRRRRRRRRRRRRRRRR must be rejected.",
    r"Use $\sum_{i=1}^{n} x_i^2 = \frac{n(n+1)(2n+1)}{6}$ or \int_0^\infty e^{-x^2}\,dx=\frac{\sqrt\pi}{2}.",
    "See https://example.org/a/very/long/path/with-many-parts/and?query=1&another=2#and-a-fragment-as-well.",
    '{"state": "s0", "moves": [["R", "s1"], ["B", "s0"]], "tape": [0, 1, 1, 0, 0, 1], "accept": true}',
    "for i in range(n):\n    for j in range(i, n):\n        total += a[i][j] * b[j][i]\n",
    "The tape RBRBRBRBRB must be rejected.",
    "The hash is 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15, so compare both.",
    "\u5728\u7a7a\u767d\u65f6\uff0c\u62c9\u53d6\u5668\u5fc5\u987b\u8f6c\u5230\u5b83\u7684\u4f19\u4f34\uff0c"
    "\u5426\u5219\u673a\u5668\u4f1a\u62d2\u7edd\u6240\u6709\u7684\u78c1\u5e26\u3002",
    "\u30c6\u30fc\u30d7\u304c\u7a7a\u306e\u3068\u304d\u306f\u62d2\u5426\u3059\u308b\u3002",
    "\u041f\u0440\u043e\u0432\u0435\u0440\u044c \u043a\u043e\u043d\u0435\u0446 \u043b\u0435\u043d\u0442.",
]
DEGENERATE = [
    "Thes1s1s1s0 skips s0s0s1s1s1s1s0s1s1s1s2 leave.s1s1s1s1Always ins1s1s1s1s1",
    "As0 Other " + "The STARTThe STARTOther STARTOther " * 3,
    ",",
    '", "',
    "...",
    "s",
    "0 0 1",
    "s0s0s0s1s0s0",
    "s0s1s0s0" * 30,
    "s0 s1 s0 " * 10 + "end",
    "a" * 30,
    "a" * 300,
    "the " * 8,
    "the " * 100,
    "go to " * 10,
    "end" * 12,
    "Let s0 lead to s1. " * 12,
    "\u4e0d\u8981" * 40,
    "".join(random.Random(0).choices(["s0", "s1"], k=80)) + " end",
    str(plausible.__doc__) + " and then" + " and so on" * 60,
]


@pytest.mark.parametrize("text", SOUND)
def test_sound(text: str) -> None:
    assert not is_degenerate(text)


@pytest.mark.parametrize("text", DEGENERATE)
def test_degenerate(text: str) -> None:
    assert is_degenerate(text)


def test_source_code_and_its_sentences_are_sound() -> None:
    for module in (plausible, rules, solutions, inspect, random):
        source = inspect.getsource(module)
        assert not is_degenerate(source)
        assert not [
            paragraph for paragraph in (module.__doc__ or "").split("\n\n") if is_degenerate(paragraph)
        ]


def test_the_lab_models_words_are_sound() -> None:
    assert len(rules.RULE_OF_TEXT) > 50
    texts = [*rules.RULE_OF_TEXT, rules.MISREAD_ERROR, rules.MISREAD_FIX]
    assert not [text for text in texts if is_degenerate(text)]


def test_programs_are_sound() -> None:
    problems = environments.load("manufactoria", family="has").problems("train")
    assert not [p.id for p in problems[::10] if is_degenerate(solutions.solve_has(p))]
