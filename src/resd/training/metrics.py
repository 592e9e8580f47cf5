"""The metrics of one update, as pure functions of its data; names as in SDPO's logs.

Each step's metrics are computed from that step alone, so that none carries over to the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev

from resd.context.teacher_prompt import TeacherPrompt
from resd.context.updater import ContextUpdate
from resd.records import Attempt, TrainingExample
from resd.training.rollout import group_by_problem

Metrics = dict[str, float]


def rollout_metrics(attempts: Sequence[Attempt]) -> Metrics:
    """Scores and lengths of the step's attempts, before the update."""
    rewards = [a.verdict.reward for a in attempts]
    lengths = [len(a.response.token_ids) for a in attempts]
    prompts = [len(a.prompt_ids) for a in attempts]
    return {
        "train/reward/mean": fmean(rewards),
        "train/solved/mean": fmean(a.verdict.solved for a in attempts),
        "train/test_cases/mean": fmean(a.verdict.pass_rate for a in attempts),
        "critic/score/mean": fmean(rewards),
        "critic/score/max": max(rewards),
        "critic/score/min": min(rewards),
        "response_length/mean": fmean(lengths),
        "response_length/max": float(max(lengths)),
        "response_length/clip_ratio": fmean(a.response.finish_reason == "length" for a in attempts),
        "prompt_length/mean": fmean(prompts),
        "prompt_length/max": float(max(prompts)),
    }


def distillation_metrics(
    attempts: Sequence[Attempt],
    prompts: Sequence[TeacherPrompt | None],
    examples: Sequence[TrainingExample],
) -> Metrics:
    """Contents of the teacher prompts. Fractions are of all attempts, with or without a teacher prompt."""
    shown = [prompt for prompt in prompts if prompt is not None]
    lengths = [len(prompt.ids) for prompt in shown] or [0]
    groups = group_by_problem(attempts).values()
    weights = [example.weight for example in examples]

    def used(section: str) -> float:
        return sum(section in prompt.sections for prompt in shown) / len(attempts)

    return {
        "self_distillation/success_group_fraction": fmean(any(a.verdict.solved for a in g) for g in groups),
        "self_distillation/success_sample_fraction": fmean(a.verdict.solved for a in attempts),
        "self_distillation/feedback_available_fraction": fmean(bool(a.verdict.feedback) for a in attempts),
        "self_distillation/feedback_used_fraction": used("feedback"),
        "self_distillation/playbook_used_fraction": used("playbook"),
        "self_distillation/reflection_used_fraction": used("reflection"),
        "self_distillation/solution_used_fraction": used("solution"),
        "self_distillation/reprompt_sample_fraction": len(shown) / len(attempts),
        "self_distillation/reprompt_len_mean": fmean(lengths),
        "self_distillation/reprompt_len_max": float(max(lengths)),
        "self_distillation/reprompt_truncated_fraction": fmean(bool(p and p.dropped) for p in prompts),
        "self_distillation/sr_weight_min": min(weights),
        "self_distillation/sr_weight_max": max(weights),
        "self_distillation/sr_weight_std": pstdev(weights),
    }


def token_metrics(attempts: Sequence[Attempt], context: ContextUpdate | None) -> Metrics:
    """Tokens generated in this step, by role."""
    counts = {"rollout": float(sum(len(a.response.token_ids) for a in attempts))}
    if context:
        counts |= {"reflect": 0.0, "tag": 0.0, "curate": 0.0}
        for record in context.records:
            counts[record["role"]] += record["tokens"]
    return {f"tokens/{role}": count for role, count in counts.items()}


def mean_rewards(attempts: Sequence[Attempt]) -> dict[str, float]:
    """Mean reward per problem id."""
    return {
        problem: fmean(a.verdict.reward for a in group)
        for problem, group in group_by_problem(attempts).items()
    }


def timings(seconds: Mapping[str, float]) -> Metrics:
    return {f"timing_s/{name}": value for name, value in seconds.items()}


def memory(gib: float) -> Metrics:
    """Peak memory in GiB; no metric on a CPU."""
    return {"memory_gib/peak": gib} if gib else {}
