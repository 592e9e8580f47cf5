"""All runs of an experiment in one JSON file, which is kept in the repository."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resd.experiments.definition import Experiment, Variant
from resd.experiments.faults import Faults
from resd.experiments.job import RESULT, read_json
from resd.records import ResdError


@dataclass(frozen=True)
class Results:
    """`made` lists the different provenances of the runs; `variants` are by name, in their order."""

    experiment: str
    made: Sequence[Mapping[str, Any]]
    variants: Mapping[str, Mapping[str, Any]]
    runs: Sequence[Mapping[str, Any]]

    def of(self, variant: str) -> list[Mapping[str, Any]]:
        """The runs of a variant, by seed."""
        return sorted((run for run in self.runs if run["variant"] == variant), key=lambda run: run["seed"])

    @property
    def groups(self) -> dict[str, list[str]]:
        """Names of the variants with runs, by group, in their order."""
        found: dict[str, list[str]] = {}
        for name, variant in self.variants.items():
            if any(run["variant"] == name for run in self.runs):
                found.setdefault(variant["group"], []).append(name)
        return found


def collect(experiment: Experiment, root: Path) -> dict[str, Any]:
    """The data of a results file from all finished runs below `root`. Raises ResdError for none."""
    found = [read_json(path) for path in sorted(root.glob(f"*/*/{RESULT}"))]
    found = [result for result in found if result["job"]["experiment"] == experiment.name]
    if not found:
        raise ResdError(f"{root}: has no finished run of experiment {experiment.name}")
    made: list[Mapping[str, Any]] = []
    runs = []
    for result in sorted(found, key=lambda result: _place(experiment, result["job"])):
        if result["made"] not in made:
            made.append(result["made"])
        job = result["job"]
        kept = {key: value for key, value in result.items() if key not in ("job", "made")}
        runs.append(
            {
                "variant": job["variant"],
                "seed": job["seed"],
                "made": made.index(result["made"]),
                "settings": [word for word in job["overrides"] if word not in _own(experiment, job)],
                **kept,
            }
        )
    return {
        "experiment": experiment.name,
        "question": experiment.question,
        "config": Path(found[0]["job"]["config"]).name,
        "common": list(experiment.common),
        "made": made,
        "variants": {v.name: described(v) for v in experiment.variants},
        "runs": runs,
    }


def described(variant: Variant) -> dict[str, Any]:
    faults = {} if variant.faults == Faults() else {"faults": vars(variant.faults)}
    budget = {"budget": variant.effort.budget} if variant.effort else {}
    return {
        "label": variant.title,
        "group": variant.group,
        "overrides": list(variant.overrides),
        "why": variant.why,
        **faults,
        **budget,
    }


def save(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON with one run per line, so that diffs are readable."""
    *head, runs = data.items()
    lines = [f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}," for key, value in head]
    rows = ",\n".join(f"  {json.dumps(run, ensure_ascii=False, separators=(',', ':'))}" for run in runs[1])
    try:
        path.write_text("\n".join(["{", *lines, ' "runs": [', rows, " ]", "}", ""]), encoding="utf-8")
    except OSError as error:
        raise ResdError(
            f"--results {path}: cannot be written ({error.strerror}); name a file in a folder that exists"
        ) from error


def load(path: Path) -> Results:
    """Read a results file. Raises ResdError for anything else."""
    data = read_json(path)
    try:
        return Results(data["experiment"], data["made"], data["variants"], data["runs"])
    except KeyError as error:
        raise ResdError(
            f"{path}: has no {error}; give a file written by `resd experiment collect`"
        ) from error


def _place(experiment: Experiment, job: Mapping[str, Any]) -> tuple[int, str, int]:
    names = [variant.name for variant in experiment.variants]
    known = names.index(job["variant"]) if job["variant"] in names else len(names)
    return known, job["variant"], job["seed"]


def _own(experiment: Experiment, job: Mapping[str, Any]) -> set[str]:
    """The settings that belong to a run's definition."""
    for variant in experiment.variants:
        if variant.name == job["variant"]:
            return {*experiment.common, *variant.overrides}
    return set(experiment.common)
