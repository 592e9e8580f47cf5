"""Throughput of one update on a GPU: teacher scoring, student forward and backward, optimizer, EMA.

    python benchmarks/learner.py [--shape 4b|tiny] [--response 14336] [--prompt 2048] [--teacher-prompt 4096]
        [--count 4] [--updates 3] [key=value ...]

Random weights of the named shape and random tokens; RESD's default loss. "MFU" counts the model's own
operations, 6 for each parameter and token and attention's, not those that activation checkpointing repeats,
over `--peak` (989 TFLOP/s: dense bfloat16 of an H100 or H200). Settings follow as in `resd train`.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from typing import Any

import torch

from resd.config import RunConfig, apply_override, check_config
from resd.learner.layout import Layout
from resd.learner.learner import Learner
from resd.learner.teacher import make_teacher
from resd.objectives.chunked import Projection
from resd.objectives.objective import Objective
from resd.records import TrainingExample

SHAPES: dict[str, dict[str, Any]] = {
    "4b": {
        "vocab_size": 151_936,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 262_144,
        "tie_word_embeddings": True,
    },
    "tiny": {
        "vocab_size": 1024,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "tie_word_embeddings": True,
    },
}


class TimedTeacher:
    """A teacher, and the seconds that its scoring took."""

    def __init__(self, teacher: Any) -> None:
        self.teacher, self.model, self.seconds = teacher, teacher.model, 0.0

    def projections(self, layout: Layout) -> list[Projection]:
        start = now()
        result: list[Projection] = self.teacher.projections(layout)
        self.seconds += now() - start
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.teacher, name)


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def make_model(shape: dict[str, Any], device: str) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    with torch.device(device):
        return Qwen3ForCausalLM(Qwen3Config(**shape)).eval()


def make_examples(arguments: argparse.Namespace, vocabulary: int) -> list[TrainingExample]:
    source = random.Random(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(source.choices(range(5, vocabulary), k=count))

    return [
        TrainingExample(
            prompt_ids=ids(arguments.prompt),
            response_ids=ids(arguments.response),
            rollout_logprobs=(-11.0,) * arguments.response,
            teacher_prompt_ids=ids(arguments.teacher_prompt),
        )
        for _ in range(arguments.count)
    ]


def operations(model: Any, lengths: Sequence[int]) -> float:
    """Of one forward and backward over sequences of these lengths, nothing computed twice."""
    config = model.config
    weights = sum(p.numel() for p in model.parameters())  # a tied embedding is used once as a matrix
    attention = 2 * 2 * config.num_attention_heads * config.head_dim * config.num_hidden_layers
    return float(sum(6 * weights * n + 3 * attention * n * n / 2 for n in lengths))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="4b" if torch.cuda.is_available() else "tiny")
    parser.add_argument("--prompt", type=int, default=2048)
    parser.add_argument("--response", type=int, default=14_336)
    parser.add_argument("--teacher-prompt", type=int, default=4096)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--peak", type=float, default=989.0)
    parser.add_argument("settings", nargs="*")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = make_config(arguments.settings)
    model = make_model(SHAPES[arguments.shape], device)
    teacher = TimedTeacher(make_teacher(config.teacher, model))
    learner = Learner(model, teacher, config, total_updates=arguments.updates)
    examples = make_examples(arguments, model.config.vocab_size)
    lengths = [len(e.prompt_ids) + len(e.response_ids) - 1 for e in examples]
    tokens = sum(lengths)
    count = sum(p.numel() for p in model.parameters())
    print(f"{count / 1e9:.2f} billion parameters, {len(lengths)} sequences of {lengths[0]:,} tokens")
    print("update   all s  teacher s  student tok/s   MFU %  peak GiB      loss")
    for update in range(arguments.updates):
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        teacher.seconds, start = 0.0, now()
        metrics = learner.update(examples, Objective(distillation=config.distillation))
        seconds = now() - start
        student = seconds - teacher.seconds
        share = 100 * operations(model, lengths) / student / arguments.peak / 1e12
        peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else float("nan")
        speed = f"{seconds:8.2f}{teacher.seconds:11.2f}{tokens / student:15,.0f}{share:8.1f}"
        print(f"{update:<6}{speed}{peak:10.1f}{metrics['actor/loss']:10.5f}", flush=True)


def make_config(settings: Sequence[str]) -> RunConfig:
    data: dict[str, Any] = {}
    for setting in settings:
        apply_override(data, setting)
    return check_config(data, "command line")


if __name__ == "__main__":
    main()
