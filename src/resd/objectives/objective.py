"""The interface between an algorithm and the learner."""

from __future__ import annotations

from dataclasses import dataclass

from resd.config import DistillationConfig, PolicyConfig, RLSDConfig, SRPOConfig


@dataclass(frozen=True, slots=True)
class Objective:
    """What the learner minimises: `distillation` on examples with a teacher prompt, `policy` on other
    examples with an advantage.

    `srpo` weights distilled tokens by the teacher's certainty. With `rlsd`, which needs `policy` and no
    `distillation`, a teacher prompt scales its example's advantage per token, by less the more optimizer
    steps have been taken since step `since`, at which the run switched to this objective.
    """

    distillation: DistillationConfig | None = None
    policy: PolicyConfig | None = None
    srpo: SRPOConfig | None = None
    rlsd: RLSDConfig | None = None
    since: int = 0
