"""Building the algorithm that a configuration names."""

from __future__ import annotations

from typing import Any

from resd.algorithms.ace import ACE
from resd.algorithms.base import Algorithm
from resd.algorithms.grpo import GRPO
from resd.algorithms.resd import RESD
from resd.algorithms.rlsd import RLSD
from resd.algorithms.sdpo import SDPO
from resd.algorithms.srpo import SRPO
from resd.config import ContextConfig, RunConfig
from resd.context import prompts
from resd.context.teacher_prompt import TeacherPromptComposer
from resd.context.updater import ContextUpdater


def make_algorithm(config: RunConfig, tokenizer: Any, context: ContextUpdater | None) -> Algorithm:
    """Build the algorithm that `config` names. Switches that are None take the algorithm's default."""
    if config.algorithm == "grpo":
        return GRPO(config.policy)
    if config.algorithm == "ace":
        return ACE()
    style = prompts.configured(config.context)
    shown = config.context if config.algorithm == "resd" else as_sdpo_shows(config.context)
    composer = TeacherPromptComposer(shown, style, tokenizer, config.rollout.thinking)
    chosen, distillation, policy = config.context.distill_successes, config.distillation, config.policy
    match config.algorithm:
        case "sdpo":
            return SDPO(composer, distillation, config.seed, distill_successes=bool(chosen))
        case "srpo":
            return SRPO(composer, distillation, policy, config.srpo, config.seed)
        case "rlsd":
            return RLSD(composer, policy, config.rlsd, config.seed)
    assert context is not None, "RESD needs the context engine"
    return RESD(composer, context.taught, distillation, distill_successes=chosen is not False)


def as_sdpo_shows(context: ContextConfig) -> ContextConfig:
    """The defaults of SDPO, SRPO and RLSD: the teacher sees a solution, or else the feedback alone."""
    own = {"use_trial": False, "drop_feedback_with_solution": True}
    return context.model_copy(update={key: v for key, v in own.items() if getattr(context, key) is None})


def make_successor(config: RunConfig, tokenizer: Any) -> Algorithm | None:
    """Build the algorithm that the run uses after its switch."""
    if config.switch.to is None:
        return None
    return make_algorithm(config.model_copy(update={"algorithm": config.switch.to}), tokenizer, None)
