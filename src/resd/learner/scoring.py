"""The loss and statistics of one micro-batch, from the student's hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from resd.config import DistillationConfig, PolicyConfig, RLSDConfig
from resd.objectives.chunked import Projection, Stats
from resd.objectives.divergence import Divergence, sampled_token_loss
from resd.objectives.losses import (
    SampledTokens,
    distillation_loss,
    sampled_loss,
    token_statistics,
)
from resd.objectives.policy_gradient import clipped_token_loss, rlsd_mixing, self_distilled_advantage
from resd.objectives.weighting import sequence_importance_ratio

LOGITS_DIFFER = "self_distillation/logits_differ_fraction"


@dataclass(frozen=True, slots=True)
class Distillation:
    """The weighted divergences from the teacher, as configured by `config`."""

    config: DistillationConfig
    teacher: Sequence[Projection]
    tokens: SampledTokens
    compute_dtype: torch.dtype | None = None

    def __call__(self, student: Projection) -> tuple[Tensor, Stats]:
        if self.config.token_level:
            loss, stats = sampled_loss(
                student,
                self.tokens,
                self._estimate,
                teacher=self.teacher,
                compute_dtype=self.compute_dtype,
            )
            gap = stats["logprob"] - stats["teacher_logprob"]
            return loss, _metrics(stats, self.tokens) | _teacher_metrics(stats, gap)
        loss, stats = distillation_loss(
            student, self.teacher, self.tokens, self._divergence(), compute_dtype=self.compute_dtype
        )
        shares = {
            "self_distillation/ratio_clipped_mass": stats["clipped"],
            "self_distillation/tail_mass": stats["outside"],
        }
        return loss, _metrics(stats, self.tokens) | _teacher_metrics(stats, stats["divergence"]) | shares

    def _divergence(self) -> Divergence:
        config = self.config
        return Divergence(
            config.alpha, config.topk, config.add_tail, config.selector, config.min_ratio, config.max_ratio
        )

    def _estimate(self, logprob: Tensor, teacher_logprob: Tensor | None, index: Tensor | slice) -> Tensor:
        assert teacher_logprob is not None
        return sampled_token_loss(
            logprob, teacher_logprob, min_ratio=self.config.min_ratio, max_ratio=self.config.max_ratio
        )


@dataclass(frozen=True, slots=True)
class PolicyGradient:
    """The clipped policy-gradient loss, with advantages scaled by the teacher if there is one (RLSD).

    With one optimizer step per rollout batch, the policy before the step is the current one: the ratio is 1
    and only its gradient matters. `sequence` `[T]` numbers the tokens' responses, which must be complete.
    """

    config: PolicyConfig
    advantages: Tensor  # [T]
    sequence: Tensor  # [T]
    tokens: SampledTokens
    teacher: Sequence[Projection] = ()
    rlsd: RLSDConfig | None = None
    updates: int = 0  # number of earlier updates, on which RLSD's mixing depends
    compute_dtype: torch.dtype | None = None

    def __call__(self, student: Projection) -> tuple[Tensor, Stats]:
        tokens, whole = self.tokens, self.config.is_level == "sequence" and self.config.is_clip is not None
        if whole:
            ratio = self._sequence_ratio(student)
            tokens = replace(tokens, weights=tokens.weights * ratio, is_cap=None)
        loss, stats = sampled_loss(
            student, tokens, self._loss, teacher=self.teacher, compute_dtype=self.compute_dtype
        )
        if whole:
            stats["ratio"] = ratio
        metrics = _metrics(stats, self.tokens)
        if self.teacher:
            metrics |= _teacher_metrics(stats, stats["logprob"] - stats["teacher_logprob"])
        return loss, metrics

    def _loss(self, logprob: Tensor, teacher_logprob: Tensor | None, index: Tensor | slice) -> Tensor:
        advantages = self.advantages[index]
        if teacher_logprob is not None and self.rlsd is not None:
            advantages = self_distilled_advantage(
                advantages,
                logprob,
                teacher_logprob,
                mixing=rlsd_mixing(
                    self.updates, self.rlsd.mixing, self.rlsd.final_mixing, self.rlsd.decay_updates
                ),
                max_change=self.rlsd.max_change,
            )
        return clipped_token_loss(
            logprob,
            logprob.detach(),
            advantages,
            clip_low=self.config.clip_low,
            clip_high=self.config.clip_high,
            dual_clip=self.config.dual_clip,
        )

    def _sequence_ratio(self, student: Projection) -> Tensor:
        """Depends on all tokens of a response, hence takes a pass over the log-probs before the loss."""
        stats = token_statistics([student], self.tokens, compute_dtype=self.compute_dtype)
        rollout = self.tokens.rollout_logprobs
        assert rollout is not None
        return sequence_importance_ratio(
            stats["logprob"] - stats["log_mass"],
            rollout,
            self.sequence,
            int(self.sequence.max()) + 1,
            cap=self.config.is_clip,
        )


def _metrics(stats: Stats, tokens: SampledTokens) -> Stats:
    ratio, cap = stats["ratio"], tokens.is_cap
    assert tokens.rollout_logprobs is not None
    return {
        "actor/entropy": stats["entropy"],
        "actor/is_ratio_mean": ratio,
        "actor/is_ratio_capped_fraction": torch.zeros_like(ratio) if cap is None else ratio >= cap,
        "actor/rollout_logprob_gap": (stats["logprob"] - stats["log_mass"] - tokens.rollout_logprobs).abs(),
    }


def _teacher_metrics(stats: Stats, gap: Tensor) -> Stats:
    differ = (stats["logprob"] != stats["teacher_logprob"]) | (stats["entropy"] != stats["teacher_entropy"])
    return {
        "self_distillation/teacher_student_gap": gap,
        "self_distillation/teacher_entropy": stats["teacher_entropy"],
        LOGITS_DIFFER: differ,
    }
