"""What a run would do, and all checks that are possible before torch is imported."""

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
    """Counts for a whole run that never leaves a batch early. Tokens are upper bounds on generation."""

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
    """Files and folders that the run writes."""
    return [
        *("config.yaml", "metrics.jsonl", "timing.jsonl"),
        *(["playbook.jsonl"] if config.keeps_playbook else []),
        *(["rollouts/"] if config.logging.rollouts else []),
        *(["tokens/"] if config.logging.token_losses else []),
        *("evaluations/", "checkpoints/", "report.html"),
    ]


def wrapped(line: str) -> list[str]:
    """Wrap to lines of 100 columns, continuation lines indented like the plan's tables."""
    return textwrap.wrap(
        line, 100, subsequent_indent=" " * 13, break_long_words=False, break_on_hyphens=False
    )


def check_run(config: RunConfig) -> tuple[Environment, Plan]:
    """The environment and the plan. Raises ResdError for a run that cannot work on any machine."""
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
    """The environment and the evaluation problems. Raises ResdError if the model or problems do not exist."""
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
    """Raises ResdError if held-out problems are also trained on, unless that is requested."""
    shared = {problem.id for problem in train} & {problem.id for problem in held_out}
    if shared and config.evaluation.split != "train":
        raise ResdError(
            f"evaluation.split {config.evaluation.split}: {len(shared)} of {len(held_out)} held-out problems "
            f"are trained on too ({min(shared)}); give the environment a folder with a file for each split, "
            "as `resd data split-tasks` writes it, or set evaluation.split to train"
        )


def make_plan(config: RunConfig, problems: int, held_out: int) -> Plan:
    """Compute the counts for `problems` training and `held_out` evaluation problems."""
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
    """Raises ResdError for a folder without a model, for unreadable prompts, and for a wording unknown to a
    lab model."""
    prompted = config.keeps_playbook or config.has_teacher
    style = prompts.configured(config.context) if prompted else None
    folder = model_folder(config.model)
    if folder is None:
        return
    if checkpoints := sorted(file for name in MODEL_FILES for file in folder.glob(f"checkpoints/*/{name}")):
        raise ResdError(f"model {config.model}: is a run; give a checkpoint, e.g. {checkpoints[-1].parent}")
    if not any((folder / name).is_file() for name in MODEL_FILES):
        raise ResdError(
            f"model {config.model}: {folder} holds no config.json; give a folder written by save_pretrained"
        )
    if style is not None:
        lab.check_prompts(folder, style.fingerprint())


def check_installed(logging: LoggingConfig) -> None:
    """Raises ResdError, naming the extra, for a requested logger that is not installed."""
    for package, wanted in (("tensorboard", logging.tensorboard), ("wandb", logging.wandb)):
        if wanted and importlib.util.find_spec(package) is None:
            raise ResdError(
                f"logging.{package}: not installed; pip install 'resd[loggers]' or set it to false"
            )


def check_peft(config: LoRAConfig) -> None:
    """Raises ResdError if adapters are requested but `peft` is not installed."""
    if config.rank is not None and importlib.util.find_spec("peft") is None:
        raise ResdError("lora.rank: needs peft; pip install 'resd[lora]' or leave it out")


def model_folder(name: str) -> Path | None:
    """The folder that `name` refers to; None for a hub name. Raises ResdError for a nonexistent path."""
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
    """Evaluations before the first update, after every `every_batches` batches, and after the last update."""
    every, whole = config.evaluation.every_batches, config.stream.updates_per_batch
    steps = {0, updates}
    if every is not None:
        steps |= set(range(every * whole, updates + 1, every * whole))
    return len(steps)


def _context_tokens(config: RunConfig) -> int:
    """Context tokens per update, if every attempt is reflected on or tagged."""
    if not config.keeps_playbook:
        return 0
    context, attempts = config.context, config.stream.batch_size * config.rollout.n
    curations = attempts if context.max_curations is None else min(attempts, context.max_curations)
    return attempts * context.max_reflection_tokens + curations * context.max_curation_tokens
