"""Teacher scoring with what the prompts share computed once, beside scoring each prompt as a whole.

    python benchmarks/prefix.py [--shape 4b] [--mix 8192:2048:32 ...] [--micro-batch-tokens 65536]

A mix is shared tokens : tokens of each sequence after them : sequences. Random weights of the named shape and
random tokens, on a GPU in bfloat16. "saved" is the share of tokens that need not be computed, on which
`resd.learner.prefix` decides. "apart" is the mean absolute difference of the sampled tokens' log-probs, and
beside it that of whole prompts by the two kernels that attend to them: what bfloat16 alone does.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from unittest import mock

import torch
from torch import Tensor

from learner import SHAPES, make_model
from resd.learner import attention
from resd.learner import prefix as sharing
from resd.learner.attention import packing
from resd.learner.layout import MicroBatch, build_micro_batches
from resd.learner.model import body
from resd.learner.prefix import teacher_prefix
from resd.learner.teacher import LiveTeacher
from resd.objectives.losses import SampledTokens, token_statistics
from resd.records import TrainingExample

MIXES = (
    "8192:2048:32",
    "4096:2048:32",
    "2048:2048:32",
    "1024:2048:32",
    "512:2048:32",
    "256:2048:32",
    "128:2048:32",
    "8192:2048:4",
    "8192:8192:8",
)
ALWAYS, NEVER = -1.0, 2.0


def make_examples(shared: int, own: int, count: int) -> list[TrainingExample]:
    """A quarter of what a sequence has of its own is prompt."""
    source = random.Random(0)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(source.choices(range(5, 1000), k=length))

    start, prompt = ids(shared), own // 4
    response = own - prompt + 1
    return [
        TrainingExample(ids(8), ids(response), (-1.0,) * response, teacher_prompt_ids=start + ids(prompt))
        for _ in range(count)
    ]


def micro_batches(
    examples: list[TrainingExample], limit: int, pays_from: float, device: str
) -> list[MicroBatch]:
    with mock.patch.object(sharing, "PAYS_FROM", pays_from):
        return build_micro_batches(
            examples,
            range(len(examples)),
            with_teacher=True,
            micro_batch_tokens=limit,
            packed=True,
            prefix=teacher_prefix(examples),
            device=device,
        )


def score(teacher: LiveTeacher, batches: list[MicroBatch]) -> tuple[float, Tensor]:
    """Seconds for all hidden states, and the log-probs by example and position (not timed)."""
    start, found = now(), []
    for batch in batches:
        assert batch.teacher is not None
        found.append(teacher.projections(batch.teacher))
    seconds = now() - start
    parts = []
    for batch, projections in zip(batches, found, strict=True):
        tokens = SampledTokens(batch.student.targets, torch.ones_like(batch.rollout_logprobs))
        parts.append((batch.student.example, token_statistics(projections, tokens)["logprob"]))
    example, logprobs = (torch.cat(column) for column in zip(*parts, strict=True))
    return seconds, logprobs[example.argsort(stable=True)]


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="4b")
    parser.add_argument("--mix", nargs="*", default=MIXES)
    parser.add_argument("--micro-batch-tokens", type=int, default=65_536)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    teacher = LiveTeacher(make_model(SHAPES[arguments.shape], "cuda").bfloat16())
    print("shared   own  count   saved   whole s  shared s  ratio     apart  (rounding)")
    with packing([body(teacher.model)]), torch.no_grad():
        for mix in arguments.mix:
            measure(teacher, mix, arguments.micro_batch_tokens, arguments.repeats)


def measure(teacher: LiveTeacher, mix: str, limit: int, repeats: int) -> None:
    shared, own, count = map(int, mix.split(":"))
    examples = make_examples(shared, own, count)
    times: dict[float, list[float]] = {NEVER: [], ALWAYS: []}
    logprobs = {}
    for repeat in range(repeats + 1):
        for pays_from, seconds in times.items():
            batches = micro_batches(examples, limit, pays_from, "cuda")
            took, logprobs[pays_from] = score(teacher, batches)
            seconds += [took] if repeat else []
    with mock.patch.object(attention, "LONG", 10**9 if shared + own >= attention.LONG else 0):
        _, again = score(teacher, micro_batches(examples, limit, NEVER, "cuda"))
    whole, once = (statistics.median(times[key]) for key in (NEVER, ALWAYS))
    apart = (logprobs[ALWAYS] - logprobs[NEVER]).abs().mean().item()
    rounding = (again - logprobs[NEVER]).abs().mean().item()
    saved = shared * (count - 1) / ((shared + own) * count)
    print(
        f"{shared:6,}{own:6,}{count:7}{saved:8.2f}{whole:10.3f}{once:10.3f}{whole / once:7.2f}"
        f"{apart:10.5f}  ({rounding:.5f})",
        flush=True,
    )


if __name__ == "__main__":
    main()
