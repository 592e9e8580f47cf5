"""Running a program on its tests. Nothing that is expected goes where the program runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, zip_longest
from typing import Any

from resd.environments.code.assertions import Report, TestSource, with_calls
from resd.environments.code.compare import same_output, same_value, written
from resd.environments.code.program import Program, entry_of
from resd.environments.code.rows import Case, Task
from resd.environments.sandbox import Limits, Result, Sandbox

# After so many tests of a reply over a limit the rest are not run, and count as failed: an endless loop is
# paid for this often, not once a test.
MOST_OVER_LIMIT = 3
# A crowded machine keeps a program waiting for so many times as long as it computes.
_CROWDED = 4
NOT_RUN = "not_run"
_ROUNDS = 5  # of a test source whose calls depend on what it got


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one test went.

    `status`: "passed", "wrong", or as in the sandbox's `Result`, or "not_run". The texts are for people:
    what went in, what was wanted, what came, and what an error said.
    """

    status: str
    public: bool = True
    given: str = ""
    wanted: str | None = None
    got: str | None = None
    message: str = ""

    @property
    def passed(self) -> bool:
        return self.status == "passed"


@dataclass(frozen=True, slots=True)
class Returned:
    """What one call gave: `status` "ok" and a value, or why there is none."""

    status: str
    value: Any = None
    message: str = ""


@dataclass
class Patience:
    """When the rest of a reply's tests are given up: see `MOST_OVER_LIMIT`.

    Waiting costs no CPU time: all tests together may wait no longer than that many that wait for ever, beyond
    what a crowded machine makes them wait.
    """

    limits: Limits
    left: int = MOST_OVER_LIMIT
    waited: float = 0.0

    def spend(self, result: Result) -> None:
        self.waited += result.wall_s - (1 + _CROWDED) * result.cpu_s

    @property
    def gone(self) -> bool:
        return self.left <= 0 or self.waited > MOST_OVER_LIMIT * self.limits.wall


