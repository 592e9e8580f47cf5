"""`resd solve`: its options, what it prints, and the trace that it writes."""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from resd import environments
from resd.environments.checks import try_grading
from resd.records import Problem, ResdError
from resd.solve.effort import BATCH, MEMORIES, METHODS, Effort, check_effort, find_problems

if TYPE_CHECKING:
    from rich.console import Console

    from resd.config import RunConfig
    from resd.solve.bench import Bench
    from resd.solve.work import Result, Round


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="FILE", help="YAML file, as examples/lab.yaml")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="settings; see docs/settings.md"
    )
    parser.add_argument(
        "--problem",
        required=True,
        action="append",
        metavar="ID",
        help="its id, or its place in the split from 0; may be given several times",
    )
    parser.add_argument("--split", default="test", help="where the problem is from (default test)")
    parser.add_argument("--method", default=METHODS[0], choices=METHODS, help="default self_distill")
    parser.add_argument("--memory", choices=MEMORIES, help="of multi_turn (default feedback)")
    parser.add_argument("--budget", type=int, default=512, help="attempts at most (default 512)")
    parser.add_argument("--batch", type=int, help=f"attempts in a round (default {BATCH})")
    parser.add_argument("--seed", type=int, help="in place of the file's")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write each attempt here, as JSON Lines")
    parser.set_defaults(run=solve)


def solve(args: argparse.Namespace) -> None:
    """Work on each problem in turn. Exits with 1 if one of them stays unsolved."""
    effort = Effort(args.method, args.budget, args.batch, args.memory)
    config = _config(args, effort)
    environment = environments.load(config.environment.name, **config.environment.options)
    problems = find_problems(environment, args.split, args.problem)
    try_grading(environment, problems[0])
    if args.output:
        _open_trace(args.output)
    from rich.console import Console
    from transformers.utils import logging

    from resd.solve.bench import open_bench  # torch, and seconds

    logging.disable_progress_bar()
    console = Console()
    bench = open_bench(config, learns=effort.method == "self_distill", environment=environment)
    results = [_solve(bench, effort, problem, args.output, console) for problem in problems]
    if not all(result.solved for result in results):
        raise SystemExit(1)


def _config(args: argparse.Namespace, effort: Effort) -> RunConfig:
    from resd.config import load_config
    from resd.training.plan import check_model

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ResdError("resd solve: runs in a single process; start it without torchrun")
    seed = [] if args.seed is None else [f"seed={args.seed}"]
    # The attempts of a round are its tries at the problem: SRPO asks for more than one.
    tries = [f"rollout.n={effort.width}"] if effort.method == "self_distill" else []
    config = load_config(args.config, [*args.overrides, *seed, *tries])
    check_effort(config, effort)
    check_model(config)
    return config


def _open_trace(path: Path) -> None:
    """Create the empty file before the work starts, to report at once if it cannot be written."""
    if path.is_file() and path.stat().st_size:
        raise ResdError(f"--output {path}: already contains a trace; name another file, or remove it")
    try:
        path.write_text("", encoding="utf-8")
    except OSError as error:
        raise ResdError(
            f"--output {path}: cannot be written ({error.strerror}); name a file in a folder that exists"
        ) from error


def _solve(bench: Bench, effort: Effort, problem: Problem, output: Path | None, console: Console) -> Result:
    from resd.solve.work import attempt_rows, summarize, summary_row, work
    from resd.training import journal

    seed, rounds = bench.config.seed, []
    _say(console, f"{effort.method} on {problem.id}: {textwrap.shorten(problem.question, 60)}")
    for made in work(bench, effort, problem, seed):
        rounds.append(made)
        if output:
            journal.append(output, attempt_rows(made, effort, seed))
        _say(console, round_line(rounds, effort))
    result = summarize(rounds, effort, seed)
    if output:
        journal.append(output, [summary_row(result)])
    _say(console, *result_lines(result))
    return result


def _say(console: Console, *lines: str) -> None:
    """Print without markup: programs may contain what rich would interpret as markup."""
    console.print(*lines, sep="\n", highlight=False, markup=False, soft_wrap=True)


def round_line(rounds: Sequence[Round], effort: Effort) -> str:
    """The newest round and the best attempt so far, aligned in columns."""
    made, rates = rounds[-1], [[a.verdict.pass_rate for a in made.attempts] for made in rounds]
    mean, best = sum(rates[-1]) / len(rates[-1]), max(map(max, rates))
    width = len(str(effort.budget))
    return (
        f"round {made.number:>{width}}  attempts {made.last:>{width}}/{effort.budget}  tests {mean:.3f}  "
        f"best {best:.3f}  tokens {made.total_tokens:>7,}  {made.seconds:.1f} s"
    )


def result_lines(result: Result) -> list[str]:
    """The solution, or how near the best attempt came."""
    spent = f"{result.attempts} attempts, {result.tokens:,} tokens, {result.seconds:.1f} s"
    if result.first is None:
        return [f"not solved: {spent}; the best attempt passed {result.best:.1%} of the tests", ""]
    return [f"solved by attempt {result.first}: {spent}", "", result.text, ""]
