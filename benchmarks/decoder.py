"""Tokens per second of the embedded decoder beside `transformers.generate`, on a 6M-parameter Qwen3.

    python benchmarks/decoder.py [--device cpu] [--batches 1 4 32] [--new 128] [--repeats 3]

Prompts of 64 tokens that share nothing. Both sides sample at temperature 1 and neither stops early. Best of
`--repeats`; "ratio" is decoder over generate in the same run and dtype.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from typing import Any

import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from resd.generation.decoder import Decoder, as_dtype
from resd.generation.engine import generate
from resd.records import Request

VOCABULARY, PROMPT = 600, 64


def lab_shape() -> Any:
    """The shape of the lab model, with random weights. Its end token is never drawn."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
        eos_token_id=VOCABULARY,
        pad_token_id=0,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config).eval()


def words() -> Any:
    core = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY + 1)}, unk_token="w0"))
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=f"w{VOCABULARY}", pad_token="w0")


def best(run: Callable[[], int], repeats: int) -> float:
    """Tokens per second of the fastest of `repeats` runs; `run` returns how many tokens it made."""
    run()
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        tokens = run()
        rates.append(tokens / (time.perf_counter() - start))
    return max(rates)


def ours(decoder: Decoder, prompts: list[list[int]], new: int) -> int:
    requests = [Request(str(i), tuple(p), max_tokens=new, seed=i) for i, p in enumerate(prompts)]
    return sum(len(response.token_ids) for response in generate(decoder, requests))


@torch.inference_mode()
def theirs(model: Any, prompts: list[list[int]], new: int) -> int:
    ids = torch.tensor(prompts, device=model.device)
    mask = torch.ones_like(ids)
    out = model.generate(ids, attention_mask=mask, max_new_tokens=new, do_sample=True, top_k=0, top_p=1.0)
    return int(out.shape[0] * (out.shape[1] - ids.shape[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 32])
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    model, tokenizer = lab_shape().to(options.device), words()
    size = sum(p.numel() for p in model.parameters()) / 1e6
    print(
        f"{size:.1f}M parameters, {PROMPT} + {options.new} tokens, {options.device}, "
        f"{torch.get_num_threads()} threads"
    )
    print(f"{'dtype':>9} {'batch':>6} {'decoder':>9} {'generate':>9} {'ratio':>6}   (tokens/s)")
    for dtype in (torch.float32, torch.bfloat16):
        peer = as_dtype(copy.deepcopy(model), dtype)
        decoder = Decoder(model, tokenizer, compute_dtype=dtype)
        for batch in options.batches:
            prompts = torch.randint(1, VOCABULARY, (batch, PROMPT)).tolist()
            mine = best(lambda p=prompts, d=decoder: ours(d, p, options.new), options.repeats)  # type: ignore[misc]
            other = best(lambda p=prompts, m=peer: theirs(m, p, options.new), options.repeats)  # type: ignore[misc]
            name = str(dtype).removeprefix("torch.")
            print(f"{name:>9} {batch:>6} {mine:>9.0f} {other:>9.0f} {mine / other:>6.2f}", flush=True)


if __name__ == "__main__":
    main()
