"""The training loop: Algorithm 1 of the RESD paper (arXiv 2605.12741), for any algorithm and engine.

The stream of problems is seen once. Each batch is used for up to K updates and never revisited.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from resd.algorithms.base import Algorithm
from resd.config import RunConfig
from resd.context.seeding import derive_seed
from resd.context.teacher_prompt import TeacherPrompt
from resd.context.updater import ContextUpdater
from resd.environments.base import Environment
from resd.generation.engine import GenerationEngine
from resd.generation.merging import adapted_layers
from resd.learner.learner import Learner
from resd.learner.lora import save_adapters
from resd.objectives.objective import Objective
from resd.records import Attempt, Problem, TrainingExample
from resd.training import checkpoint, journal
from resd.training.clock import Clock
from resd.training.evaluation import evaluate, sample_rows
from resd.training.leader import Leader
from resd.training.lengths import crowded_out
from resd.training.metrics import (
    distillation_metrics,
    mean_rewards,
    memory,
    rollout_metrics,
    timings,
    token_metrics,
)
from resd.training.progress import Progress, advance, finished, improved_fraction
from resd.training.rollout import Sampling, roll_out
from resd.training.rows import step_rows, token_rows
from resd.training.sinks import Record, Sink, write_all

_log = logging.getLogger(__name__)


@dataclass
class Stream:
    """One run: its parts and its progress. `training/setup.py` builds it.

    `context` is None for algorithms without a context engine. `author` decodes for it with the teacher's
    weights; None if the student's `engine` does. After a switch, `successor` replaces `algorithm` and the
    context engine.
    """

    config: RunConfig
    folder: Path
    batches: Sequence[Sequence[Problem]]
    environment: Environment
    tokenizer: Any
    engine: GenerationEngine
    author: GenerationEngine | None
    context: ContextUpdater | None
    algorithm: Algorithm
    successor: Algorithm | None
    learner: Learner | Leader
    sinks: Sequence[Sink]
    progress: Progress = field(default_factory=Progress)
    lock: Any = None  # keeps other processes out of the folder
    warned: bool = False  # about attempts that teach nothing

    def train(self) -> None:
        """Run from the current position to the end of the stream, or to `max_updates`."""
        if self.progress.evaluated < 0:
            self.evaluate()
        while not self.finished:
            self.update(self.batches[self.progress.batch])
            if self.evaluation_due:
                self.evaluate()
            if self.checkpoint_due:
                self.save()

    def update(self, problems: Sequence[Problem]) -> None:
        """One round on a batch: roll out, update the context, update the weights."""
        clock, step = Clock(), self.progress.step + 1
        algorithm, engaged = self.acting
        with clock.measure("step"):
            with clock.around("switch", self.engine.awake()):
                attempts = self.roll_out(problems, step, clock)
                with clock.measure("context"), self.author.awake() if self.author else nullcontext():
                    context = engaged.update(attempts, step) if engaged else None
                held = self.learner.memory()
            prompts = algorithm.teacher_prompts(attempts, context)
            self.warn_crowded_out(attempts, prompts, algorithm.objective)
            examples = algorithm.examples(attempts, prompts)
            objective = replace(algorithm.objective, since=self.progress.switched or 0)
            self.keep_divergences(attempts, examples, objective)
            with clock.measure("update"):
                learned = self.learner.update(examples, objective)
            held = max(held, self.learner.memory())
            with clock.measure("switch"):
                self.load_weights()
        metrics = {
            **rollout_metrics(attempts),
            **distillation_metrics(attempts, prompts, examples),
            **token_metrics(attempts, context),
            **(context.metrics if context else {}),
            **learned,
        }
        if self.config.logging.rollouts:
            rows = step_rows(attempts, prompts, examples, context)
            journal.write(self.folder / journal.ROLLOUTS / f"{step}.jsonl", rows)
        self.finish_update(attempts, metrics, timings(clock.seconds) | memory(held))

    def roll_out(self, problems: Sequence[Problem], step: int, clock: Clock) -> list[Attempt]:
        """`rollout.n` graded attempts at each problem, with the current weights."""
        rollout, switch = self.config.rollout, self.config.switch
        n = rollout.n if self.progress.switched is None else switch.n
        _, engaged = self.acting
        return roll_out(
            problems,
            self.engine,
            self.environment,
            self.tokenizer,
            Sampling(n, rollout.max_tokens, rollout.temperature, rollout.top_p, rollout.thinking),
            seed=lambda problem, sample: derive_seed(self.config.seed, "rollout", step, problem.id, sample),
            clock=clock,
            prompt_ids=engaged.rollout_prompt if engaged else None,
        )

    def warn_crowded_out(
        self, attempts: Sequence[Attempt], prompts: Sequence[TeacherPrompt | None], objective: Objective
    ) -> None:
        """Warn once if attempts teach nothing for lack of room: their loss of 0 looks like success."""
        if self.warned or not (objective.distillation or objective.rlsd):
            return
        if share := crowded_out(attempts, prompts, self.config.context):
            self.warned = True
            _log.warning(
                "resd: warning: update %d: %.0f %% of attempts have no teacher prompt and teach nothing, for "
                "their question leaves no room for anything else; raise context.max_prompt_tokens, or lower "
                "rollout.max_tokens where both together exceed the model's positions",
                self.progress.step + 1,
                100 * share,
            )

    def keep_divergences(
        self, attempts: Sequence[Attempt], examples: Sequence[TrainingExample], objective: Objective
    ) -> None:
        """Journal the divergence of teacher and student at each token of a few responses."""
        taught = [
            i for i, example in enumerate(examples) if example.teacher_prompt_ids and example.response_ids
        ]
        chosen = taught[: self.config.logging.token_losses]
        if chosen and objective.distillation:
            values = self.learner.divergences([examples[i] for i in chosen], objective)
            rows = token_rows([attempts[i] for i in chosen], values, self.tokenizer)
            journal.write(self.folder / journal.TOKENS / f"{self.progress.step + 1}.jsonl", rows)

    def load_weights(self) -> None:
        """Load the current weights into the engines."""
        learner = self.learner
        self.engine.load_weights(learner.weights())
        if self.author:
            self.author.load_weights(learner.teacher_weights())

    def finish_update(
        self, attempts: Sequence[Attempt], metrics: dict[str, float], timing: Mapping[str, float]
    ) -> None:
        """Advance the progress and log the update."""
        before, scores = self.progress, mean_rewards(attempts)
        self.progress = advance(before, scores, self.config.stream)
        switch = self.config.switch
        if switch.to and before.switched is None and metrics["train/solved/mean"] >= switch.success:
            self.progress = replace(self.progress, switched=self.learner.version)
        metrics["training/switched"] = float(before.switched is not None)
        if self.context:
            journal.append(self.folder / journal.PLAYBOOK, self.context.drain_journal())
        improved = improved_fraction(scores, before.scores)
        place = {"step": self.progress.step, "batch": before.batch, "round": before.round}
        metrics |= {f"training/{name}": float(value) for name, value in place.items()}
        metrics |= {} if improved is None else {"training/improved_fraction": improved}
        write_all(self.sinks, Record("update", **place, metrics=metrics, timing=timing))

    def evaluate(self) -> None:
        """Evaluate the current weights on held-out problems."""
        clock, step, shown = Clock(), self.progress.step, self.config.evaluation.playbook
        with clock.measure("evaluation"), self.engine.awake():
            result = evaluate(
                self.engine,
                self.environment,
                self.tokenizer,
                self.config.evaluation,
                self.config.rollout,
                prompt_ids=self.context.held_out_prompt if shown and self.context else None,
            )
        self.progress = replace(self.progress, evaluated=step)
        journal.write(self.folder / journal.EVALUATIONS / f"{step}.jsonl", sample_rows(result.attempts))
        write_all(self.sinks, Record("evaluation", step, result.metrics, timings(clock.seconds)))

    def save(self) -> Path:
        """Write an atomic checkpoint, from which the run resumes as if it had never stopped."""
        state = checkpoint.RunState(
            progress=self.progress,
            context=self.context.state_dict() if self.context else None,
            journals=journal.lengths(self.folder),
        )
        weights = self.learner.model_state()
        write_model = partial(save_model, self.learner.model, weights, self.tokenizer)
        root, keep = self.folder / "checkpoints", self.config.checkpoint.keep
        return checkpoint.save(root, state, write_model, self.learner.save, keep)

    @property
    def acting(self) -> tuple[Algorithm, ContextUpdater | None]:
        """The algorithm of the next update, and its context engine."""
        if self.progress.switched is not None and self.successor:
            return self.successor, None
        return self.algorithm, self.context

    @property
    def finished(self) -> bool:
        return finished(self.progress, len(self.batches), self.config.stream)

    @property
    def evaluation_due(self) -> bool:
        """Due after the last update, and after every `every_batches` batches."""
        every, now = self.config.evaluation.every_batches, self.progress
        left_batch = now.round == 0
        return self.finished or (every is not None and left_batch and now.batch % every == 0)

    @property
    def checkpoint_due(self) -> bool:
        return self.finished or self.progress.step % self.config.checkpoint.every_updates == 0


def save_model(model: Any, weights: Mapping[str, Any], tokenizer: Any, folder: Path) -> None:
    """Write a folder that `from_pretrained` loads; for a model with adapters, only the adapters."""
    if adapted_layers(model):
        save_adapters(model, weights, folder)
    else:
        model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)
