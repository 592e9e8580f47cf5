"""The interface of an algorithm: what its teacher sees, and what the learner minimises.

The training loop calls the hooks of `Algorithm` and knows nothing else about it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

import torch

from resd.config import DistillationConfig, PolicyConfig
from resd.context.seeding import derive_seed
from resd.context.teacher_prompt import TeacherPrompt
from resd.context.updater import ContextUpdate
from resd.objectives.objective import Objective
from resd.objectives.policy_gradient import group_advantages
from resd.objectives.weighting import success_rate_weights
from resd.records import Attempt, TrainingExample


class Algorithm(Protocol):
    """One algorithm. The learner receives `objective` along with the examples."""

    @property
    def objective(self) -> Objective: ...

    def teacher_prompts(
        self, attempts: Sequence[Attempt], context: ContextUpdate | None
    ) -> list[TeacherPrompt | None]:
        """What the teacher is conditioned on for each attempt; None where there is nothing to distil.

        `context` is this step's, or None if the run has no context engine.
        """
        ...

    def examples(
        self, attempts: Sequence[Attempt], prompts: Sequence[TeacherPrompt | None]
    ) -> list[TrainingExample]:
        """One example per attempt, in order. Those without a teacher prompt are kept: they count in means."""
        ...


def training_examples(
    attempts: Sequence[Attempt],
    prompts: Sequence[TeacherPrompt | None],
    *,
    weights: Sequence[float] | None = None,
    advantages: Sequence[float] | None = None,
) -> list[TrainingExample]:
    """Pair attempts with their teacher prompts. By default, weights are 1 and advantages 0."""
    return [
        TrainingExample(
            prompt_ids=attempt.prompt_ids,
            response_ids=attempt.response.token_ids,
            rollout_logprobs=attempt.response.logprobs,
            teacher_prompt_ids=prompt.ids if prompt else None,
            weight=weight,
            advantage=advantage,
        )
        for attempt, prompt, weight, advantage in zip(
            attempts,
            prompts,
            weights or [1.0] * len(attempts),
            advantages or [0.0] * len(attempts),
            strict=True,
        )
    ]


def sample_weights(
    attempts: Sequence[Attempt], distillation: DistillationConfig, *, rebalance: bool
) -> list[float]:
    """Success-rate weights over the whole batch, or ones. `rebalance` is the algorithm's default."""
    if not (rebalance if distillation.rebalance is None else distillation.rebalance):
        return [1.0] * len(attempts)
    solved = torch.tensor([attempt.verdict.solved for attempt in attempts])
    alpha, beta = distillation.rebalance_alpha, distillation.rebalance_beta
    return [float(weight) for weight in success_rate_weights(solved, alpha=alpha, beta=beta)]


def advantages(attempts: Sequence[Attempt], policy: PolicyConfig) -> list[float]:
    """GRPO advantages among all attempts at one problem."""
    found = group_advantages(
        [attempt.verdict.reward for attempt in attempts],
        [attempt.problem.id for attempt in attempts],
        normalize_by_std=policy.normalize_by_std,
    )
    return [float(advantage) for advantage in found]


def peer_solution(attempt: Attempt, attempts: Sequence[Attempt], seed: int) -> str:
    """Another attempt of this step that solved the same problem, drawn uniformly, or "".

    The seed of the draw includes the peers' texts, so that each step draws anew.
    """
    others = (a for a in attempts if a.problem.id == attempt.problem.id and a.sample != attempt.sample)
    peers = [other.response.text for other in others if other.verdict.solved]
    if not peers:
        return ""
    return random.Random(derive_seed(seed, attempt.key, "peer", *peers)).choice(peers)
