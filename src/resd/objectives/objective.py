"""What an algorithm asks of the learner."""

from __future__ import annotations

from dataclasses import dataclass

from resd.config import DistillationConfig, PolicyConfig, RLSDConfig, SRPOConfig


@dataclass(frozen=True, slots=True)
class Objective:
    """What the learner minimises: `distillation` on examples with a teacher prompt, `policy` on the others
    that have an advantage.

    `srpo` weights distilled tokens by the teacher's certainty. With `rlsd`, which needs `policy` and no
    `distillation`, a teacher prompt changes the size of its example's advantage token by token, the less the
    more optimizer steps were taken; those before the run came to this objective, `since`, do not count.
    """

    distillation: DistillationConfig | None = None
    policy: PolicyConfig | None = None
    srpo: SRPOConfig | None = None
    rlsd: RLSDConfig | None = None
    since: int = 0
