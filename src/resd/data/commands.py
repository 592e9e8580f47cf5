"""The subcommands of `resd data` and their options."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resd.records import ResdError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define prepare, list, show, split-tasks and split-tests."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _add_prepare(actions.add_parser("prepare", help="fetch, generate or convert the data of a task"))
    _add_list(actions.add_parser("list", help="where the data of each task comes from, and its licence"))
    _add_show(actions.add_parser("show", help="print a problem, and verdicts on replies to it"))
    tasks = actions.add_parser("split-tasks", help="divide rows into train.jsonl and test.jsonl")
    tasks.add_argument("--test-ratio", type=float, default=0.1, help="share for testing (default 0.1)")
    tests = actions.add_parser("split-tests", help="divide the tests of each programming task")
    tests.add_argument(
        "--as-released", action="store_true", help="keep all tests for testing, those trained on included"
    )
    for split, run in ((tasks, split_tasks), (tests, split_tests)):
        split.add_argument("path", type=Path, metavar="PATH", help="file or folder of rows")
        split.add_argument("--seed", type=int, default=42)
        split.add_argument("--out", type=Path, required=True, metavar="DIR")
        split.set_defaults(run=run)


def _add_prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", metavar="TASK", help="one of those that `resd data list` names")
    parser.add_argument(
        "--set", dest="set_", metavar="NAME", help="of a task with several (default: the first)"
    )
    parser.add_argument("--source", metavar="WHERE", help="hub, generator, or a file or folder of rows")
    parser.add_argument("--out", type=Path, metavar="DIR", help="(default: where the environment looks)")
    parser.add_argument(
        "--revision",
        dest="revisions",
        action="append",
        default=[],
        metavar="[NAME=]COMMIT",
        help="commit, tag or branch on the hub; with the repository's name where a set has several",
    )
    parser.add_argument(
        "--format",
        dest="format_",
        default="rows",
        metavar="FORMAT",
        help="rows, or parquet of prompts: verl, trl",
    )
    _add_options(parser)
    parser.set_defaults(run=prepare)


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", nargs="?", metavar="TASK", help="this one only")
    parser.set_defaults(run=list_origins)


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", metavar="TASK", help="a task, or module:class of your own")
    parser.add_argument("--path", help="its file or folder of rows")
    parser.add_argument("--split", default="test")
    parser.add_argument("--index", type=int, default=0, help="which problem, from 0")
    parser.add_argument("--reply", type=Path, metavar="FILE", help="also judge the text of this file")
    _add_options(parser)
    parser.set_defaults(run=show)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--option",
        dest="options",
        action="append",
        default=[],
        metavar="key=value",
        help="option of the environment; may be given again",
    )


def prepare(args: argparse.Namespace) -> None:
    """`resd data prepare`."""
    from resd.data.prepare import prepare as run

    prepared = run(
        args.task,
        set_=args.set_,
        source=args.source,
        out=args.out,
        revisions=args.revisions,
        format_=args.format_,
        options=parse_options(args.options),
        command=shlex.join(["resd", *sys.argv[1:]]),
    )
    print(*prepared.lines(), sep="\n")


def list_origins(args: argparse.Namespace) -> None:
    """`resd data list`: a table in a terminal, lines in a pipe."""
    from rich.console import Console
    from rich.text import Text

    from resd.data.origins import ORIGINS, origins_of

    console = Console()
    for origin in origins_of(args.task) if args.task else ORIGINS:
        fields = {
            "from": origin.where,
            "licence": origin.licence,
            "rows": origin.formats,
            "sources": ", ".join((*origin.sources, "PATH")),
            "note": origin.note,
        }
        console.print(Text(f"{origin.task} {origin.set}", style="bold"))
        for name, text in fields.items():
            if text:
                line = Text.assemble((f"  {name}: ", "cyan"), text)
                console.print(line, soft_wrap=not console.is_terminal)


def show(args: argparse.Namespace) -> None:
    """`resd data show`."""
    from rich.console import Console

    from resd.data.show import show as run

    options = parse_options(args.options)
    run(
        Console(),
        args.task,
        path=args.path,
        split=args.split,
        index=args.index,
        options=options,
        reply=args.reply,
    )


def split_tasks(args: argparse.Namespace) -> None:
    """`resd data split-tasks`."""
    from resd.data import split

    train, test = split.split_tasks(args.path, args.test_ratio, args.seed)
    split.write_split(args.out, train, test)
    print(f"{len(train)} rows to train and {len(test)} to test on, in {args.out}")


def split_tests(args: argparse.Namespace) -> None:
    """`resd data split-tests`."""
    from resd.data import split

    train, test = split.split_tests(args.path, args.seed, as_released=args.as_released)
    split.write_split(args.out, train, test)
    only = (
        f"; {len(test) - len(train)} tasks have too few tests to train on" if len(test) > len(train) else ""
    )
    print(f"{len(train)} tasks to train and {len(test)} to test on, in {args.out}{only}")


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """key=value pairs, the values as YAML. Raises ResdError for anything else."""
    import yaml

    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise ResdError(f"--option {pair}: write key=value")
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ResdError(f"--option {pair}: the value is not YAML") from error
    return options
