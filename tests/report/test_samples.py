"""How many problems a held-out number is of, and how certain it is."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev

import pytest

from resd.report.results import Results, results
from resd.report.runs import load_run, load_runs
from resd.report.samples import error_over_problems, samples, sizes

from .conftest import samples as rows_of
from .conftest import write_lines

MakeRun = Callable[..., Path]

# Of 4 samples each, as the fixture has it at update 4.
SOLVED = [1.0, 0.25, 0.5, 0.0]


def log(folder: Path, **metrics: float) -> None:
    """Let the last evaluation say this."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows[-1] |= {f"val/toy/{name.replace('__', '/')}": value for name, value in metrics.items()}
    write_lines(folder / "metrics.jsonl", rows)


def error_of(values: list[float]) -> float:
    return stdev(values) / len(values) ** 0.5


def test_the_error_is_that_of_a_mean_over_problems(make_run: MakeRun) -> None:
    run = load_run(make_run(), "run")
    found = samples(run, 4)
    assert found is not None
    assert (found.size, found.solved) == ("4 problems, 4 samples of each", [(4, 4), (1, 4), (2, 4), (0, 4)])
    assert error_over_problems(run, 4, "solved/mean", fmean(SOLVED)) == pytest.approx(error_of(SOLVED))
    assert error_over_problems(run, 4, "reward/best", 0.75) == pytest.approx(error_of([1, 1, 1, 0]))


def test_no_error_where_the_samples_are_not_those_of_the_number(make_run: MakeRun) -> None:
    folder = make_run()
    run = load_run(folder, "run")
    assert error_over_problems(run, 4, "solved/mean", 0.4) is None
    assert error_over_problems(run, 4, "response_length/mean", 0.4375) is None
    assert error_over_problems(run, 3, "solved/mean", 0.4375) is None
    write_lines(folder / "evaluations/4.jsonl", rows_of({"a": 2}))
    assert error_over_problems(run, 4, "solved/mean", 0.5) is None  # of one problem


def test_sizes_are_told_once_where_they_are_the_same(make_run: MakeRun) -> None:
    folders = [make_run("a"), make_run("b")]
    assert sizes(load_runs(folders)) == "4 problems, 4 samples of each"
    write_lines(folders[1] / "evaluations/4.jsonl", [*rows_of({"a": 1}), *rows_of({"b": 1}, 2)])
    assert sizes(load_runs(folders)) == "a: 4 problems, 4 samples of each; b: 2 problems"
    assert sizes(load_runs([make_run("c", evaluated=())])) == ""


def test_the_table_shows_it(make_run: MakeRun) -> None:
    folder = make_run()
    log(folder, **{"reward__mean@2": 0.4375})
    table = results(load_run(folder, "run"))
    assert isinstance(table, Results)
    by_key = {metric.key: cells for metric, cells, _ in table.rows}
    first, _, last = by_key["val/toy/reward/mean@2"]
    assert (first.error, last.mean, last.error) == ("", "0.438", f"± {error_of(SOLVED):.3f}")
    assert not any(cell.error for cell in by_key["val/toy/test_cases/mean@2"])
