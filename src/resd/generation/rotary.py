"""Rotary positions with two sets of frequencies (longrope: Phi-3, Phi-4-mini): one set for a whole run.

By themselves such models take the set for long texts as soon as one sequence of a batch is longer than what
they were first trained on. A loss would then depend on what else is in a micro-batch, and a reply would go on
with other frequencies than its prompt was read with. So a run chooses once, as vLLM does.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from resd.config import RunConfig
from resd.generation.forward import SHORT_UNTIL, max_positions
from resd.generation.vllm_runtime import max_length


def pin(model: Any, config: RunConfig) -> Any:
    """The model, with the short set where all sequences of the run can do with it, else with the long one.

    With the short one it takes no longer sequences (`max_positions`). Other models stay as they are.
    """
    longest = longest_planned(config, model)
    for module, original in _with_two_sets(model):
        if longest <= original:
            setattr(module, SHORT_UNTIL, original)
        else:
            module.register_forward_pre_hook(partial(_append, position=original), with_kwargs=True)
            module.register_forward_hook(_drop)
    return model


def longest_planned(config: RunConfig, model: Any) -> int:
    """Tokens of the longest prompt and reply that the configuration allows: what vLLM is started for, or
    `context.max_prompt_tokens` and a reply."""
    if config.generation.engine == "vllm":
        return max_length(model, config.generation)
    context, replies = config.context, [config.rollout.max_tokens]
    if config.keeps_playbook:
        replies += [context.max_reflection_tokens, context.max_curation_tokens]
    return min(max_positions(model), context.max_prompt_tokens + max(replies))


def _with_two_sets(model: Any) -> Iterator[tuple[Any, int]]:
    """Modules that choose, and the length from which on they take the long set."""
    for module in model.modules():
        kinds = vars(module).get("rope_type")
        if kinds == "longrope":
            yield module, int(module.config.rope_parameters["original_max_position_embeddings"])
        elif isinstance(kinds, dict):  # by kind of layer
            settings = [module.config.rope_parameters[name] for name, k in kinds.items() if k == "longrope"]
            if settings:
                yield module, max(int(one["original_max_position_embeddings"]) for one in settings)


def _append(module: Any, words: tuple[Any, ...], options: dict[str, Any], *, position: int) -> Any:
    """One more position, that of the first token which is too far for the short set."""

    def longer(positions: Tensor) -> Tensor:
        return torch.cat((positions, torch.full_like(positions[..., :1], position)), dim=-1)

    if "position_ids" in options:
        return words, {**options, "position_ids": longer(options["position_ids"])}
    hidden, positions, *rest = words
    return (hidden, longer(positions), *rest), options


def _drop(module: Any, words: tuple[Any, ...], made: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    return tuple(part[..., :-1, :] for part in made)
