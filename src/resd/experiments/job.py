"""One run of an experiment as files.

DIR/<variant>/<seed>/job.json     the job description
DIR/<variant>/<seed>/log.txt      output of all its starts
DIR/<variant>/<seed>/run/         the run's folder
DIR/<variant>/<seed>/result.json  the results to keep; exists when the run is done
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from resd.experiments.definition import Experiment, Variant
from resd.records import ResdError

JOB, LOG, RESULT, RUN = "job.json", "log.txt", "result.json", "run"
# Settings that do not affect a run's results: its location and its logging.
CIRCUMSTANCES = ("device", "made")


@dataclass(frozen=True)
class Job:
    """`root` is the experiment's folder; `overrides` are all settings except seed, output and device.

    `made` records the command and the commit.
    """

    root: Path
    experiment: str
    variant: Variant
    seed: int
    config: str
    overrides: tuple[str, ...]
    device: str
    made: Mapping[str, str]

    @property
    def folder(self) -> Path:
        return self.root / self.variant.name / f"{self.seed}"

    @property
    def name(self) -> str:
        return f"{self.variant.name}, seed {self.seed}"

    def data(self) -> dict[str, Any]:
        """The content of job.json, which the worker reads."""
        return {
            "experiment": self.experiment,
            "variant": self.variant.name,
            "seed": self.seed,
            "config": self.config,
            "overrides": list(self.overrides),
            "faults": asdict(self.variant.faults),
            "measure": self.variant.measure,
            "effort": asdict(self.variant.effort) if self.variant.effort else None,
            "after": self.variant.after,
            "device": self.device,
            "made": dict(self.made),
        }

    @property
    def done(self) -> bool:
        """Whether its result exists. Raises ResdError for the result of a run with other settings."""
        path = self.folder / RESULT
        if not path.is_file():
            return False
        kept, wanted = read_json(path)["job"], self.data()
        kept["config"], wanted["config"] = Path(kept["config"]).name, Path(self.config).name
        for key in wanted.keys() - set(CIRCUMSTANCES):
            if kept.get(key) != wanted[key]:
                raise ResdError(
                    f"{path}: was run with {key} {kept.get(key)!r}, not {wanted[key]!r}; "
                    "choose another --output, or remove its folder to run it again"
                )
        return True


def make_jobs(
    experiment: Experiment,
    variants: Sequence[Variant],
    seeds: Sequence[int],
    *,
    root: Path,
    config: str,
    overrides: Sequence[str],
    device: str,
    made: Mapping[str, str],
) -> list[Job]:
    """A job for each variant and seed, dependencies first. A variant's own settings take precedence."""

    def job(variant: Variant, seed: int) -> Job:
        settings = (*experiment.common, *overrides, *variant.overrides)
        return Job(root, experiment.name, variant, seed, config, settings, device, made)

    jobs = [
        job(variant, seed)
        for variant in variants
        for seed in (seeds if variant.seed is None else [variant.seed])
    ]
    return sorted(jobs, key=lambda job: bool(job.variant.after))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ResdError for anything else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResdError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ResdError(f"{path}: is not valid JSON; remove or restore it") from error
    if not isinstance(data, dict):
        raise ResdError(f"{path}: is not a JSON object; remove or restore it")
    return data


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write the file atomically."""
    partial = path.with_name(f".{path.name}")
    partial.write_text(json.dumps(data, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
