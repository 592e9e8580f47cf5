"""The console script.

Nothing heavy is imported before it is needed: `resd --help` is instant, and configuration errors are reported
before torch is loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from resd import __version__
from resd.records import ResdError
from resd.writing import ELSEWHERE, refusal, writing

if TYPE_CHECKING:
    from resd.config import RunConfig
    from resd.context.playbook import Playbook
    from resd.training.plan import Plan

Command = Callable[[argparse.Namespace], None]


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command. Exits with 2 and a one-sentence message on a user error, with 130 after Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = make_parser(words)
    args, rest = parser.parse_known_args(words)
    if any(word.startswith("-") or not hasattr(args, "overrides") for word in rest):
        hint = _setting(rest) if hasattr(args, "overrides") else ""
        parser.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
    if rest:
        args.overrides += rest  # key=value pairs after an option
    run: Command = args.run
    try:
        run(args)
    except ResdError as error:
        print(f"resd: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt:
        print("resd: stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        reason = refusal(error)
        if reason is None:
            raise
        place = getattr(error, "filename", None) or "a file"
        print(f"resd: {place}: cannot be written ({reason}); {ELSEWHERE}", file=sys.stderr)
        raise SystemExit(2) from error


def _setting(rest: Sequence[str]) -> str:
    """A hint on how to write the first unknown option as a setting, without dashes."""
    place, name = next((i, word.lstrip("-")) for i, word in enumerate(rest) if word.startswith("-"))
    key, equals, value = name.partition("=")
    if not equals and place + 1 < len(rest) and "=" not in rest[place + 1]:
        value = rest[place + 1]
    return f"; settings are written without dashes, as in {key.replace('-', '_')}={value or 'VALUE'}"


def make_parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser. `words` are the arguments: options that need torch are only added for their own command."""
    parser = argparse.ArgumentParser(prog="resd", description="Post-train language models from feedback.")
    parser.add_argument("--version", action="version", version=f"resd {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands.add_parser("train", help="train a model as configured in a YAML file"))
    _add_evaluate(commands.add_parser("evaluate", help="evaluate a model or checkpoint on held-out problems"))
    _add_export(commands.add_parser("export", help="write a checkpoint as a plain model folder"))
    _add_playbook(commands.add_parser("playbook", help="show or export a run's playbook"))
    _add_report(commands.add_parser("report", help="compare runs on one HTML page"))
    _add_solve(commands.add_parser("solve", help="work on one problem until it is solved"))
    _add_watch(commands.add_parser("watch", help="serve the report live while runs go on"))
    _add_lab(commands.add_parser("lab", help="build or evaluate the lab model"), words)
    _add_experiment(
        commands.add_parser("experiment", help="run the paper's comparisons with the lab model"), words
    )
    _add_data(commands.add_parser("data", help="fetch, convert, split or show the data of a task"), words)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="settings, as in seed=1; see docs/settings.md",
    )


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="FILE", help="YAML file, such as examples/lab.yaml")
    _add_config(parser)
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print configuration, tokens, and a forecast of memory and time; do nothing else",
    )
    parser.add_argument(
        "--hardware",
        metavar="NAME",
        help="forecast for this instead of the local machine: H200, H100, A100, RTX4090 or cpu",
    )
    parser.set_defaults(run=train)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="lab, a folder (such as a checkpoint), or a hub name")
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML file of a run")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the metrics to this file, as JSON")
    _add_config(parser)
    parser.set_defaults(run=evaluate)


def _add_export(parser: argparse.ArgumentParser) -> None:
    from resd.training.export import add_arguments

    add_arguments(parser)


