"""Models and tokenizers from a folder or the hub, and the two halves of a forward: body and head."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from resd.config import RunConfig
from resd.generation.merging import merge
from resd.generation.rotary import pin
from resd.learner import lora
from resd.learner.attention import Sequences
from resd.learner.layout import Layout
from resd.learner.prefix import SharedPrefix
from resd.objectives.chunked import LogitTiles, Projection
from resd.records import ResdError

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
LARGE_HIDDEN = 1000.0  # scale of hidden states: far beyond where any model caps its logits


def load_model(
    name_or_path: str, device: str | torch.device = "cpu", *, dtype: torch.dtype = torch.float32
) -> Any:
    """A causal language model in evaluation mode (no dropout), with parameters in `dtype`.

    `name_or_path` is "lab", a folder or a hub name; adapters in a folder are merged into their base model.
    Parameters are the float32 master copy; `autocast` decides the compute dtype. Raises ResdError if there is
    no such model, if a file of it is damaged or a weight is not finite, or if its head is more than a linear
    map of the last hidden state.
    """
    return merge(load_unmerged(name_or_path, device, dtype=dtype))


def load_unmerged(
    name_or_path: str, device: str | torch.device = "cpu", *, dtype: torch.dtype = torch.float32
) -> Any:
    """Like `load_model`, but keeping a folder's adapters unmerged: engines merge them as in a run."""
    path = resolve_name(name_or_path)
    if lora.is_adapter_folder(folder := Path(path)):
        model = load_model(lora.base_name(folder), device, dtype=dtype)
        lora.add_saved(model, folder)
        _check_finite(model, name_or_path)
        return model
    model = _read_model(path, name_or_path, dtype).to(device).eval()
    _check_finite(model, name_or_path)
    _check_head(model, name_or_path)
    return model


def load_student(config: RunConfig, found: Path | None, device: str | torch.device) -> Any:
    """Load the model that a run trains, in its initial state or from a checkpoint of the run."""
    if config.lora.rank is None:
        return pin(load_model(str(found or config.model), device), config)
    model = load_model(config.model, device, dtype=weights_dtype(config, torch.device(device)))
    pin(model, config)
    lora.add_adapters(model, config.lora, seed=config.seed, base=resolve_name(config.model))
    if found:
        lora.load_adapters(model, found)
    return model


def weights_dtype(config: RunConfig, device: torch.device) -> torch.dtype:
    """float32 for trained weights; for the frozen base weights of adapters on a GPU, the compute dtype."""
    if config.lora.rank is None or device.type == "cpu":
        return torch.float32
    return resolve_dtype(config.compute_dtype, device)


def load_tokenizer(name_or_path: str) -> Any:
    """Load the model's tokenizer; same names as `load_model`.

    Raises ResdError if there is none, or it has no chat template.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(resolve_name(name_or_path))
    except (OSError, ValueError) as error:
        raise _not_loadable("tokenizer", name_or_path, error) from error
    if not len(tokenizer):
        raise ResdError(f"model {name_or_path}: has no tokenizer; save the one it was trained with there")
    if not tokenizer.chat_template:
        raise ResdError(
            f"model {name_or_path}: its tokenizer has no chat template; use a model trained on chats, or put "
            "a chat_template.jinja beside its tokenizer"
        )
    return tokenizer


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA if available. Raises ResdError if CUDA is requested but not available."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ResdError("device cuda: torch finds no CUDA device; set device to cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The compute dtype. `auto` is bfloat16 on CUDA and on CPUs with native support, else float32."""
    if name != "auto":
        return cast(torch.dtype, getattr(torch, name))
    fast = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def autocast(device: torch.device, dtype: torch.dtype, *, cached: bool = True) -> AbstractContextManager[Any]:
    """Compute in `dtype` from parameters of another dtype.

    Enter it separately for student and teacher: it caches weight casts unless `cached` is False, and casts
    made without gradients must not be reused where gradients are needed.
    """
    lower = dtype in (torch.bfloat16, torch.float16)
    return torch.autocast(device.type, dtype=dtype, enabled=lower, cache_enabled=cached)


