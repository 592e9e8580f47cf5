"""docs/experiments.md and its figures, generated from the results files alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from resd.experiments.catalog import EXPERIMENTS, find
from resd.experiments.definition import Experiment
from resd.experiments.figures import figures
from resd.experiments.results import Results, load
from resd.experiments.tables import tables, variants_table
from resd.records import ResdError

PAGE, FOLDER = "experiments.md", "experiments"
INTRODUCTION = """# Experiments

The paper's comparisons, and some of our own, with the lab model on Manufactoria-HAS. Tables and figures are
made by `resd experiment docs` from the results files in `docs/experiments`, and no number in them is typed by
hand. The paragraphs between them are ours.

**The lab model is a calibrated instrument and no evidence about real models.** What it can learn, and from
what, was built in ([the lab model](lab-model.md)). What can be read here: whether the program does what it
should, how algorithms differ on one well-understood task, and what a change breaks. A ranking here is no
ranking elsewhere.

## How to run them

```sh
resd experiment list
resd experiment run poison --seeds 0,1,2,3,4 --jobs 2 --results poison.json
resd experiment table poison.json
```

Each variant is [examples/lab.yaml](../examples/lab.yaml) with a few settings changed, run once for each seed,
in a process of its own, `--jobs` at a time. The same command goes on where one was stopped, and tries again
what failed; logs and journals lie in `runs/experiments/NAME/VARIANT/SEED`. `--updates`, `--only` and any
`key=value` make runs smaller; `--config` takes another recipe, with a model of your own. `resd experiment
collect` writes the finished runs below a folder to one file.

## How to read the tables

- "Held out at the end": share of held-out problems solved after the last update, mean of 4 samples at
  temperature 1.
- "Area": under the curve of held-out success over updates, by trapezoids, as a share of solving all from the
  start.
- "Updates to 50 %": on straight lines between evaluations; in brackets how many seeds got there, if not all.
- Each number is a mean over seeds ± its standard error; bands in figures are the same.
- Differences are taken seed by seed, then averaged. "Beyond two standard errors" is that and no more: where
  there is no difference, three seeds say yes in 18 of 100 rows, and five in 12.

The words: a *trial* is a failed attempt, as the teacher is shown it. The *feedback* says which tests failed.
A *reflection* says why, and names lessons; *curation* puts lessons into the playbook. *Tags* are the
reflector's votes on entries. The *solution buffer* keeps solved attempts of earlier rounds. *Success weights*
make distillation stronger where few attempts succeed. *SDPO+ss* is SDPO that learns from its own successes
too.
"""
SUMMARY = "## In short\n\n| question | answer |\n| --- | --- |"


def page(folder: Path) -> dict[Path, str]:
    """The files to write, by path in the documentation's `folder`. Raises ResdError for bad results."""
    found = results_below(folder)
    files: dict[Path, str] = {}
    words = {experiment.name: said(folder, experiment) for experiment in EXPERIMENTS}
    parts = [INTRODUCTION, summary(words)]
    for experiment in (experiment for experiment in EXPERIMENTS if experiment.name in found):
        results = found[experiment.name]
        parts += list(section(experiment, results, words[experiment.name]))
        files |= {Path(FOLDER, f"{name}.svg"): svg for name, _, svg in figures(experiment, results)}
    missing = [experiment for experiment in EXPERIMENTS if experiment.name not in found]
    return {Path(PAGE): "\n".join([*parts, *planned(missing)]), **files}


def write(folder: Path) -> list[Path]:
    """Write the files; delete other figures, which belong to older results."""
    files = page(folder)
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    for path in (folder / FOLDER).glob("*.svg"):
        if path.relative_to(folder) not in files:
            path.unlink()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in files]


def results_below(folder: Path) -> dict[str, Results]:
    """Results by experiment. Raises ResdError for two files of one experiment, and for an unknown one."""
    found: dict[str, Results] = {}
    for path in sorted((folder / FOLDER).glob("*.json")):
        results = load(path)
        find(results.experiment)
        if results.experiment in found:
            raise ResdError(f"{path}: there is another file of experiment {results.experiment}; remove one")
        found[results.experiment] = results
    return found


def said(folder: Path, experiment: Experiment) -> list[str]:
    """The interpretation of the results: paragraphs of a file beside them, the short answer first."""
    path = folder / FOLDER / f"{experiment.name}.md"
    return path.read_text(encoding="utf-8").strip().split("\n\n") if path.is_file() else []


def summary(words: Mapping[str, Sequence[str]]) -> str:
    answered = ((find(name), paragraphs[0]) for name, paragraphs in words.items() if paragraphs)
    rows = (
        f"| [{experiment.title}](#{experiment.title.lower().replace(' ', '-')}): {experiment.question} "
        f"| {' '.join(answer.split())} |"
        for experiment, answer in answered
    )
    return "\n".join([SUMMARY, *rows, ""])


def planned(experiments: Sequence[Experiment]) -> Iterator[str]:
    """The section on experiments without results."""
    if experiments:
        yield "## Without results so far\n"
    for experiment in experiments:
        yield f"- {experiment.question} `resd experiment run {experiment.name}`"
    if experiments:
        yield ""


def section(experiment: Experiment, results: Results, words: Sequence[str]) -> Iterator[str]:
    """Markdown of one experiment, in paragraphs."""
    yield f"## {experiment.title}\n"
    for paragraph in (experiment.question, experiment.notes, *words):
        if paragraph:
            yield f"{paragraph}\n"
    for heading, table in tables(experiment, results):
        yield from ([f"### {heading}\n"] if heading else [])
        yield f"{table}\n"
    for name, words, _ in figures(experiment, results):
        yield f"![{words}]({FOLDER}/{name}.svg)\n"
    yield f"<details><summary>The variants</summary>\n\n{variants_table(results)}\n\n</details>\n"
    for made in results.made:
        yield f"{provenance(made)}\n"


def provenance(made: Mapping[str, object]) -> str:
    return f"Made with `{made['command']}` at commit {made['commit']} on {made['machine']}, {made['date']}."
