"""The subcommands of `resd experiment`. This module does not import torch: runs are separate processes."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from resd.experiments import catalog, machine
from resd.experiments.catalog import find
from resd.experiments.definition import Experiment
from resd.experiments.job import Job, make_jobs
from resd.experiments.results import collect, load, save
from resd.experiments.runner import Pool
from resd.records import ResdError

REPOSITORY = Path(__file__).parents[3]
RECIPE = Path("examples/lab.yaml")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define list, run, collect, table and docs."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("list", help="the experiments and their variants").set_defaults(run=list_all)
    _add_run(actions.add_parser("run", help="run an experiment's variants, several at a time"))
    gather = actions.add_parser("collect", help="write the finished runs of an experiment to one file")
    _add_name(gather)
    gather.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the runs are")
    gather.add_argument("--results", type=Path, required=True, metavar="FILE", help="JSON to write")
    gather.set_defaults(run=collect_runs)
    show = actions.add_parser("table", help="print the tables of an experiment as markdown")
    show.add_argument("name", metavar="NAME|FILE", help="an experiment, or a results file")
    show.set_defaults(run=print_tables)
    docs = actions.add_parser("docs", help="write docs/experiments.md from the results beside it")
    docs.add_argument("--folder", type=Path, default=Path("docs"), metavar="DIR", help="(default docs)")
    docs.set_defaults(run=write_docs)


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_name(parser)
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="settings of every variant"
    )
    parser.add_argument("--seeds", default="0,1,2,3,4", metavar="N,...", help="(default 0,1,2,3,4)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (default 1)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--output", type=Path, metavar="DIR", help="(default runs/experiments/NAME)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="(default results.json in the output)")
    parser.add_argument("--updates", type=int, metavar="N", help="of each run, in place of the recipe's")
    parser.add_argument("--only", default="", metavar="VARIANT,...", help="these, and what they need")
    parser.add_argument("--config", metavar="FILE", help=f"recipe (default {RECIPE})")
    parser.add_argument("--commit", metavar="NAME", help="to record where there is no git")
    parser.set_defaults(run=run_experiment)


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="one of those that `resd experiment list` names")


def list_all(_: argparse.Namespace) -> None:
    for experiment in catalog.EXPERIMENTS:
        print(f"{experiment.name}: {experiment.question}")
        for variant in experiment.variants:
            settings = " ".join(variant.overrides)
            print(f"  {variant.name:22} {variant.why}{f' ({settings})' if settings else ''}")


def run_experiment(args: argparse.Namespace) -> None:
    """Run unfinished jobs, then collect. Exits with 1 if a run failed, with 130 if it was stopped."""
    experiment, width = find(args.name), _positive("--jobs", args.jobs)
    root = args.output or Path("runs/experiments") / experiment.name
    results = args.results or root / "results.json"
    jobs = _jobs(args, experiment, root)
    _check(jobs)
    pool = Pool(width, lambda line: print(line, flush=True))
    try:
        with terminable():
            pool.run(jobs)
    finally:
        if any(job.done for job in jobs):
            save(results, collect(experiment, root))
            print(f"results: {results}", flush=True)
    if pool.failed:
        print(f"{len(pool.failed)} of {len(jobs)} runs failed; the same command tries them again")
        raise SystemExit(1)


def collect_runs(args: argparse.Namespace) -> None:
    save(args.results, collect(find(args.name), args.output))
    print(args.results)


def print_tables(args: argparse.Namespace) -> None:
    from resd.experiments.tables import tables

    results = load(_results_file(args.name))
    for heading, table in tables(find(results.experiment), results):
        print(*([f"{heading}\n"] if heading else []), table, "", sep="\n")


def write_docs(args: argparse.Namespace) -> None:
    from resd.experiments.page import write

    print(*write(args.folder), sep="\n")


def _results_file(name: str) -> Path:
    """The results file. Raises ResdError if there is none."""
    places = [
        Path(name),
        Path("runs/experiments", name, "results.json"),
        Path("docs/experiments", f"{name}.json"),
    ]
    for path in places:
        if path.is_file():
            return path
    raise ResdError(f"results {name}: there is no {', no '.join(map(str, places))}; run the experiment first")


def _jobs(args: argparse.Namespace, experiment: Experiment, root: Path) -> list[Job]:
    updates = [] if args.updates is None else [f"stream.max_updates={_positive('--updates', args.updates)}"]
    return make_jobs(
        experiment,
        experiment.chosen([name for name in args.only.split(",") if name]),
        _seeds(args.seeds),
        root=root,
        config=args.config or recipe(),
        overrides=[*updates, *args.overrides],
        device=args.device,
        made={"command": spoken(args), "commit": args.commit or machine.commit()},
    )


def _check(jobs: Sequence[Job]) -> None:
    """Raises ResdError for invalid settings before the first run begins."""
    from resd.config import load_config
    from resd.training.plan import check_run

    for settings in dict.fromkeys((job.config, job.overrides) for job in jobs):
        check_run(load_config(settings[0], list(settings[1])))


def spoken(args: argparse.Namespace) -> str:
    """The command without machine-specific folders and files."""
    words = ["resd experiment run", args.name, *args.overrides, f"--seeds {args.seeds}"]
    words += [f"--updates {args.updates}"] if args.updates is not None else []
    words += [f"--only {args.only}"] if args.only else []
    words += [f"--config {Path(args.config).name}"] if args.config else []
    return " ".join([*words, f"--jobs {args.jobs}"])


def recipe() -> str:
    """The lab's recipe. Raises ResdError if it does not exist, as outside a clone of the repository."""
    for path in (RECIPE, REPOSITORY / RECIPE):
        if path.is_file():
            return str(path)
    raise ResdError(
        f"{RECIPE}: does not exist; give a recipe with --config, or work in a clone of the project"
    )


def _seeds(text: str) -> list[int]:
    try:
        return list(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError as error:
        raise ResdError(f"--seeds {text}: give whole numbers, as in 0,1,2") from error


def _positive(option: str, value: int) -> int:
    if value < 1:
        raise ResdError(f"{option} {value}: give at least 1")
    return value


@contextmanager
def terminable() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C: batch systems send it at the time limit."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
