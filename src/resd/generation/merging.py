"""Models with adapters of `peft`, as engines decode them: what the adapters add is added to the weights.

Merged weights are made one at a time, and the model that they are of never changes.

The trainer computes adapters beside the weights, exactly. A sum in bfloat16 that is rounded to the nearest
loses what is smaller than 0.2 to 0.4 % of a weight, which is nearly all of an adapter's first steps: in a
model of 20 million weights, 96 % of the likelihood gained by one step of 1e-5, 61 % of ten, 9 % of forty. So
sums are rounded up or down with the probabilities that keep them on average: within 1 % of the gain, in all
three cases. What is drawn depends on the layer's name alone, so the same adapters make the same weights.
"""

from __future__ import annotations

import copy
import zlib
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


def merged_weights(model: Any, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Weights of the adapted layers, by their names in the plain model."""
    for name, layer in adapted_layers(model).items():
        yield f"{name}.weight", _merged(name, layer, dtype)


@torch.no_grad()
def merged_copy(model: Any, dtype: torch.dtype) -> Any:
    """A plain model of `dtype` with merged weights. Other weights that have that dtype are shared."""
    own = {id(layer.base_layer.weight) for layer in adapted_layers(model).values()}
    shared = (p for p in model.parameters() if p.dtype == dtype and id(p) not in own)
    twin = without_adapters(model, shared)
    for parameter in twin.parameters():
        if parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)
    for name, weight in merged_weights(model, dtype):
        twin.get_parameter(name).copy_(weight)
    return twin


@torch.no_grad()
def merge(model: Any) -> Any:
    """The model with its adapters, if it has any, merged into its own weights, for good."""
    layers = adapted_layers(model)
    for name, layer in layers.items():
        weight = layer.base_layer.weight
        weight.copy_(_merged(name, layer, weight.dtype))
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
    layers = {part.base_layer.weight.data_ptr(): (own, part) for own, part in adapted_layers(model).items()}
    for name, tensor in tensors:
        found = layers.get(tensor.data_ptr()) if layers else None
        yield name, _merged(*found, tensor.dtype) if found else tensor


def rounded(exact: Tensor, seed: int) -> Tensor:
    """float32 to bfloat16, up or down at random, with the probabilities that make the mean exact."""
    generator = torch.Generator(exact.device).manual_seed(seed)
    draws = torch.randint(1 << 16, exact.shape, dtype=torch.int32, device=exact.device, generator=generator)
    # A bfloat16 is the upper half of a float32: what the lower half and the draw add up to carries, or not.
    carried = exact.view(torch.int32) + draws
    return (carried & -(1 << 16)).view(torch.float32).to(torch.bfloat16)


@torch.no_grad()
def _merged(name: str, layer: Any, dtype: torch.dtype) -> Tensor:
    """The sum is made in the adapter's dtype, and rounded once."""
    weight: Tensor = layer.base_layer.weight
    deltas = [layer.get_delta_weight(adapter) for adapter in layer.active_adapters]
    exact = sum(deltas, weight.to(deltas[0].dtype))
    if (exact.dtype, dtype) == (torch.float32, torch.bfloat16):
        return rounded(exact, zlib.crc32(name.encode()))
    return exact.to(dtype)
