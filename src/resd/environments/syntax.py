"""Python's syntax trees, in threads."""

from __future__ import annotations

import ast
from threading import Lock

# CPython counts the depth of a tree for all threads at once while it makes one: two at a time can end in a
# SystemError, "AST constructor recursion depth mismatch".
_one_at_a_time = Lock()


def parse_python(source: str, filename: str = "<program>") -> ast.Module:
    """As `ast.parse`, errors included; several threads may call it."""
    with _one_at_a_time:
        return ast.parse(source, filename)
