"""LoRA through `peft`: frozen base weights, and small trained matrices beside the linear layers.

Adapters are float32 or better, whatever the model's dtype. Adapter folders can be read by `peft`,
`transformers` and vLLM; they name the base model but do not contain it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from resd.config import LoRAConfig
from resd.generation.merging import MARK, adapted_layers
from resd.records import ResdError

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTER = "default"
# If experts are fused into one tensor, `peft` applies these names to it, not to linear layers beside it.
MLP = "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"
PREFIX = "base_model.model."  # prefix of names in the weights file


def add_adapters(model: Any, config: LoRAConfig, *, seed: int, base: str) -> None:
    """Add adapters to linear layers, and freeze everything else. Adapters start at zero output.

    `base` is the model's origin. Raises ResdError for names that match no linear layer.
    """
    from peft import LoraConfig

    assert config.rank is not None
    settings = LoraConfig(
        task_type="CAUSAL_LM",
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=_targets(model, config),
        base_model_name_or_path=base,
    )
    _inject(model, settings, seed)


def left_out(model: Any, config: LoRAConfig) -> int:
    """The number of parameters in experts, and MLPs beside them, that get no adapters from all-linear."""
    if config.rank is None or config.target_modules != "all-linear" or not _holds_experts(model):
        return 0
    named = model.named_parameters()
    return sum(p.numel() for name, p in named if MARK not in name and _of_mlp(name))


def own_parameters(model: Any) -> Iterator[tuple[str, nn.Parameter]]:
    """The adapters' parameters by name if there are any, else all parameters."""
    named: Mapping[str, nn.Parameter] = dict(model.named_parameters())
    return iter(_own(named).items())


def own_state(model: Any, *, keep_vars: bool = False) -> dict[str, Tensor]:
    """The model's state as in a checkpoint; only that of the adapters, if there are any."""
    return _own(model.state_dict(keep_vars=keep_vars))


def save_adapters(model: Any, state: Mapping[str, Tensor], folder: Path) -> None:
    """Save adapters with the weights of `state`, a full `own_state`."""
    from safetensors.torch import save_file

    tensors = {_saved_name(name): tensor.detach().contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    settings = {**model.peft_config[ADAPTER].to_dict(), "inference_mode": True}
    (folder / SETTINGS).write_text(json.dumps(settings, default=sorted, indent=2), encoding="utf-8")


def load_adapters(model: Any, folder: Path) -> None:
    """Load a model's adapters from a folder. Raises ResdError if they do not match."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        saved = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ResdError(f"adapters {folder}: {WEIGHTS} cannot be read ({error})") from error
    own = own_state(model)
    if {_saved_name(name): t.shape for name, t in own.items()} != {n: t.shape for n, t in saved.items()}:
        raise ResdError(f"adapters {folder}: are not for this model, or of another rank or other layers")
    for name, tensor in own.items():
        tensor.copy_(saved[_saved_name(name)])


def base_name(folder: Path) -> str:
    """The name of the base model of a folder's adapters."""
    return str(_settings(folder).base_model_name_or_path)


def add_saved(model: Any, folder: Path) -> None:
    """Add the adapters of a folder to their base model."""
    _inject(model, _settings(folder), seed=0)
    load_adapters(model, folder)


def is_adapter_folder(folder: Path) -> bool:
    return (folder / SETTINGS).is_file()


def _settings(folder: Path) -> Any:
    try:
        from peft import PeftConfig
    except ImportError as error:
        raise ResdError(f"adapters {folder}: need peft; pip install 'resd[lora]'") from error
    settings = PeftConfig.from_pretrained(folder)
    if settings.peft_type != "LORA":
        raise ResdError(f"adapters {folder}: are of kind {settings.peft_type}; only LORA is supported")
    if settings.lora_bias:
        raise ResdError(f"adapters {folder}: have biases (lora_bias), which cannot be merged; train without")
    return settings


def _inject(model: Any, settings: Any, seed: int) -> None:
    from peft import inject_adapter_in_model

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # on the CPU, whatever the device
        inject_adapter_in_model(settings, model, ADAPTER)
    model.eval()
    for layer in adapted_layers(model).values():
        layer.cast_input_dtype_enabled = False  # autocast does this without an intermediate float32 copy
    for _, parameter in own_parameters(model):
        parameter.data = parameter.data.to(torch.promote_types(model.dtype, torch.float32))


def _targets(model: Any, config: LoRAConfig) -> list[str]:
    """The last parts of names, sorted so that all processes agree."""
    head = model.get_output_embeddings()
    linear = [name for name, m in model.named_modules() if type(m) is nn.Linear and m is not head]
    if _holds_experts(model):
        linear = [name for name in linear if name.rpartition(".")[2] not in MLP]
    known = sorted({name.rpartition(".")[2] for name in linear})
    if not known:
        raise ResdError(
            "lora.rank: this model has no linear layer that can have adapters; leave it out to train "
            "all weights"
        )
    if config.target_modules == "all-linear":
        return known
    for wanted in config.target_modules:
        if not any(f".{name}".endswith(f".{wanted}") for name in linear):
            raise ResdError(
                f"lora.target_modules: {wanted} is not a linear layer that can have adapters; known: "
                f"{', '.join(known)}"
            )
    return sorted(config.target_modules)


def _holds_experts(model: Any) -> bool:
    """Whether the experts of a layer are one tensor instead of linear layers."""
    return any("expert" in name and p.dim() == 3 for name, p in model.named_parameters())


def _of_mlp(name: str) -> bool:
    parts = name.removesuffix(".weight").split(".")
    return "experts" in parts or parts[-1] in MLP


def _own(named: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tensor for name, tensor in named.items() if MARK in name} or dict(named)


def _saved_name(name: str) -> str:
    return PREFIX + name.replace(f".{ADAPTER}.", ".")
