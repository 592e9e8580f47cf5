"""One update of the student from the same rollouts: by this project's learner and by TRL's SDPOTrainer.

    python benchmarks/update_step.py [--shape tiny | 4b] [--device cuda] [--dtype bfloat16] [--sequences N]
        [--lengths SHORTEST LONGEST] [--micro-batch-tokens N] [--trl-rows 1 4] [--[no-]checkpointing]
        [--updates N] [--json FILE]

Both sides start from the same random weights (float32; computed in --dtype under autocast) and learn from the
same tokens, drawn with a fixed seed: ragged prompts, longer teacher prompts, and responses whose lengths are
log-uniform between the two of --lengths. No two prompts begin alike. Both minimise the mean over sequences of
the mean over tokens of the reverse KL on the student's top 100 and a tail, with fused AdamW, no weight decay,
the gradient's norm bounded by 1, an EMA teacher, and activation checkpointing on both or on neither.

In the time of an update, on both sides: teacher forward, student forward, loss, backward, norm and clipping,
optimizer step, EMA, and what the side logs about its loss. On ours also: from lists of tokens to tensors on
the device, and entropies, importance ratios and clipped shares of every token. TRL has its padded tensors on
the device already; cutting them into micro-batches is in its time, its logger is not. On neither side:
generation, rewards, teacher prompts. TRL's trainer runs its own `train()`; only `_prepare_training_batch` is
replaced, which would generate, and gives what that would have made of these tokens. A time goes from
`on_step_begin` to the end of `on_step_end`, which moves the teacher. One update warms up.

What cannot be matched. TRL's micro-batches are --trl-rows sequences, padded to the longest of the batch, and
its attention takes a mask; ours hold up to --micro-batch-tokens, sorted by length, on a GPU packed. TRL
rounds the head's logits to --dtype, ours are summed in float32. TRL bounds no probability ratio, and in an
on-policy step has no importance weight: here neither do we, though RESD's own loss has both.

"s": seconds per update, the median, or on a CPU, which others share, the best. "resp/s", "all/s": response
tokens, and these with the student's prompts, per second. "x": times ours. "peak": GiB at most, "kept" between
updates (weights, teacher, moments). "alone": GiB that the loss takes by itself from hidden states, forward
and backward, beyond these, the head and their gradients: TRL for one micro-batch, ours for all responses at
once. "loss" and "norm" (of the gradient, before clipping) are the first update's.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from resd.config import DistillationConfig, OptimizerConfig, RolloutConfig, RunConfig, TeacherConfig
from resd.learner.learner import Learner
from resd.learner.teacher import make_teacher
from resd.objectives.chunked import Projection
from resd.objectives.divergence import Divergence
from resd.objectives.losses import SampledTokens, distillation_loss
from resd.objectives.objective import Objective
from resd.records import TrainingExample

PAD, STOP = 0, 1
DISTILLATION = DistillationConfig(alpha=1.0, topk=100, add_tail=True, min_ratio=None, is_clip=None)
TEACHER = TeacherConfig(kind="ema", update_rate=0.01)
LEARNING_RATE, GRAD_CLIP = 1e-6, 1.0
SPREAD = 2.5  # standard deviation of the logits

Range = tuple[int, int]


@dataclass(frozen=True)
class Shape:
    """A Qwen3, the rollouts of one update, and how they are cut where the command line does not say."""

    layers: int
    width: int
    inner: int
    heads: int
    groups: int
    head_dim: int
    vocabulary: int
    sequences: int
    prompts: Range
    teacher_prompts: Range
    responses: Range
    micro_batch_tokens: int
    trl_rows: tuple[int, ...]
    checkpointing: bool


SHAPES = {
    "tiny": Shape(
        4, 256, 768, 4, 2, 64, 32_000, 8, (24, 96), (64, 192), (32, 320), 2048, (1, 4, 8), checkpointing=False
    ),
    "4b": Shape(
        36, 2560, 9728, 32, 8, 128, 151_936, 32, (150, 600), (500, 2500), (128, 4096), 16_384, (1, 2, 4),
        checkpointing=True,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What both sides are given."""

    shape: Shape
    examples: Sequence[TrainingExample]
    device: str
    dtype: str
    updates: int  # timed, after one that warms up

    @property
    def on_gpu(self) -> bool:
        return torch.device(self.device).type == "cuda"

    def model(self) -> Any:
        return make_model(self.shape, self.device)


@dataclass
class Measured:
    seconds: list[float]
    loss: float = 0.0
    norm: float = 0.0
    peak: int = 0  # bytes
    kept: int = 0
    alone: int = 0