class Judge:
    """Runs programs in `sandbox`. Test sources are run for their calls once, and that is kept."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._plans: dict[TestSource, Report] = {}

    def judge(self, task: Task, cases: Sequence[Case], program: Program, limits: Limits) -> list[Outcome]:
        """One outcome a test; of a test source, one an assertion. `limits` are those of each test."""
        patience = Patience(limits)
        if task.kind == "stdin":
            return list(self._script(cases, program, patience))
        if task.kind == "functional":
            return list(self._functions(task, cases, program, patience))
        return [outcome for case in cases for outcome in self._source(task, case, program, patience)]

    def _script(self, cases: Sequence[Case], program: Program, patience: Patience) -> Iterator[Outcome]:
        for case in cases:
            if patience.gone:
                yield Outcome(NOT_RUN, case.public)
                continue
            result = self.sandbox.run(program.text, "__main__", [[case.input]], patience.limits)
            got = next(_returned(result, 1))
            patience.spend(result)
            patience.left -= _over_limit(got.status)
            yield _printed(case, got)

    def _functions(
        self, task: Task, cases: Sequence[Case], program: Program, patience: Patience
    ) -> Iterator[Outcome]:
        """Public and private tests in processes of their own: what is shown cannot tell of the others."""
        entry = entry_of(program.source, task.entry)
        for _, group in groupby(cases, key=lambda case: case.public):
            some = list(group)
            calls = [case.input for case in some]
            found = run_calls(self.sandbox, program.text, entry, calls, patience)
            yield from (_called(case, task.entry, got) for case, got in zip(some, found, strict=True))

    def _source(self, task: Task, case: Case, program: Program, patience: Patience) -> list[Outcome]:
        tests = TestSource(case.input, task.entry, task.helpers)
        plan = self._plan(tests)
        text = with_calls(program.text, entry_of(program.source, task.entry))
        settled = plan.comparisons_only and not tests.branches
        report, found = plan, dict[str, tuple[Any, Returned]]()
        for _ in range(_ROUNDS):
            fresh = [call for call in report.calls if json.dumps(call) not in found]
            returned = run_calls(self.sandbox, text, "resd_call", fresh, patience)
            found |= {json.dumps(c): (c, got) for c, got in zip(fresh, returned, strict=True)}
            if settled or not report.unknown or patience.gone:
                break
            after = tests.run(self.sandbox, [[call, _known(got)] for call, got in found.values()])
            if after is None:
                patience.left -= 1
                break
            report = after
        return _asserted(tests, plan, report, list(found.values()), case.public)

    def _plan(self, tests: TestSource) -> Report:
        if tests not in self._plans:
            self._plans[tests] = tests.plan(self.sandbox)
        return self._plans[tests]


def run_calls(
    sandbox: Sandbox, program: str, entry: str, calls: Sequence[list[Any]], patience: Patience
) -> list[Returned]:
    """Each call under the limits of one. They share a process until one goes over; then each has its own.

    A call that is the first of its process had the whole limit to itself; one that came later and went over
    is tried again. So no call is charged for another, and only one call is run twice.
    """
    found: list[Returned] = []
    shared = True
    while len(found) < len(calls) and not patience.gone:
        rest = calls[len(found) :] if shared else calls[len(found) :][:1]
        result = sandbox.run(program, entry, rest, patience.limits)
        patience.spend(result)
        done = list(_returned(result, len(rest)))
        if len(done) > 1 and _over_limit(done[-1].status):
            shared = False
            done.pop()
        patience.left -= _over_limit(done[-1].status)
        found += done
    return found + [Returned(NOT_RUN)] * (len(calls) - len(found))


def _returned(result: Result, wanted: int) -> Iterator[Returned]:
    """Of the calls that finished, and of the one that ended the process."""
    for value, error in zip(result.values, result.errors, strict=True):
        yield Returned("ok", value) if error is None else Returned("error", None, error)
    if result.status == "error" and not result.values:
        failed = Returned("error", None, result.stderr.strip())
        yield from [failed] * wanted
    elif len(result.values) < wanted:
        yield Returned(result.status, None, result.stderr.strip() if result.status == "killed" else "")


def _over_limit(status: str) -> bool:
    return status not in ("ok", "error", "passed", "wrong")


def _printed(case: Case, got: Returned) -> Outcome:
    if got.status != "ok":
        return Outcome(got.status, case.public, case.input, case.output, None, got.message)
    if same_output(got.value, case.output):
        return Outcome("passed", case.public)
    return Outcome("wrong", case.public, case.input, case.output, got.value)


def _called(case: Case, entry: str, got: Returned) -> Outcome:
    if got.status == "ok" and same_value(got.value, case.output):
        return Outcome("passed", case.public)
    shown = f"{entry}({', '.join(map(written, case.input))})"
    outcome = Outcome(got.status, case.public, shown, written(case.output), None, got.message)
    return replace(outcome, status="wrong", got=written(got.value)) if got.status == "ok" else outcome


def _known(got: Returned) -> list[Any]:
    return [got.value] if got.status == "ok" else []


def _asserted(
    tests: TestSource, plan: Report, report: Report, found: Sequence[tuple[Any, Returned]], public: bool
) -> list[Outcome]:
    """One outcome an assertion. Those that the plan foresaw and the source never came to have failed.

    A plan that ended early says how many assertions there are at least, but not which.
    """
    outcomes = []
    for planned, check in _checks(plan, report):
        if "call" in planned:
            outcomes.append(_compared(tests, planned, found[planned["call"]], public))
        elif check["passed"] and not report.unknown:
            outcomes.append(Outcome("passed", public))
        else:
            calls = [found[i] for i in check["calls"] if i < len(found)]
            outcomes.append(_untrue(tests, tests.assertion(check["line"]), calls, public))
    if plan.error is not None or not outcomes:  # that the source came to its end is then a test of its own
        ended = report.error is None and not report.unknown
        outcomes.append(
            Outcome("passed", public) if ended else _untrue(tests, "all tests run", found, public)
        )
    return outcomes


def _checks(plan: Report, report: Report) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """What the plan says of an assertion ({} where it foresaw none, or another), and what came of it."""
    for planned, check in zip_longest(plan.checks, report.checks):
        if check is None:
            yield {}, {**planned, "passed": False}
        elif planned is None or plan.error is not None or planned["line"] != check["line"]:
            yield {}, check
        else:
            yield planned, check


def _untrue(
    tests: TestSource, assertion: str, calls: Sequence[tuple[Any, Returned]], public: bool
) -> Outcome:
    """What does not hold is `wanted`; the calls that it is about are shown with what they gave."""
    for call, got in calls:
        if got.status != "ok":
            return Outcome(got.status, public, _call_text(tests, call), assertion, None, got.message)
    given = "; ".join(_call_text(tests, call) for call, _ in calls)
    return Outcome("wrong", public, given, assertion, "; ".join(written(got.value) for _, got in calls))


def _compared(
    tests: TestSource, check: dict[str, Any], called: tuple[Any, Returned], public: bool
) -> Outcome:
    call, got = called
    if got.status == "ok" and same_value(got.value, check["wanted"]):
        return Outcome("passed", public)
    wanted = written(check["wanted"])
    outcome = Outcome(got.status, public, _call_text(tests, call), wanted, None, got.message)
    return replace(outcome, status="wrong", got=written(got.value)) if got.status == "ok" else outcome


def _call_text(tests: TestSource, call: Any) -> str:
    """`call` is [args, kwargs], encoded."""
    named = [f"{name}={written(value)}" for name, value in call[1].items()]
    return f"{tests.entry}({', '.join([*map(written, call[0]), *named])})"
