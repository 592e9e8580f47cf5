"""`resd data show`: one problem, its reference solution, and the verdicts on replies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from resd import environments
from resd.environments.base import Environment, KnowsSolutions
from resd.environments.checks import judge, problems_of
from resd.records import Problem, ResdError


def show(
    console: Console,
    task: str,
    *,
    path: str | None = None,
    split: str = "test",
    index: int = 0,
    options: Mapping[str, Any] | None = None,
    reply: Path | None = None,
) -> None:
    """Print problem `index` of a split, and verdicts on the gold reply, an empty one, and that of a file."""
    options = {**(options or {}), **({"path": path} if path else {})}
    environment = environments.load(task, **options)
    problems = problems_of(environment, split)
    if not 0 <= index < len(problems):
        last = len(problems) - 1
        raise ResdError(f"--index {index}: {task} has problems 0 to {last} in split {split}")
    given = _read(reply) if reply else None
    problem = problems[index]
    _heading(console, f"{environment.name}: {split} problem {index} of {len(problems)}")
    _print(console, problem.id)
    for message in problem.messages:
        _section(console, message["role"], message["content"])
    gold = environment.solution(problem) if isinstance(environment, KnowsSolutions) else None
    if gold is not None:
        _section(console, "a reply that solves it", gold)
        _verdict(console, "verdict on this reply", environment, problem, gold)
    _verdict(console, "verdict on an empty reply", environment, problem, "")
    if reply and given is not None:
        _section(console, f"reply of {reply}", given)
        _verdict(console, f"verdict on {reply}", environment, problem, given)


def _verdict(console: Console, title: str, environment: Environment, problem: Problem, reply: str) -> None:
    verdict = judge(environment, problem, reply)
    said = f"reward {verdict.reward:g}, {verdict.passed} of {verdict.total} tests passed"
    style = "green" if verdict.solved else "red"
    _section(console, title, said, style)
    if verdict.feedback:
        _print(console, verdict.feedback)


def _heading(console: Console, title: str) -> None:
    console.print(Rule(Text(title, style="bold"), characters="="))


def _section(console: Console, title: str, text: str, style: str = "") -> None:
    console.print()
    console.print(Rule(Text(title, style="cyan"), align="left"))
    _print(console, text, style)


def _print(console: Console, text: str, style: str = "") -> None:
    """Print verbatim: no markup, no highlighting by rich, no wrapping that a pipe would keep."""
    console.print(Text(text, style=style), soft_wrap=not console.is_terminal)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ResdError(f"--reply {file}: cannot be read ({error})") from error
