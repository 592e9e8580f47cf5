"""Rotary positions with two sets of frequencies (longrope: Phi-3, Phi-4-mini): one set per run.

By default such models switch to the set for long texts as soon as one sequence of a batch exceeds their
original context length. A loss would then depend on what else is in the micro-batch, and a reply could
continue with other frequencies than its prompt. So a run chooses once, as vLLM does.
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
    """Pin the model to the short set if all sequences of the run fit it, else to the long set.

    With the short set, `max_positions` is limited accordingly. Other models are unchanged.
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
    """Tokens of the longest prompt and reply that the configuration allows: vLLM's `max_model_len`, or
    `context.max_prompt_tokens` and a reply."""
    if config.generation.engine == "vllm":
        return max_length(model, config.generation)
    context, replies = config.context, [config.rollout.max_tokens]
    if config.keeps_playbook:
        replies += [context.max_reflection_tokens, context.max_curation_tokens]
    return min(max_positions(model), context.max_prompt_tokens + max(replies))


def _with_two_sets(model: Any) -> Iterator[tuple[Any, int]]:
    """Yield modules with two sets, and the length from which on they use the long one."""
    for module in model.modules():
        kinds = vars(module).get("rope_type")
        if kinds == "longrope":
            yield module, int(module.config.rope_parameters["original_max_position_embeddings"])
        elif isinstance(kinds, dict):  # by layer type
            settings = [module.config.rope_parameters[name] for name, k in kinds.items() if k == "longrope"]
            if settings:
                yield module, max(int(one["original_max_position_embeddings"]) for one in settings)


def _append(module: Any, words: tuple[Any, ...], options: dict[str, Any], *, position: int) -> Any:
    """Append one position, the first one too large for the short set."""

    def longer(positions: Tensor) -> Tensor:
        return torch.cat((positions, torch.full_like(positions[..., :1], position)), dim=-1)

    if "position_ids" in options:
        return words, {**options, "position_ids": longer(options["position_ids"])}
    hidden, positions, *rest = words
    return (hidden, longer(positions), *rest), options


def _drop(module: Any, words: tuple[Any, ...], made: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    return tuple(part[..., :-1, :] for part in made)
