"""Syntax trees made in several threads."""

import ast
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from resd.environments.syntax import parse_python


def test_one_tree_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault of CPython that this avoids comes too seldom to be waited for."""
    at_once: list[int] = []
    busy = [0]

    def parse(source: str, filename: str) -> ast.Module:
        busy[0] += 1
        at_once.append(busy[0])
        time.sleep(0.01)
        busy[0] -= 1
        return ast.Module([], [])

    with monkeypatch.context() as patch, ThreadPoolExecutor(4) as pool:
        patch.setattr(ast, "parse", parse)
        list(pool.map(parse_python, ["x = 1"] * 8))
    assert at_once == [1] * 8


def test_what_does_not_parse() -> None:
    with pytest.raises(SyntaxError, match=r"reply\.py, line 1"):
        parse_python("def", "reply.py")
