"""The tables of an experiment as markdown, from its results alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from resd.experiments import readings
from resd.experiments.definition import Experiment
from resd.experiments.readings import Reading, Run
from resd.experiments.results import Results
from resd.experiments.statistics import Estimate, attempts_for, estimate, paired

NOTHING = "\N{EN DASH}"
NOT_REACHED = "not reached"
# As `resd lab evaluate` names them, and in words.
SKILLS = {
    "unconditioned/success": "solves problems",
    "playbook/success": "solves what was failed, shown a playbook of right lessons",
    "everything/success": "and shown attempt, feedback and its reflection as well",
    "reflector/names_a_broken_rule": "reflections name a rule that was broken",
    "reflector/tags_right": "tags of reflections that are right",
    "tagger/tags_right": "tags on successes that are right",
    "curator/exact": "curations that add what is missing, word for word",
}


@dataclass(frozen=True)
class Column:
    """A reading of each run and the format of its mean: `scale` is 100 for percentages.

    With `reached`, a run without a value did not reach the goal, and is counted.
    """

    heading: str
    reading: Reading
    scale: float = 1.0
    digits: int = 1
    reached: bool = False

    def cell(self, runs: Sequence[Run]) -> str:
        values = [value for run in runs if (value := self.reading(run)) is not None]
        if self.reached and not values:
            return NOT_REACHED
        text = self.written(estimate(values))
        return f"{text} ({len(values)} of {len(runs)})" if self.reached and len(values) < len(runs) else text

    def written(self, value: Estimate | None, sign: str = "") -> str:
        if value is None:
            return NOTHING
        form = f"{sign},.{self.digits}f"
        error = "" if value.error is None else f" ± {self.scale * value.error:,.{self.digits}f}"
        return f"{self.scale * value.mean:{form}}{error}"


FINAL = Column("held out at the end, %", readings.final, 100)
RESULTS = (
    FINAL,
    Column("area, %", readings.curve_area, 100),
    Column("updates to 50 %", readings.updates_to_half, reached=True),
)
COSTS = (
    Column("rollouts to 50 %", readings.cost_to(0.5, "rollouts"), digits=0, reached=True),
    Column("thousand tokens to 50 %", readings.cost_to(0.5, "tokens"), 1e-3, 0, reached=True),
    Column("to 90 %", readings.cost_to(0.9, "tokens"), 1e-3, 0, reached=True),
    Column("to 95 %", readings.cost_to(0.95, "tokens"), 1e-3, 0, reached=True),
    Column("seconds to 50 %", readings.cost_to(0.5, "seconds"), digits=0, reached=True),
    Column("thousand tokens in all", readings.cost_in_all("tokens"), 1e-3, 0),
    Column("seconds in all", readings.cost_in_all("seconds"), digits=0),
)
WRONG = (
    Column("wrong lessons added", readings.wrong("added")),
    Column("there at the end", readings.wrong("left")),
    Column("life of those removed, updates", readings.mean_life),
    Column("updates that show one, %", readings.share_shown, 100, 0),
)


def tables(experiment: Experiment, results: Results) -> list[tuple[str, str]]:
    """(heading, markdown) of each table; "" if no heading is needed."""
    if any("discovery" in run for run in results.runs):
        return [("", discovery_table(experiment, results)), pace_table(experiment, results)]
    found = [
        (group, group_table(results, names, reference_of(experiment, results, names), RESULTS, FINAL))
        for group, names in with_reference(experiment, results)
    ]
    if experiment.costs:
        columns = [c for c in COSTS if any(c.reading(run) is not None for run in results.runs)]
        found.append(("What it costs", plain_table(results, columns)))
    if any(run.get("wrong_lessons", {}).get("added") for run in results.runs) and experiment.lives:
        found.append(("Wrong lessons", plain_table(results, WRONG)))
    if any("skills" in run for run in results.runs):
        skills = [Column(words, readings.skill(name), 100) for name, words in SKILLS.items()]
        found.append(("Skills, %", turned(plain_table(results, skills))))
    return found


def with_reference(experiment: Experiment, results: Results) -> Iterator[tuple[str, list[str]]]:
    """(group, variants): the reference, if there is one, is prepended to each group that lacks it."""
    groups, reference = results.groups, experiment.reference
    present = any(reference in names for names in groups.values())
    for group, names in groups.items():
        lead = [reference] if present and reference not in names else []
        if names != [reference] or len(groups) == 1:
            yield group, [*lead, *names]


def reference_of(experiment: Experiment, results: Results, names: Sequence[str]) -> str:
    return experiment.reference if experiment.reference in names else names[0]


def group_table(
    results: Results, names: Sequence[str], reference: str, columns: Sequence[Column], judged: Column
) -> str:
    """A row per variant: means over seeds, and the paired difference of `judged` from the reference."""
    headings = [
        *("variant", "seeds", *(column.heading for column in columns)),
        f"difference from {results.variants[reference]['label']}",
        "beyond two standard errors",
    ]
    rows = []
    for name in names:
        runs = results.of(name)
        cells = [label(results, name), str(len(runs)), *(column.cell(runs) for column in columns)]
        rows.append([*cells, *difference(results, name, reference, judged)])
    return markdown(headings, rows)


def difference(results: Results, name: str, reference: str, column: Column) -> tuple[str, str]:
    """Mean and standard error over the seeds that both have, and whether the mean exceeds two errors."""
    if name == reference:
        return NOTHING, NOTHING
    mine, others = by_seed(results, name, column), by_seed(results, reference, column)
    found = paired(mine, others)
    if found is None:
        return NOTHING, NOTHING
    verdict = {None: "one seed", True: "yes", False: "no"}[found.decisive]
    return column.written(found, "+"), verdict


def by_seed(results: Results, name: str, column: Column) -> dict[int, float]:
    found = {run["seed"]: column.reading(run) for run in results.of(name)}
    return {seed: value for seed, value in found.items() if value is not None}


def plain_table(results: Results, columns: Sequence[Column]) -> str:
    """Means over seeds, one row per variant, with its group if there are several."""
    groups = results.groups
    several = len(groups) > 1 and all(groups)
    rows = [
        [
            *([group] if several else []),
            label(results, name),
            *(column.cell(results.of(name)) for column in columns),
        ]
        for group, names in groups.items()
        for name in names
    ]
    return markdown([*([""] if several else []), "variant", *(c.heading for c in columns)], rows)


def discovery_table(experiment: Experiment, results: Results) -> str:
    """Hard problems: the share solved within a sixteenth, a quarter, and all of the attempts."""
    names = discovering(results)
    most = max(int(results.variants[name]["budget"]) for name in names)
    solved = [
        Column(f"solved within {n}, %", readings.solved_within(n), 100, 0)
        for n in (max(1, most // 16), max(1, most // 4), most)
    ]
    attempts = Column("attempts", readings.attempts_needed, digits=0)
    columns = [*solved, Column("thousand tokens", readings.tokens_needed, 1e-3, 1), attempts]
    return group_table(results, names, reference_of(experiment, results, names), columns, attempts)


def pace_table(experiment: Experiment, results: Results) -> tuple[str, str]:
    """Heading and table: attempts that each method needs to solve as much as the reference with all of its.

    The problems of all seeds are pooled.
    """
    names = discovering(results)
    reference = reference_of(experiment, results, names)
    firsts = {name: [n for run in results.of(name) for n in readings.first_successes(run)] for name in names}
    share = sum(n is not None for n in firsts[reference]) / len(firsts[reference])
    pace = {name: attempts_for(firsts[name], share) for name in names}
    slowest = pace[reference] or 1
    rows = [
        [label(results, name), f"{n:,}" if n else NOT_REACHED, f"{n / slowest:.2f}" if n else NOTHING]
        for name, n in pace.items()
    ]
    heading = f"Attempts until {share:.0%} are solved, as by {label(results, reference)} in the end"
    return heading, markdown(["variant", "attempts", "share of the reference's"], rows)


def discovering(results: Results) -> list[str]:
    """The variants that worked on hard problems."""
    return [name for name in results.variants if any("discovery" in run for run in results.of(name))]


def label(results: Results, name: str) -> str:
    return str(results.variants[name]["label"])


def variants_table(results: Results) -> str:
    """A table that describes each variant."""
    rows = []
    for name, variant in results.variants.items():
        if results.of(name):
            settings = " ".join(f"`{word}`" for word in variant["overrides"])
            faults = "".join(f" {key}={value:g}" for key, value in variant.get("faults", {}).items() if value)
            rows.append([variant["group"], variant["label"], f"{settings}{faults}", variant["why"]])
    headings = ["", "variant", "settings", "why"]
    if not any(row[0] for row in rows):
        headings, rows = headings[1:], [row[1:] for row in rows]
    return markdown(headings, rows)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def turned(table: str) -> str:
    """The table transposed."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    headings, *rows = zip(*(line for line in lines if set(line) != {"---"}), strict=True)
    return markdown(headings, rows)
