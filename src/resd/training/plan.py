"""What a run would do, and whether it can: all that can be known before torch is imported."""

from __future__ import annotations

import importlib.util
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from resd import environments, lab
from resd.config import LoggingConfig, LoRAConfig, RunConfig
from resd.context import prompts
from resd.environments.base import Environment
from resd.environments.checks import problems_of, try_grading
from resd.records import Problem, ResdError
from resd.training.checkpoint import MODEL_FILES
from resd.training.progress import updates_at_most


@dataclass(frozen=True)
class Plan:
    """Counts of a whole run that never leaves a batch early. Tokens are upper bounds of what is generated."""

    problems: int
    batches: int
    dropped: int
    updates: int
    rollouts: int
    rollout_tokens: int
    context_tokens: int
    evaluations: int
    evaluation_samples: int
    evaluation_tokens: int

    def lines(self, config: RunConfig) -> list[str]:
        """For people."""
        return [
            f"stream       {self.batches} batches from {self.problems} problems ({self.dropped} left over)",
            f"updates      {self.updates}, {self.rollouts} rollouts, {self.rollout_tokens:,} tokens at most",
            f"context      {self.context_tokens:,} tokens at most for reflections, tags and curation",
            f"evaluations  {self.evaluations} of {self.evaluation_samples} samples, "
            f"{self.evaluation_tokens:,} tokens at most in all",
            *wrapped(f"writes       {config.output}/: {', '.join(_written(config))}"),
        ]


def _written(config: RunConfig) -> list[str]:
    """Files and folders of the run."""
    return [
        *("config.yaml", "metrics.jsonl", "timing.jsonl"),
        *(["playbook.jsonl"] if config.keeps_playbook else []),
        *(["rollouts/"] if config.logging.rollouts else []),
        *(["tokens/"] if config.logging.token_losses else []),
        *("evaluations/", "checkpoints/", "report.html"),
    ]


def wrapped(line: str) -> list[str]:
    """In lines of 100 columns, what follows indented as the tables of a plan are."""
    return textwrap.wrap(
        line, 100, subsequent_indent=" " * 13, break_long_words=False, break_on_hyphens=False
    )


def check_run(config: RunConfig) -> tuple[Environment, Plan]:
    """The environment and the plan. Raises ResdError for what cannot work, whatever the machine."""
    check_installed(config.logging)
    check_peft(config.lora)
    environment, held_out = check_evaluation(config)
    train = problems_of(environment, "train")
    if len(train) < config.stream.batch_size:
        raise ResdError(
            f"stream.batch_size {config.stream.batch_size}: environment {environment.name} has "
            f"{len(train)} problems to train on; make the batch smaller"
        )
    _check_held_out(config, train, held_out)
    return environment, make_plan(config, len(train), len(held_out))


def check_evaluation(config: RunConfig) -> tuple[Environment, Sequence[Problem]]:
    """The environment and what is evaluated on. Raises ResdError for no such model, or no such problems."""
    check_model(config)
    environment = environments.load(config.environment.name, **config.environment.options)
    held_out = problems_of(environment, config.evaluation.split)
    if not held_out:
        raise ResdError(
            f"evaluation.split {config.evaluation.split}: environment {environment.name} has no such problems"
        )
    try_grading(environment, held_out[0])
    return environment, held_out


def _check_held_out(config: RunConfig, train: Sequence[Problem], held_out: Sequence[Problem]) -> None:
    """Raises ResdError for problems that are trained on and held out, unless that is asked for."""
    shared = {problem.id for problem in train} & {problem.id for problem in held_out}
    if shared and config.evaluation.split != "train":
        raise ResdError(
            f"evaluation.split {config.evaluation.split}: {len(shared)} of {len(held_out)} held-out problems "
            f"are trained on too ({min(shared)}); give the environment a folder with a file for each split, "
            "as `resd data split-tasks` writes it, or set evaluation.split to train"
        )


def make_plan(config: RunConfig, problems: int, held_out: int) -> Plan:
    """Count. `problems` to train on, `held_out` to evaluate on."""
    stream, rollout, evaluation = config.stream, config.rollout, config.evaluation
    batches = problems // stream.batch_size
    updates = updates_at_most(batches, stream)
    tries = max(rollout.n, config.switch.n) if config.switch.to else rollout.n
    rollouts = updates * stream.batch_size * tries
    samples = min(held_out, evaluation.limit or held_out) * evaluation.samples
    evaluations = _evaluations(config, updates)
    return Plan(
        problems=problems,
        batches=batches,
        dropped=problems % stream.batch_size,
        updates=updates,
        rollouts=rollouts,
        rollout_tokens=rollouts * rollout.max_tokens,
        context_tokens=updates * _context_tokens(config),
        evaluations=evaluations,
        evaluation_samples=samples,
        evaluation_tokens=evaluations * samples * rollout.max_tokens,
    )


def check_model(config: RunConfig) -> None:
    """Raises ResdError for a folder without a model, for prompts that cannot be read, and for a wording that
    a lab model does not know."""
    prompted = config.keeps_playbook or config.has_teacher
    style = prompts.configured(config.context) if prompted else None
    folder = model_folder(config.model)
    if folder is None:
        return
    if checkpoints := sorted(file for name in MODEL_FILES for file in folder.glob(f"checkpoints/*/{name}")):
        raise ResdError(f"model {config.model}: is a run; give a checkpoint, as {checkpoints[-1].parent}")
    if not any((folder / name).is_file() for name in MODEL_FILES):
        raise ResdError(
            f"model {config.model}: {folder} holds no config.json; give a folder written by save_pretrained"
        )
    if style is not None:
        lab.check_prompts(folder, style.fingerprint())


def check_installed(logging: LoggingConfig) -> None:
    """Raises ResdError, naming the extra, for a logger that is asked for and not installed."""
    for package, wanted in (("tensorboard", logging.tensorboard), ("wandb", logging.wandb)):
        if wanted and importlib.util.find_spec(package) is None:
            raise ResdError(
                f"logging.{package}: not installed; pip install 'resd[loggers]' or set it to false"
            )


def check_peft(config: LoRAConfig) -> None:
    """Raises ResdError for adapters without the library that has them."""
    if config.rank is not None and importlib.util.find_spec("peft") is None:
        raise ResdError("lora.rank: needs peft; pip install 'resd[lora]' or leave it out")


def model_folder(name: str) -> Path | None:
    """The folder that `name` means; None for a hub name. Raises ResdError for a path to nothing."""
    if name == "lab":
        return lab.weights_path()
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    hub_name = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) and not path.parent.is_dir()
    if path.exists() or not hub_name:
        raise ResdError(f"model {name}: no such folder; give the folder of a saved model, a hub name, or lab")
    return None


def _evaluations(config: RunConfig, updates: int) -> int:
    """Before the first update, after every so many whole batches, and after the last update."""
    every, whole = config.evaluation.every_batches, config.stream.updates_per_batch
    steps = {0, updates}
    if every is not None:
        steps |= set(range(every * whole, updates + 1, every * whole))
    return len(steps)


def _context_tokens(config: RunConfig) -> int:
    """Per update, if every attempt is reflected on or tagged."""
    if not config.keeps_playbook:
        return 0
    context, attempts = config.context, config.stream.batch_size * config.rollout.n
    curations = attempts if context.max_curations is None else min(attempts, context.max_curations)
    return attempts * context.max_reflection_tokens + curations * context.max_curation_tokens
