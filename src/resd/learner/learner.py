"""One optimizer step per global batch of examples, for any objective."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resd.config import DistillationConfig, RunConfig, SRPOConfig
from resd.generation.forward import has_windows
from resd.generation.merging import adapted_layers
from resd.learner import saving
from resd.learner.attention import packing
from resd.learner.layout import build_layout
from resd.learner.lora import own_parameters, own_state
from resd.learner.model import autocast, body, recomputing, resolve_dtype
from resd.learner.offload import Offload, at_home, on_host
from resd.learner.optimizer import Optimizer, StepResult
from resd.learner.parallel import ALONE, Ranks, collected, local, named_whole, release, shard, sum_gradients
from resd.learner.probe import packs
from resd.learner.routing import Route, WorkItem, make_work_items, prompted, route, weighted
from resd.learner.scoring import Distillation, PolicyGradient
from resd.learner.shell import Weights
from resd.learner.student import Score, Student
from resd.learner.teacher import Teacher
from resd.learner.totals import Metrics, Totals, step_metrics, teacher_metrics
from resd.objectives.chunked import Projection, Stats
from resd.objectives.losses import SampledTokens, token_statistics
from resd.objectives.objective import Objective
from resd.objectives.weighting import entropy_weights
from resd.records import TrainingExample

State = dict[str, Any]
Tokens = tuple[int, ...]

# From this number of parameters on, activations take gigabytes.
LARGE = 200_000_000


class Learner:
    """Owns the student's optimizer and the teacher. `version` counts the optimizer steps taken.

    `total_updates` is the maximum number of updates, over which the learning-rate schedule is spread. With
    several `ranks`, each has a learner, every method must be called on all ranks with the same arguments, and
    `model` and the teacher's model hold this rank's shards. Models with adapters stay whole on each rank;
    others may be shells, which get their `weights` here.
    """

    def __init__(
        self,
        model: Any,
        teacher: Teacher,
        config: RunConfig,
        *,
        total_updates: int,
        ranks: Ranks = ALONE,
        weights: Weights | None = None,
    ) -> None:
        self.model, self.teacher, self.config, self.ranks = model, teacher, config, ranks
        self.student = Student(model)
        self.device: torch.device = weights.device if weights else next(model.parameters()).device
        self.compute_dtype = resolve_dtype(config.compute_dtype, self.device)
        self.adapted = bool(adapted_layers(model))
        if ranks.shared and not self.adapted:
            sharding = partial(shard, device=self.device, compute_dtype=self.compute_dtype)
            sharding(self.student)
            if weights:
                weights.distribute(model)
            teacher.shard(self.student, sharding)
        self.packed = packs(config.optimizer.packing, self.student, self.device, self.compute_dtype)
        # A window may end inside the prefix, but all sequences attend to the whole prefix.
        self.prefixed = self.packed and not has_windows(model)
        self.optimizer = Optimizer(model.parameters(), config.optimizer, total_steps=total_updates)
        large = self.device.type == "cuda" and model.num_parameters() > LARGE
        chosen = config.optimizer.activation_checkpointing
        self.checkpointing = large if chosen is None else chosen
        # Separate, because scoring needs the teacher while a generating engine uses the rest of the GPU.
        self.idle_moments = Offload(self._moments if config.optimizer.offload else tuple)
        self.idle_teacher = Offload(self._own_teacher if config.optimizer.offload else tuple)
        self.idle_teacher.park()

    @property
    def version(self) -> int:
        return self.optimizer.steps

    @at_home
    def update(self, examples: Sequence[TrainingExample], objective: Objective) -> Metrics:
        """One step over the whole global batch, in micro-batches that do not affect the result.

        Examples that the objective does not use (`route`) are not forwarded; they count in the normaliser
        according to `loss_aggregation`. Without any used example, or with a non-finite gradient, neither
        student nor teacher changes, and `actor/skipped` is 1.
        """
        routes = route(examples, objective)
        advantages = torch.tensor([example.advantage for example in examples], device=self.device)
        totals = Totals()
        with self._forwards():
            for item in [item for one in routes for item in self._work_items(examples, one, objective)]:
                loss, stats = self._backward(item, advantages, objective)
                totals.add(item, loss, stats)
        totals = totals.over(self.ranks)
        if self.adapted and routes:
            sum_gradients(self.optimizer.parameters, self.ranks)
        idle = StepResult(False, 0.0, self.optimizer.learning_rate())
        result = self.optimizer.step() if routes else idle
        if result.taken:
            self.teacher.update()
        trained = [index for one in routes for index in one.indices]
        metrics = totals.metrics() | step_metrics(result, len(trained), len(examples))
        return metrics | teacher_metrics(examples, routes, totals, objective)

    @torch.no_grad()
    def divergences(self, examples: Sequence[TrainingExample], objective: Objective) -> list[list[float]]:
        """The divergence of teacher and student at each response token; empty for undistilled examples.

        Unweighted. With several ranks, returned on rank 0 only.
        """
        found: dict[int, list[float]] = {}
        with self.idle_teacher.home(), self._forwards():
            for one in (one for one in route(examples, objective) if one.distilled):
                for item in self._work_items(examples, one, objective):
                    values = self._divergence(item, objective)  # idle ones too: all ranks take part
                    indices = [] if item.idle else item.batch.student.example.tolist()
                    for index, value in zip(indices, values, strict=False):
                        found.setdefault(index, []).append(value)
        parts = self.ranks.collect(found) if self.ranks.shared else [found]
        known = {index: values for part in parts for index, values in part.items()}
        return [known.get(index, []) for index in range(len(examples))]

    @torch.no_grad()
    def score(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> list[float]:
        """The teacher's log-probabilities of whole responses, in nats, for `(prompt, response)` tokens.

        At the rollout temperature. Responses must not be empty.
        """
        examples = [prompted(prompt, response) for prompt, response in pairs]
        everything = Route(list(range(len(examples))), with_teacher=True, distilled=True)
        sums = torch.zeros(len(examples), dtype=torch.float64, device=self.device)
        with self.idle_teacher.home(), self._forwards():
            for item in self._work_items(examples, everything, Objective(distillation=DistillationConfig())):
                with autocast(self.device, self.compute_dtype):
                    teacher = self._teach(item)
                stats = token_statistics(teacher, item.tokens, compute_dtype=self._rounded)
                if not item.idle:
                    sums.index_add_(0, item.batch.student.example, stats["logprob"].double())
        return [float(value) for value in self.ranks.total(sums)]

    @torch.no_grad()
    def logprobs(self, prompt: Sequence[int], reply: Sequence[int]) -> Tensor:
        """The student's log-probs of a reply's tokens, `[T]`, at temperature 1.

        If it is sharded, all ranks must call this at once.
        """
        layout = build_layout([prompt], [reply], [0], self.device, packed=self.packed)
        tokens = SampledTokens(layout.targets, torch.ones_like(layout.targets, dtype=torch.float32))

        def score(projection: Projection) -> Tensor:
            return token_statistics([projection], tokens, compute_dtype=self._rounded)["logprob"]

        with self._forwards(), autocast(self.device, self.compute_dtype):
            logprobs: Tensor = self.student(layout, score)
        return logprobs

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The student's full parameters by name, one at a time; only those of its adapters, if it has any."""
        return named_whole(own_parameters(self.model))

    def teacher_weights(self) -> Iterator[tuple[str, Tensor]]:
        """The full parameters of an EMA or frozen teacher, like `weights`."""
        return named_whole(own_parameters(self.teacher.model))

    def model_state(self) -> State:
        """The student's state for a checkpoint. Not copied; with several ranks, on rank 0 only."""
        return self._collected(own_state(self.model, keep_vars=self.ranks.shared))

    def memory(self) -> float:
        """GiB currently in use on this process's GPU, by any process; 0 on a CPU.

        PyTorch caches the memory of an update until it is needed elsewhere, so right after an update this is
        its peak. PyTorch's own counters do not work here: they still count memory that a sleeping vLLM freed.
        """
        if self.device.type != "cuda":
            return 0.0
        free, total = torch.cuda.mem_get_info(self.device)
        return (total - free) / 2**30

    @at_home
    def state_dict(self) -> State:
        """Optimizer, schedule, counters and teacher, like `model_state`; the same for any number of ranks."""
        collected = self._collected(self._state())
        return on_host(collected) if self.config.optimizer.offload else collected

    def _collected(self, state: State) -> State:
        return collected(state, self.ranks) if self.ranks.shared else state

    @at_home
    def load_state_dict(self, state: State) -> None:
        """Load a state from `state_dict`, saved with any number of ranks. Every rank must load it."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.teacher.load_state_dict(state["teacher"])

    @at_home
    def save(self, folder: Path) -> None:
        """Write the state; each rank writes its own shards."""
        saving.write(self._state(), folder, self.ranks)

    def load(self, folder: Path) -> None:
        """Load a state that `save` wrote with any number of ranks."""
        saved = saving.read(folder, mapped=self.ranks.shared)
        self.load_state_dict(saved)
        with self.home():
            saving.read_shards(saved, folder, self._state())

    def _state(self) -> State:
        return {"optimizer": self.optimizer.state_dict(), "teacher": self.teacher.state_dict()}

    @contextmanager
    def home(self) -> Iterator[None]:
        """Within this context, offloaded tensors are on the compute device."""
        with self.idle_moments.home(), self.idle_teacher.home():
            yield

    def _moments(self) -> list[Tensor]:
        return [t for state in self.optimizer.adamw.state.values() for t in state.values() if t.dim()]

    def _own_teacher(self) -> list[Tensor]:
        """The teacher's tensors not shared with the student; none if an engine generates with them."""
        if self.config.context.author == "teacher":
            return []
        own = {local(p.detach()).untyped_storage()._cdata for p in self.model.parameters()}
        teacher = [local(p.detach()) for p in self.teacher.model.parameters()]
        return [p for p in teacher if p.untyped_storage()._cdata not in own]

    @contextmanager
    def _forwards(self) -> Iterator[None]:
        """The context of forwards: packed attention and activation checkpointing."""
        with ExitStack() as stack:
            if self.packed:
                stack.enter_context(packing([self.student.body, body(self.teacher.model)]))
            if self.checkpointing:
                stack.enter_context(recomputing(self.student.body))
            yield
        for network in (self.student, self.teacher.network):
            release(network)

    def _backward(self, item: WorkItem, advantages: Tensor, objective: Objective) -> tuple[Tensor, Stats]:
        """Accumulate one micro-batch's gradients; return its loss and statistics."""
        with autocast(self.device, self.compute_dtype):
            teacher = item.teacher or self._teach(item)
        score = self._score(replace(item, teacher=teacher), advantages, objective)
        with autocast(self.device, self.compute_dtype):
            loss, stats = self.student(item.batch.student, score)
        loss.backward()
        return loss.detach(), stats

    def _divergence(self, item: WorkItem, objective: Objective) -> list[float]:
        with autocast(self.device, self.compute_dtype):
            teacher = item.teacher or self._teach(item)
        unweighted = replace(item.tokens, weights=torch.ones_like(item.tokens.weights))
        item = replace(item, teacher=teacher, tokens=unweighted)
        score = self._score(item, torch.zeros(0), objective)
        with autocast(self.device, self.compute_dtype):
            _, stats = self.student(item.batch.student, score)
        return [float(value) for value in stats["self_distillation/teacher_student_gap"]]

    def _work_items(
        self, examples: Sequence[TrainingExample], one: Route, objective: Objective
    ) -> list[WorkItem]:
        items = make_work_items(
            examples,
            one,
            objective,
            self.config,
            packed=self.packed,
            prefixed=self.prefixed,
            device=self.device,
            ranks=self.ranks,
        )
        return self._by_certainty(items, objective.srpo) if one.distilled and objective.srpo else items

    def _by_certainty(self, items: Sequence[WorkItem], config: SRPOConfig) -> list[WorkItem]:
        """SRPO's weights. Their mean is over all distilled tokens, hence a pass over the teacher first.

        The teacher's hidden states (not logits) are kept for the loss, so that its body runs once.
        """
        with autocast(self.device, self.compute_dtype):
            taught = [replace(item, teacher=self._teach(item)) for item in items]
        entropies = [self._entropy(item)[: 0 if item.idle else None] for item in taught]
        everywhere = self.ranks.gather(torch.cat(entropies))
        weights = entropy_weights(torch.cat(everywhere), beta=config.entropy_beta)
        mine = torch.split(weights, list(map(len, everywhere)))[self.ranks.rank]
        return [
            item if item.idle else weighted(item, own)
            for item, own in zip(taught, torch.split(mine, list(map(len, entropies))), strict=True)
        ]

    def _entropy(self, item: WorkItem) -> Tensor:
        stats = token_statistics(item.teacher, item.tokens, compute_dtype=self._rounded)
        return stats["entropy"]

    def _teach(self, item: WorkItem) -> Sequence[Projection]:
        """The teacher's projections of a micro-batch, just in time; empty for routes without a teacher."""
        return () if item.batch.teacher is None else self.teacher.projections(item.batch.teacher)

    def _score(self, item: WorkItem, advantages: Tensor, objective: Objective) -> Score:
        if item.route.distilled:
            assert objective.distillation is not None
            return Distillation(objective.distillation, item.teacher, item.tokens, self._rounded)
        assert objective.policy is not None
        example = item.batch.student.example
        return PolicyGradient(
            config=objective.policy,
            advantages=advantages[example],
            sequence=example,
            tokens=item.tokens,
            teacher=item.teacher,
            rlsd=objective.rlsd,
            updates=self.version - objective.since,
            compute_dtype=self._rounded,
        )

    @property
    def _rounded(self) -> torch.dtype | None:
        """The dtype that the head's operands are rounded to; None leaves them unchanged."""
        return None if self.compute_dtype == torch.float32 else self.compute_dtype
