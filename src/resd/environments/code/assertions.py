"""Test sources: what they assert, found out without the program, and judged without it.

A source is run beside a stand-in (see `replay`), in a process that never sees the program. First with nothing
known, which tells what calls the source makes; then, once the program has been asked those in a process that
never sees the source, with what it returned. A source whose next calls depend on what it got is run again,
until there are no new calls. Where a source without branches only compares calls with values, the second run
is left out. What a program does to its arguments is not seen by tests.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from resd.environments.code import replay
from resd.environments.sandbox import Limits, Sandbox
from resd.environments.syntax import parse_python
from resd.records import ResdError

LIMITS = Limits(cpu_s=10.0, memory_mb=1024, output_bytes=20_000_000)
_REPLAY = inspect.getsource(replay)
_BRANCHES = (ast.If, ast.IfExp, ast.While, ast.Try, ast.Match, ast.BoolOp, ast.comprehension)
_CODEC = "\n\n".join(map(inspect.getsource, (replay.resd_encode, replay.resd_decode)))


@dataclass(frozen=True, slots=True)
class Report:
    """What a test source did: its calls ([args, kwargs], encoded), its assertions, and what ended it early.

    An assertion is a dict of the line that it stands in, whether it passed (None: not known yet), the calls
    since the one before, and, where it compares a call with a value, that `call` and what is `wanted`; calls
    by number. `unknown`: some call's value was.
    """

    calls: list[Any]
    checks: list[dict[str, Any]]
    error: str | None
    unknown: bool

    @property
    def comparisons_only(self) -> bool:
        """Whether each call is compared with a value, and nothing else is asserted."""
        compared = {check.get("call") for check in self.checks}
        return self.error is None and compared == set(range(len(self.calls)))


@dataclass(frozen=True, slots=True)
class TestSource:
    """Tests of the function `entry`. `helpers` is what the task's statement defines beside it."""

    __test__ = False  # none of pytest's

    source: str
    entry: str
    helpers: str = ""

    def assertion(self, line: int) -> str:
        """The assertion that stands in a line, as it reads."""
        text = _instrumented(self.source)[1].get(line, "")
        return re.sub(r"\bcandidate(?=\()", self.entry, text)

    @property
    def branches(self) -> bool:
        """Whether what it asserts may depend on what calls return."""
        return any(isinstance(node, _BRANCHES) for node in ast.walk(parse_python(self.source)))

    def run(self, sandbox: Sandbox, known: list[Any]) -> Report | None:
        """Run the source; `known` has [call, outcome] pairs. None where it does not come to its end."""
        call = [_instrumented(self.source)[0], self.helpers, self.entry, known]
        result = sandbox.run(_REPLAY, "replay_tests", [call], LIMITS)
        return Report(**result.values[0]) if result.status == "ok" else None

    def plan(self, sandbox: Sandbox) -> Report:
        """What the source does when nothing is known. Raises ResdError where that is nothing."""
        report = self.run(sandbox, [])
        if report is None or not report.calls:
            raise ResdError(f"code: the tests of {self.entry} do not run, or never call it; fix that row")
        return report


def with_calls(program: str, entry: str) -> str:
    """The program with a function `resd_call(args, kwargs)`, whose arguments and value are encoded."""
    name, _, method = entry.partition(".")
    call = f"""
def resd_call(args, kwargs):
    if {name!r} not in globals():
        raise NameError("the program defines no {name}")
    return resd_encode({f"{name}().{method}" if method else name}(*resd_decode(args), **resd_decode(kwargs)))
"""
    return "\n\n".join([program, _CODEC, call])


def check_source(source: str, where: str) -> None:
    """Raises ResdError for a test source that is no Python."""
    try:
        _instrumented(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ResdError(f"{where}: its test source is not valid Python ({error})") from error


def called_name(source: str, where: str) -> str:
    """The one function that assertions call and nothing defines. Raises ResdError unless it is one."""
    nodes = list(ast.walk(parse_python(source)))
    bound = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    bound |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {(node.asname or node.name).partition(".")[0] for node in nodes if isinstance(node, ast.alias)}
    called = {
        call.func.id
        for node in nodes
        if isinstance(node, ast.Assert)
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
    }
    free = sorted(called - bound - set(dir(builtins)))
    if len(free) != 1:
        raise ResdError(f"{where}: its tests call {', '.join(free) or 'nothing'}; say which with fn_name")
    return free[0]


def helpers_of(prompt: str, entry: str) -> str:
    """What a prompt that is Python defines beside `entry`: imports and helpers; "" where it is none."""
    try:
        tree = parse_python(prompt)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    kept = [
        node for node in tree.body if not isinstance(node, ast.Expr) and getattr(node, "name", "") != entry
    ]
    return "\n".join(map(ast.unparse, kept))


@lru_cache(maxsize=1024)
def _instrumented(source: str) -> tuple[str, dict[int, str]]:
    """The source with its assertions reported to `resd`, calling `check` where it does not itself; the
    assertions by line."""
    tree = parse_python(source)
    asserted = {
        node.lineno: ast.unparse(node.test) for node in ast.walk(tree) if isinstance(node, ast.Assert)
    }
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    called = {
        node.value.func.id
        for node in tree.body
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
    }
    text = ast.unparse(ast.fix_missing_locations(_Reported().visit(tree)))
    return text + ("\ncheck(candidate)\n" if "check" in names - called else "\n"), asserted


class _Reported(ast.NodeTransformer):
    """Each `assert` as a report of its two sides, or of its truth; one that raises ends nothing."""

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        test, line = node.test, node.lineno
        if isinstance(test, ast.Constant) and test.value is True:
            return ast.Pass()
        if isinstance(test, ast.Compare) and [type(op) for op in test.ops] == [ast.Eq]:
            report = _call("equal", line, test.left, test.comparators[0])
        else:
            report = _call("truth", line, test)
        handler = ast.ExceptHandler(ast.Name("Exception", ast.Load()), None, [_call("raised", line)])
        return ast.Try([report], [handler], [], [])


def _call(method: str, line: int, *arguments: ast.expr) -> ast.Expr:
    function = ast.Attribute(ast.Name("resd", ast.Load()), method, ast.Load())
    return ast.Expr(ast.Call(function, [ast.Constant(line), *arguments], []))
