"""Held-out evaluation: k samples per problem with fixed seeds, mean@k and best@k.

`best@k` is the exact best of the k samples. `best@k_bootstrap` is the expected best of k draws with
replacement, which is what the logs of other trainers call best@k; it is computed, not drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from resd.config import EvaluationConfig, RolloutConfig
from resd.context.seeding import derive_seed
from resd.environments.base import Environment
from resd.environments.checks import problems_of
from resd.generation.engine import GenerationEngine
from resd.records import Attempt
from resd.training.rollout import PromptIds, Sampling, group_by_problem, roll_out


@dataclass(frozen=True)
class Evaluation:
    """`metrics` are by logged name; `attempts` are in the order of the problems."""

    metrics: Mapping[str, float]
    attempts: Sequence[Attempt]


def evaluate(
    engine: GenerationEngine,
    environment: Environment,
    tokenizer: Any,
    config: EvaluationConfig,
    rollout: RolloutConfig,
    prompt_ids: PromptIds | None = None,
) -> Evaluation:
    """Sample `config.samples` responses to each problem of the split, grade them, and average.

    Length limit and thinking are those of training (`rollout`). `prompt_ids(problem)` gives the prompt, by
    default the problem's own messages. The same weights give the same result.
    """
    problems = problems_of(environment, config.split)[: config.limit]
    sampling = Sampling(
        config.samples, rollout.max_tokens, config.temperature, config.top_p, thinking=rollout.thinking
    )
    attempts = roll_out(
        problems,
        engine,
        environment,
        tokenizer,
        sampling,
        seed=lambda problem, sample: derive_seed(config.seed, "evaluation", problem.id, sample),
        prompt_ids=prompt_ids,
    )
    return Evaluation(summarize(environment.name, attempts), attempts)


def summarize(name: str, attempts: Sequence[Attempt]) -> dict[str, float]:
    """`val/<name>/<reward|solved|test_cases>/<mean@k|best@k|best@k_bootstrap>`, and response length."""
    groups = group_by_problem(attempts)
    metrics: dict[str, float] = {}
    for variable, values in {
        "reward": [[a.verdict.reward for a in group] for group in groups.values()],
        "solved": [[float(a.verdict.solved) for a in group] for group in groups.values()],
        "test_cases": [[a.verdict.pass_rate for a in group] for group in groups.values()],
    }.items():
        k = len(values[0])
        metrics[f"val/{name}/{variable}/mean@{k}"] = fmean(fmean(group) for group in values)
        metrics[f"val/{name}/{variable}/best@{k}"] = fmean(max(group) for group in values)
        metrics[f"val/{name}/{variable}/best@{k}_bootstrap"] = fmean(expected_best(group) for group in values)
    metrics[f"val/{name}/response_length/mean"] = fmean(len(a.response.token_ids) for a in attempts)
    return metrics


def expected_best(values: Sequence[float]) -> float:
    """The expected maximum of k draws with replacement from k values.

    The i-th smallest is the maximum with probability (i/k)^k - ((i-1)/k)^k. For c ones among zeros this is
    1 - (1 - c/k)^k.
    """
    k = len(values)
    return sum(v * ((i / k) ** k - ((i - 1) / k) ** k) for i, v in enumerate(sorted(values), start=1))


def sample_rows(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """The rows stored for an evaluation besides its averages."""
    return [
        {
            "problem": a.problem.id,
            "sample": a.sample,
            "reward": a.verdict.reward,
            "passed": a.verdict.passed,
            "total": a.verdict.total,
            "finish_reason": a.response.finish_reason,
            "text": a.response.text,
        }
        for a in attempts
    ]