def _add_playbook(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    for name, run, text in (
        ("show", show_playbook, "print the entries with their counts"),
        ("export", export_playbook, "print the entries as JSON, by problem in per_example mode"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("source", type=Path, help="a run's folder, or its playbook.jsonl")
        action.set_defaults(run=run)


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="HTML file (default: report.html in the first folder)"
    )
    parser.set_defaults(run=report)


def _add_watch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    parser.add_argument("--port", type=int, default=8777, help="port; 0 takes any free one (default 8777)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.set_defaults(run=watch)


def _add_lab(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    build = actions.add_parser("build", help="pre-train the lab model by its recipe")
    build.set_defaults(run=build_lab)
    if list(words[:2]) == ["lab", "build"]:
        from resd.lab.build import add_arguments

        add_arguments(build)
    measure = actions.add_parser("evaluate", help="evaluate the lab model, role by role")
    measure.add_argument("--model", default="lab", help="lab, or a folder")
    measure.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    measure.add_argument("--samples", type=int, default=4, help="attempts per test problem (default 4)")
    measure.add_argument("--max-batch", type=int, default=64, help="requests per batch (default 64)")
    measure.add_argument("--seed", type=int, default=0)
    measure.add_argument("--output", type=Path, help="write the numbers to this file, as JSON")
    measure.set_defaults(run=evaluate_lab)


def _add_solve(parser: argparse.ArgumentParser) -> None:
    from resd.solve.commands import add_arguments

    add_arguments(parser)


def _add_data(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    if list(words[:1]) == ["data"]:
        from resd.data.commands import add_arguments

        add_arguments(parser)


def _add_experiment(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    if list(words[:1]) == ["experiment"]:
        from resd.experiments.commands import add_arguments

        add_arguments(parser)


def train(args: argparse.Namespace) -> None:
    """`resd train`: check, run, then print the results.

    With several processes under torchrun, all but the first only follow.
    """
    if int(os.environ.get("RANK", "0")) > 0:
        _follow(dry_run=args.dry_run)
        return
    from resd.config import load_config
    from resd.environments.checks import problems_of
    from resd.forecast.outlook import look_ahead
    from resd.training.plan import check_run
    from resd.training.run_folder import check_folder, to_yaml

    if args.hardware and not args.dry_run:
        raise ResdError("--hardware: a run uses the local hardware; add --dry-run for a forecast")
    config = load_config(args.config, args.overrides)
    environment, plan = check_run(config)
    outlook = look_ahead(config, plan, problems_of(environment, "train"), args.hardware)
    if args.dry_run:
        print(to_yaml(config), *plan.lines(config), *outlook.lines(), sep="\n")
        outlook.check()
        return
    outlook.check_standing()
    check_folder(Path(config.output), config, resume=args.resume)
    try:
        _train(config, plan, resume=args.resume)
    except KeyboardInterrupt:
        words = " ".join(["resd train", args.config, *args.overrides, "--resume"])
        print(f"resd: stopped; go on from the newest checkpoint with: {words}", file=sys.stderr)
        raise SystemExit(130) from None


def _follow(*, dry_run: bool) -> None:
    if dry_run:
        return
    from resd.training.follow import follow

    try:
        follow()
    except KeyboardInterrupt:  # the first process prints how to resume
        raise SystemExit(130) from None


def _train(config: RunConfig, plan: Plan, *, resume: bool) -> None:
    from rich.console import Console

    from resd.training.console import adapters_line, console_sink, opening_line, summary_table

    console = Console()
    console.print(opening_line(config, plan), highlight=False, soft_wrap=True)
    from resd.learner.lora import left_out  # imports torch, which takes seconds
    from resd.learner.parallel import joined
    from resd.training.setup import build

    _quiet()
    with joined() as ranks:
        stream = build(config, resume=resume, watch=console_sink(console, plan.updates), ranks=ranks)
        if count := left_out(stream.learner.model, config.lora):
            line = adapters_line(count, stream.learner.model.num_parameters())
            console.print(line, highlight=False, soft_wrap=True)
        try:
            stream.train()
        finally:
            for sink in stream.sinks:
                sink.close()
    console.print("", summary_table(stream.folder), "", sep="\n")
    page = stream.folder / "report.html"
    _write_report([stream.folder], page)
    console.print(f"report: {page}", highlight=False, soft_wrap=True)


def evaluate(args: argparse.Namespace) -> None:
    """`resd evaluate`: held-out results of one model."""
    from resd.config import load_config
    from resd.training.plan import check_evaluation

    config = load_config(args.config, [*args.overrides, f"model={json.dumps(args.model)}"])
    check_evaluation(config)
    _check_file(args.output)
    from rich.console import Console

    from resd.training.console import metrics_table
    from resd.training.setup import evaluate_model

    _quiet()
    metrics = evaluate_model(config).metrics
    Console().print(metrics_table(metrics))
    if args.output:
        with writing(f"--output {args.output}"):
            args.output.write_text(json.dumps(dict(metrics), indent=2) + "\n", encoding="utf-8")


def show_playbook(args: argparse.Namespace) -> None:
    """`resd playbook show`: as text, with sections and counts."""
    for name, playbook in _playbooks(args.source).items():
        heading = [f"# {name}"] if name else []
        print(*heading, playbook.render(counts=True, headers=True) or "(empty)", sep="\n")


def export_playbook(args: argparse.Namespace) -> None:
    """`resd playbook export`: every field of every entry."""
    playbooks = _playbooks(args.source)
    entries = {name: [asdict(entry) for entry in book.entries] for name, book in playbooks.items()}
    print(json.dumps(entries.get("", []) if set(entries) <= {""} else entries, indent=2, ensure_ascii=False))


def report(args: argparse.Namespace) -> None:
    """`resd report`: write a page that compares any number of runs."""
    page = args.output or args.runs[0] / "report.html"
    _check_file(args.output)
    _write_report(args.runs, page)
    print(page)


def watch(args: argparse.Namespace) -> None:
    """`resd watch`: serve the report, updated as the runs go on, until Ctrl-C."""
    from resd.report.watch import watch

    watch(args.runs, args.host, args.port)


def build_lab(args: argparse.Namespace) -> None:
    """`resd lab build`."""
    from resd.lab.build import build

    build(args)


def evaluate_lab(args: argparse.Namespace) -> None:
    """`resd lab evaluate`."""
    from resd.lab.evaluate import evaluate_command

    evaluate_command(args)


def _check_file(path: Path | None) -> None:
    """Check before the work starts that the file can be written. Raises ResdError if not."""
    if path is None:
        return
    if path.is_dir():
        raise ResdError(f"--output {path}: is a folder; name a file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ResdError(f"--output {path}: cannot be written; choose another file in a folder that exists")


def _quiet() -> None:
    """Disable progress bars for loading and saving: they would break up the live table."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _playbooks(source: Path) -> dict[str, Playbook]:
    from resd.context.playbook import load_playbooks

    path = source / "playbook.jsonl" if source.is_dir() else source
    if not path.is_file():
        raise ResdError(
            f"playbook {source}: there is no {path}; give the folder of a run of algorithm resd or ace"
        )
    return load_playbooks(path)


def _write_report(runs: Sequence[Path], page: Path) -> None:
    from resd.report import write_report

    for fault in write_report(runs, page):
        print(f"resd: warning: {fault}", file=sys.stderr)


if __name__ == "__main__":
    main()
