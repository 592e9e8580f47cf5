"""Models with adapters of `peft`, as engines decode them: what the adapters add is added to the weights.

Merged weights are made one at a time, and the model that they are of never changes. The trainer computes
adapters beside the weights: where those are bfloat16, a sum that is rounded to it can lose what is smaller
than 0.4 % of a weight.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

MARK = ".lora_"  # in the name of each of an adapter's parameters
BASE = ".base_layer"  # in that of what it is added to


def adapted_layers(model: Any) -> dict[str, Any]:
    """Linear layers that have adapters, by name; none where the model is a plain one."""
    named = model.named_modules()
    return {name: m for name, m in named if hasattr(m, "lora_A") and hasattr(m, "base_layer")}


def merged_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Weights of the adapted layers, by their names in the plain model."""
    for name, layer in adapted_layers(model).items():
        yield f"{name}.weight", _merged(layer)


@torch.no_grad()
def merged_copy(model: Any, dtype: torch.dtype) -> Any:
    """A plain model of `dtype` with merged weights. Other weights that have that dtype are shared."""
    own = {id(layer.base_layer.weight) for layer in adapted_layers(model).values()}
    shared = (p for p in model.parameters() if p.dtype == dtype and id(p) not in own)
    twin = without_adapters(model, shared)
    for parameter in twin.parameters():
        if parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)
    for name, weight in merged_weights(model):
        twin.get_parameter(name).copy_(weight)
    return twin


@torch.no_grad()
def merge(model: Any) -> Any:
    """The model with its adapters, if it has any, merged into its own weights, for good."""
    layers = adapted_layers(model)
    for layer in layers.values():
        layer.base_layer.weight.copy_(_merged(layer))
    return without_adapters(model, model.parameters()) if layers else model


def without_adapters(model: Any, shared: Iterable[Tensor]) -> Any:
    """A copy of the base model that holds these parameters by reference. None of its own has gradients."""
    twin = copy.deepcopy(model, {id(parameter): parameter for parameter in shared})
    for name, layer in adapted_layers(twin).items():
        twin.set_submodule(name, layer.base_layer)
    return twin.requires_grad_(False).eval()


def base_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without those of adapters, by their names in the plain model."""
    return {name.replace(BASE, ""): tensor for name, tensor in tensors.items() if MARK not in name}


def merging(model: Any, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """In place of each weight of the base model, wherever it is among `tensors`, the merged one."""
    layers = {layer.base_layer.weight.data_ptr(): layer for layer in adapted_layers(model).values()}
    for name, tensor in tensors:
        layer = layers.get(tensor.data_ptr()) if layers else None
        yield name, tensor if layer is None else _merged(layer)


@torch.no_grad()
def _merged(layer: Any) -> Tensor:
    """The sum is made in the adapter's dtype, and rounded once."""
    weight: Tensor = layer.base_layer.weight
    deltas = [layer.get_delta_weight(adapter) for adapter in layer.active_adapters]
    return sum(deltas, weight.to(deltas[0].dtype)).to(weight.dtype)
