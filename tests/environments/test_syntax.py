"""Syntax trees made in several threads at once."""

import ast
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from resd.environments.syntax import parse_python


@pytest.fixture
def hurried() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("hurried")
def test_threads_do_not_disturb_each_other() -> None:
    sources = [f"x = {'(' * n}1{' + 2)' * n}\n" * 200 for n in range(1, 9)]
    with ThreadPoolExecutor(4) as pool:
        trees = list(pool.map(parse_python, sources * 4))
    assert [ast.dump(tree) for tree in trees] == [ast.dump(ast.parse(source)) for source in sources * 4]


def test_what_does_not_parse() -> None:
    with pytest.raises(SyntaxError, match=r"reply\.py, line 1"):
        parse_python("def", "reply.py")
