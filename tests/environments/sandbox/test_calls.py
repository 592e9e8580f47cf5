"""What a program gives back: values, errors, output, and how a run ends."""

from __future__ import annotations

import pytest

from resd.environments.sandbox import Limits, Sandbox


def test_each_call_has_a_value_or_an_error(sandbox: Sandbox) -> None:
    result = sandbox.run("def twice(x):\n    return x + x", "twice", [[1], [None], ["ab"]])
    assert result.status == "error"
    assert result.values == [2, None, "abab"]
    assert result.errors[0] is None
    assert result.errors[1].startswith("TypeError")
    assert result.errors[1].endswith("(line 2, in twice)")


def test_cpu_limit_keeps_what_finished(sandbox: Sandbox) -> None:
    program = "def f(x):\n    while x:\n        pass\n    return 7"
    result = sandbox.run(program, "f", [[0], [1], [0]], Limits(cpu_s=0.2))
    assert (result.status, result.values) == ("cpu_limit", [7])
    assert result.cpu_s == pytest.approx(0.2, abs=0.2)