def body(model: Any) -> Any:
    """The model without its head, also if wrapped by `peft`."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner.base_model


def response_hidden(body: Any, layout: Layout) -> Tensor:
    """The normalised last hidden states that predict the response tokens, `[tokens, H]`.

    Rows are padded on the right: in a causal model no real token sees the padding, and attention without a
    mask takes the faster path. Packed sequences require the `attention.packing` context.
    """
    packed = {} if layout.sequences is None else {"sequences": layout.sequences}
    out = body(input_ids=layout.input_ids, position_ids=layout.position_ids, use_cache=False, **packed)
    return cast(Tensor, out.last_hidden_state).flatten(0, 1).index_select(0, layout.positions)


@torch.no_grad()
def record_prefix(body: Any, prefix: SharedPrefix, device: torch.device) -> None:
    """Run the body over a prefix once, recording the keys and values that later sequences attend to."""
    if any(body is known for known in prefix.bodies):
        return
    ids = torch.tensor([prefix.tokens], device=device)
    positions = torch.arange(len(prefix), device=device).unsqueeze(0)
    sequences = Sequences.of([len(prefix)], device, prefix, is_prefix=True)
    body(input_ids=ids, position_ids=positions, use_cache=False, sequences=sequences)
    prefix.bodies.append(body)


@contextmanager
def recomputing(body: Any) -> Iterator[None]:
    """Activation checkpointing per layer, in forward and backward passes inside this context.

    `transformers` supports it in training mode only, which enables dropout. Here the layers' forwards are
    wrapped, inside all hooks, such as those that gather sharded weights.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [layer for layer in body.modules() if isinstance(layer, GradientCheckpointingLayer)]
    for layer in layers:
        layer.forward = _recomputed(layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(forward)
    def wrapped(*words: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*words, **options)
        return checkpoint(forward, *words, use_reentrant=False, **options)

    return wrapped


def projection(head: Any, hidden: Tensor) -> Projection:
    """The projection of hidden states `[tokens, H]` by a linear head, with or without `peft` adapters."""
    linear = getattr(head, "base_layer", head)
    weight = linear.weight
    for adapter in getattr(head, "active_adapters", ()):
        if adapter in head.lora_A and not head.merged:
            weight = weight + head.get_delta_weight(adapter)
    return Projection(hidden, weight, linear.bias)


def resolve_name(name: str) -> str:
    """Resolve to a folder, or return a hub name unchanged. Raises ResdError if it is neither."""
    if name == "lab":
        from resd.lab import weights_path

        return str(weights_path())
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path.resolve())
    if path.exists() or not HUB_NAME.fullmatch(name) or name.startswith("."):
        raise ResdError(f"model {name}: no such folder; give the folder of a saved model, a hub name, or lab")
    return name


def _read_model(path: str, name: str, dtype: torch.dtype) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    except (SafetensorError, UnpicklingError, EOFError, RuntimeError) as error:
        raise ResdError(
            f"model {name}: its weights cannot be read ({_first_line(error)}); the file is truncated, "
            "damaged, or does not match config.json: fetch or save it again"
        ) from error
    except (OSError, ValueError) as error:
        raise _not_loadable("model", name, error) from error


def _check_finite(model: Any, name: str) -> None:
    """Reject non-finite weights: one NaN makes all logits NaN, and sampling impossible."""
    for part, parameter in model.named_parameters():
        bounds = parameter.detach().aminmax() if parameter.numel() else ()  # with a NaN, both are NaN
        if not all(bound.isfinite() for bound in bounds):
            raise ResdError(
                f"model {name}: {part} contains values that are not finite (NaN or infinite); use "
                "weights from before they diverged"
            )


def _not_loadable(what: str, name: str, error: Exception) -> ResdError:
    return ResdError(
        f"model {name}: no {what} could be loaded ({_first_line(error)}); give a folder written by "
        "save_pretrained"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


@torch.no_grad()
def _check_head(model: Any, name: str) -> None:
    """Reject models that scale or cap their logits after the head: a `Projection` would train them wrongly.

    A cap only shows in large logits, so the head is also tested on large hidden states.
    """
    ids = torch.tensor([[1, 2]], device=model.device)
    head = model.get_output_embeddings()
    hidden = getattr(body(model)(input_ids=ids, use_cache=False), "last_hidden_state", None)
    for factor in (1.0, LARGE_HIDDEN):
        with _scaled_input(head, factor):
            expected = model(input_ids=ids, use_cache=False).logits[0]
        if hidden is None or not _linear(projection(head, factor * hidden[0]), expected):
            raise ResdError(
                f"model {name}: its logits are not a linear map of the last hidden state; use another model"
            )


def _linear(ours: Projection, expected: Tensor) -> bool:
    """Whether `expected` are the logits of `ours`, up to rounding."""
    logits = LogitTiles([ours])(slice(0, len(expected)))
    size = max(1.0, float(logits.abs().max()))
    return torch.allclose(expected.to(logits.dtype), logits, rtol=1e-2, atol=1e-2 * size)


@contextmanager
def _scaled_input(head: Any, factor: float) -> Iterator[None]:
    hook = head.register_forward_pre_hook(lambda _, words: (factor * words[0], *words[1:]))
    try:
        yield
    finally:
        hook.remove()
