"""Engines on one small model, for tests that every engine passes. vLLM is there where it is installed."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from resd.config import GenerationConfig
from resd.generation.decoder import Decoder
from resd.generation.engine import GenerationEngine
from resd.records import Request, Response
from support import tiny_tokenizer

NAMES = ("decoder", "vllm")
FIRST, LAST, STOP = 5, 100, 1  # ordinary tokens, and the one that ends a reply
OPEN, CLOSE = "<think>", "</think>"


@dataclass(frozen=True)
class Subject:
    """An engine, the model that it was given, and how far its log-probs may be from that model's forward."""

    engine: GenerationEngine
    model: Any
    tokenizer: Any
    tolerance: float

    @property
    def exact(self) -> bool:
        """Rounding does not tip draws. In bfloat16 it does now and then, when others share the batch."""
        return self.tolerance < 1e-2

    def same(self, left: Sequence[Response], right: Sequence[Response]) -> bool:
        """The same tokens; where rounding tips draws, in more than half of the replies."""
        equal = [a.token_ids == b.token_ids for a, b in zip(left, right, strict=True)]
        return all(equal) if self.exact else 2 * sum(equal) > len(equal)


def subject(name: str) -> Subject:
    """An engine by name, in float32 on a CPU; vLLM is on a GPU, and in bfloat16, where there is one."""
    tokenizer, model = thinking_tokenizer(), stopping_model()
    if name == "decoder":
        engine = Decoder(model, tokenizer, compute_dtype=torch.float32, grammar_after=CLOSE)
        return Subject(engine, model, tokenizer, 1e-4)
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    from resd.generation.vllm import VLLMEngine

    on_gpu = torch.cuda.is_available()
    dtype, tolerance = (torch.bfloat16, 0.1) if on_gpu else (torch.float32, 1e-4)
    model = model.to("cuda" if on_gpu else "cpu")
    config = GenerationConfig(engine="vllm", gpu_memory_utilization=0.2, max_model_len=512)
    vllm = VLLMEngine(model, tokenizer, config, compute_dtype=dtype, grammar_after=CLOSE)
    return Subject(vllm, model, tokenizer, tolerance)


def thinking_tokenizer() -> Any:
    """The tiny tokenizer, and one token each to open and to close a thought."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([OPEN, CLOSE])
    return tokenizer


def model_of(seed: int) -> Any:
    """A random Qwen3 in float32, of a shape that vLLM's kernels take."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(thinking_tokenizer()),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=STOP,
        bos_token_id=None,
        initializer_range=0.05,
    )
    return Qwen3ForCausalLM(config).eval()


def stopping_model(seed: int = 3, boost: float = 0.25) -> Any:
    """One that ends replies now and then: its stop token, tied to the head, is near the mean hidden state."""
    model = model_of(seed)
    with torch.no_grad():
        hidden = model.model(torch.tensor(prompts([200]))).last_hidden_state[0].mean(0)
        model.model.embed_tokens.weight[STOP] = boost * hidden
    return model


def prompts(lengths: Sequence[int], *, seed: int = 0) -> list[tuple[int, ...]]:
    source = random.Random(seed)
    return [tuple(source.randint(FIRST, LAST) for _ in range(length)) for length in lengths]


def requests(many: Sequence[tuple[int, ...]], **options: Any) -> list[Request]:
    chosen: dict[str, Any] = {"max_tokens": 24, **options}
    return [Request(id=f"r{i}", prompt_ids=p, seed=100 + i, **chosen) for i, p in enumerate(many)]


@torch.no_grad()
def distributions(model: Any, prompt: Sequence[int], reply: Sequence[int]) -> torch.Tensor:
    """`[T, V]`: what the model says, at temperature 1, at each token of a reply, in one plain forward."""
    ids = torch.tensor([[*prompt, *reply]], device=model.device)
    logits = model(ids).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits.double(), -1).cpu()


def sampled(logprobs: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """What is drawn from, written down plainly: temperature, then the nucleus renormalised."""
    rows = torch.softmax(logprobs / temperature, -1)
    for row in rows:
        order = row.argsort(descending=True)
        kept = int((row[order].cumsum(0) < top_p).sum()) + 1
        row[order[kept:]] = 0
        row /= row.sum()
    return rows.log()