def make_model(shape: Shape, device: str) -> Any:
    """Random weights, the same for each call, in float32; made on the device."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.groups,
        head_dim=shape.head_dim,
        max_position_embeddings=40_960,
        tie_word_embeddings=True,
        initializer_range=1 / shape.width**0.5,
        pad_token_id=PAD,
        eos_token_id=STOP,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(SPREAD)
    return model.eval()


def make_examples(shape: Shape, seed: int = 0) -> list[TrainingExample]:
    generator = random.Random(seed)

    def tokens(lengths: Range, *, skewed: bool = False) -> tuple[int, ...]:
        low, high = lengths
        drawn = low * (high / low) ** generator.random() if skewed else generator.uniform(low, high)
        return tuple(generator.randrange(2, shape.vocabulary) for _ in range(round(drawn)))

    examples = []
    for _ in range(shape.sequences):
        response = (*tokens(shape.responses, skewed=True)[:-1], STOP)
        prompt, teacher_prompt = tokens(shape.prompts), tokens(shape.teacher_prompts)
        examples.append(TrainingExample(prompt, response, (0.0,) * len(response), teacher_prompt))
    return examples


def synchronize(run: Run) -> None:
    if run.on_gpu:
        torch.cuda.synchronize()


@contextmanager
def peak_memory(run: Run) -> Iterator[Callable[[], int]]:
    """The highest number of bytes allocated since here; 0 on a CPU."""
    if run.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield lambda: torch.cuda.max_memory_allocated() if run.on_gpu else 0


def allocated(run: Run) -> int:
    return torch.cuda.memory_allocated() if run.on_gpu else 0


def ours(run: Run) -> Measured:
    config = RunConfig(
        compute_dtype=run.dtype,
        rollout=RolloutConfig(max_tokens=run.shape.responses[1]),
        distillation=DISTILLATION,
        teacher=TEACHER,
        optimizer=OptimizerConfig(
            learning_rate=LEARNING_RATE,
            weight_decay=0.0,
            warmup_updates=0,
            grad_clip=GRAD_CLIP,
            micro_batch_tokens=run.shape.micro_batch_tokens,
            activation_checkpointing=run.shape.checkpointing,
        ),
    )
    model = run.model()
    learner = Learner(model, make_teacher(TEACHER, model), config, total_updates=run.updates + 1)
    objective, result = Objective(distillation=DISTILLATION), Measured([])
    with peak_memory(run) as peak:
        for index in range(run.updates + 1):
            synchronize(run)
            begin = time.perf_counter()
            metrics = learner.update(run.examples, objective)
            synchronize(run)
            result.seconds.append(time.perf_counter() - begin)
            if index == 0:
                result.loss, result.norm = metrics["actor/loss"], metrics["actor/grad_norm"]
        result.peak, result.kept = peak(), allocated(run)
    result.alone = our_loss_alone(run, model.get_output_embeddings().weight)
    return result


def our_loss_alone(run: Run, weight: Tensor) -> int:
    """Bytes, for all responses at once: no micro-batch has more."""
    responses = [example.response_ids for example in run.examples]
    targets = torch.tensor([token for response in responses for token in response], device=run.device)
    hidden = random_hidden((len(targets), run.shape.width), run.device)
    teacher = Projection(random_hidden(hidden.shape, run.device).detach(), weight.detach())
    tokens = SampledTokens(targets, torch.full(targets.shape, 1 / len(targets), device=run.device))
    dtype = None if run.dtype == "float32" else getattr(torch, run.dtype)

    def loss() -> Tensor:
        divergence = Divergence(DISTILLATION.alpha, DISTILLATION.topk, DISTILLATION.add_tail)
        return distillation_loss(
            Projection(hidden, weight), [teacher], tokens, divergence, compute_dtype=dtype
        )[0]

    return memory_alone(run, loss, (hidden, weight))


def random_hidden(size: Sequence[int], device: str) -> Tensor:
    return torch.randn(*size, device=device, requires_grad=True)


def memory_alone(run: Run, loss: Callable[[], Tensor], leaves: Sequence[Tensor]) -> int:
    before = allocated(run) + sum(leaf.nbytes for leaf in leaves)
    with peak_memory(run) as peak:
        loss().backward()
        for leaf in leaves:
            leaf.grad = None
        return peak() - before


def trl_batch(examples: Sequence[TrainingExample], device: str) -> dict[str, Tensor]:
    """What TRL's `_prepare_training_batch` makes of these rollouts: prompts padded on the left, responses on
    the right, each to the longest of all. In an on-policy step it has no log-probs of the sampler."""

    def padded(sides: Sequence[Sequence[int]], *, left: bool) -> tuple[Tensor, Tensor]:
        longest = max(map(len, sides))
        gaps = [[PAD] * (longest - len(side)) for side in sides]
        ids = [[*gap, *side] if left else [*side, *gap] for side, gap in zip(sides, gaps, strict=True)]
        ones = [[1] * len(side) for side in sides]
        mask = [[*gap, *one] if left else [*one, *gap] for one, gap in zip(ones, gaps, strict=True)]
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    prompt_ids, prompt_mask = padded([example.prompt_ids for example in examples], left=True)
    completion_ids, completion_mask = padded([example.response_ids for example in examples], left=False)
    taught_ids, taught_mask = padded([example.teacher_prompt_ids or () for example in examples], left=True)
    return {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": completion_ids,
        "completion_mask": completion_mask,
        "raw_completion_lengths": completion_mask.sum(-1),
        "teacher_input_ids": torch.cat([taught_ids, completion_ids], dim=1),
        "teacher_attention_mask": torch.cat([taught_mask, completion_mask], dim=1),
        "self_distillation_mask": torch.ones(len(examples), device=device),
    }


def trl(run: Run, rows: int) -> Measured:
    """TRL's update in micro-batches of `rows` sequences."""
    from transformers import PrinterCallback, TrainerCallback
    from trl.experimental.sdpo import SDPOTrainer

    batch, result, losses = trl_batch(run.examples, run.device), Measured([]), []

    class Recorded(SDPOTrainer):
        def _prepare_training_batch(self, inputs: Any) -> dict[str, Tensor]:
            return batch

        def compute_loss(self, *arguments: Any, **named: Any) -> Tensor:
            loss: Tensor = super().compute_loss(*arguments, **named)
            losses.append(loss.detach())
            return loss

    class Timer(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            synchronize(run)
            self.begin = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            synchronize(run)
            result.seconds.append(time.perf_counter() - self.begin)

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(Recorded, run, rows, folder)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(Timer())  # after the one that moves the teacher
        with peak_memory(run) as peak:
            trainer.train()
            result.peak, result.kept = peak(), allocated(run)
    result.loss = float(sum(losses[: len(run.examples) // rows]))
    result.norm = trainer.state.log_history[0]["grad_norm"]
    result.alone = trl_loss_alone(run, trainer, {name: value[:rows] for name, value in batch.items()})
    return result


def make_trainer(kind: Any, run: Run, rows: int, folder: str) -> Any:
    """TRL's defaults but for what the objective needs, and for what would write to disk."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl.experimental.sdpo import SDPOConfig, sdpo_trainer

    count = len(run.examples)
    config = SDPOConfig(
        output_dir=folder,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=count // rows,
        num_generations=count,
        max_steps=run.updates + 1,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=GRAD_CLIP,
        bf16=run.dtype == "bfloat16",
        gradient_checkpointing=run.shape.checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        distillation_mode="topk_logits",
        distillation_topk=DISTILLATION.topk,
        distillation_alpha=DISTILLATION.alpha,
        distillation_add_tail=DISTILLATION.add_tail,
        distillation_is_clip=DISTILLATION.is_clip,
        teacher_model_kind="ema",
        teacher_update_rate=TEACHER.update_rate,
        use_cpu=not run.on_gpu,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    words = Tokenizer(models.WordLevel({"<pad>": PAD, "<stop>": STOP}, unk_token="<pad>"))
    with ExitStack() as stack:
        # It would load the teacher from the hub by the model's name.
        stack.enter_context(
            mock.patch.object(sdpo_trainer, "create_model_from_path", return_value=run.model())
        )
        stack.enter_context(mock.patch.object(sdpo_trainer, "get_config_model_id", return_value=""))
        return kind(
            model=run.model(),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=config,
            train_dataset=Dataset.from_list([{"prompt": ""}] * count),
            processing_class=PreTrainedTokenizerFast(
                tokenizer_object=words, pad_token="<pad>", eos_token="<stop>"
            ),
        )


def trl_loss_alone(run: Run, trainer: Any, batch: dict[str, Tensor]) -> int:
    """Bytes, for one micro-batch: TRL's own loss, its models' bodies giving hidden states that are there."""
    from transformers.modeling_outputs import BaseModelOutputWithPast

    def given(input_ids: Tensor, **_: Any) -> Any:
        return BaseModelOutputWithPast(last_hidden_state=states[input_ids.shape[1]])

    lengths = {batch["prompt_ids"].shape[1] + batch["completion_ids"].shape[1]: True}
    lengths.setdefault(batch["teacher_input_ids"].shape[1], False)
    rows, model = len(batch["prompt_ids"]), trainer.model
    states = {
        length: random_hidden((rows, length, run.shape.width), run.device).requires_grad_(student)
        for length, student in lengths.items()
    }
    model.zero_grad(set_to_none=True)
    trained = next(iter(states.values())), model.get_output_embeddings().weight

    def loss() -> Tensor:
        return trainer.compute_loss(model, batch)

    with ExitStack() as stack:
        for one in (model, trainer.accelerator.unwrap_model(trainer.teacher_model)):
            stack.enter_context(mock.patch.object(one.model, "forward", given))
        return memory_alone(run, loss, trained)


def row(run: Run, name: str, measure: Callable[[], Measured]) -> dict[str, Any]:
    gc.collect()  # the side before, which goes in circles
    try:
        result = measure()
    except torch.OutOfMemoryError:
        return {"entry": name, "note": "does not fit in memory"}
    timed = result.seconds[1:]
    seconds = statistics.median(timed) if run.on_gpu else min(timed)
    response = sum(len(example.response_ids) for example in run.examples)
    tokens = response + sum(len(example.prompt_ids) for example in run.examples)
    memory = {key: getattr(result, key) / 2**30 if run.on_gpu else None for key in ("peak", "kept", "alone")}
    about = {"entry": name, "s": seconds, "resp/s": response / seconds, "all/s": tokens / seconds}
    return about | {"loss": result.loss, "norm": result.norm} | memory


def rows_of_table(run: Run) -> Iterator[dict[str, Any]]:
    first = row(run, f"ours, {run.shape.micro_batch_tokens:,} tokens", partial(ours, run))
    yield first
    if importlib.util.find_spec("trl") is None:
        yield {"entry": "TRL", "note": "not installed: pip install trl==1.16.0"}
        return
    for count in run.shape.trl_rows:
        values = row(run, f"TRL, {count} sequences", partial(trl, run, count))
        yield values | ({"x": values["s"] / first["s"]} if "s" in values and "s" in first else {})


COLUMNS = {"s": 3, "resp/s": 0, "all/s": 0, "x": 2, "peak": 2, "kept": 2, "alone": 2, "loss": 6, "norm": 5}


def line(values: dict[str, Any]) -> str:
    cells = (f"{values[key]:.{n}f}" if values.get(key) is not None else "-" for key, n in COLUMNS.items())
    return f"{values['entry']:<24}{''.join(map('{:>10}'.format, cells))}  {values.get('note', '')}".rstrip()


def parse(arguments: Sequence[str] | None) -> tuple[Run, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--sequences", type=int)
    parser.add_argument(
        "--lengths", type=int, nargs=2, dest="responses", help="shortest and longest response"
    )
    parser.add_argument("--micro-batch-tokens", type=int)
    parser.add_argument("--trl-rows", type=int, nargs="+", help="divisors of the number of sequences")
    parser.add_argument("--checkpointing", action=argparse.BooleanOptionalAction, help="of activations")
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    names = "sequences", "responses", "micro_batch_tokens", "trl_rows", "checkpointing"
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    shape = replace(SHAPES[options.shape], **given)
    return Run(shape, make_examples(shape), options.device, options.dtype, options.updates), options


def main(arguments: Sequence[str] | None = None) -> None:
    run, options = parse(arguments)
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    warnings.simplefilter("ignore", FutureWarning)  # names that TRL's own configuration gives
    where = torch.cuda.get_device_name() if run.on_gpu else f"{torch.get_num_threads()} CPU threads"
    lengths = sorted(len(example.response_ids) for example in run.examples)
    print(f"{where}, torch {torch.__version__}, {run.dtype}, {options.shape}, checkpointing", end=" ")
    print("on" if run.shape.checkpointing else "off")
    print(f"{len(lengths)} sequences, {sum(lengths):,} response tokens ({lengths[0]} to {lengths[-1]})\n")
    print(f"{'':<24}{''.join(map('{:>10}'.format, COLUMNS))}")
    about = {"device": where, "shape": options.shape, "dtype": run.dtype, "lengths": lengths}
    results: list[dict[str, Any]] = []
    for values in rows_of_table(run):
        results.append(about | values)
        print(line(values), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
