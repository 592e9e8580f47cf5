"""Time and memory of losses from hidden states, forward and backward, beside the matrix products they need.

    python benchmarks/objective.py [--shape 4b 30b lab 64x1000] [--tokens 4096 20480 65536] [--device cuda]
        [--dtype bfloat16] [--master] [--trl FOLDER] [--repeats N] [--cap 5] [--json FILE]

"floor" is four products in the operands' dtype and nothing else: the logits of student and teacher, the
gradients of hidden states and head. Its buffers are reused, it rounds every sum, and the fastest of some
chunkings counts. "plain" is the first loss on float32 logits `[T, V]`, left to autograd. "TRL" is TRL's
chunked kernel, "TRL SDPO" its loss on such logits (float32, as accelerate hands them over).

Times are medians, or on a CPU, which others share, the best. "/floor" and "/plain": times over those rows'.
Memory is the peak beyond inputs, outputs and their gradients, and the loss is the mean over tokens.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import itertools
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from resd.objectives.chunked import Projection, slices
from resd.objectives.divergence import Divergence, sampled_token_loss
from resd.objectives.losses import SampledTokens, distillation_loss, sampled_loss
from resd.objectives.policy_gradient import clipped_token_loss

SHAPES = {"4b": (2560, 151_936), "30b": (2048, 151_936), "lab": (256, 649)}  # H, V
DEFAULTS = {"cuda": (["4b", "30b"], [4096, 20_480, 65_536], "bfloat16"), "cpu": (["lab"], [4096], "float32")}
CHUNKS = 1024, 2048, 4096, 8192, 16_384  # of tokens, for the floor
TOPK, MIN_RATIO, NO_ROOM = 100, 0.2, "does not fit in memory"
SPREAD = 2.5  # standard deviation of the logits, but for the sampled token's


@dataclass(frozen=True)
class Case:
    """One batch. Hidden states and head get gradients; `compute` is the dtype of the products."""

    hidden: Tensor  # [T, H]
    weight: Tensor  # [V, H], of the teacher too
    teacher: Tensor  # [T, H]
    tokens: SampledTokens
    compute: torch.dtype

    def sides(self) -> tuple[Projection, Projection]:
        return Projection(self.hidden, self.weight), Projection(self.teacher, self.weight.detach())

    def logits(self) -> tuple[Tensor, Tensor]:
        """Of student and teacher, `[T, V]` in float32."""
        weight = self.weight.to(self.compute)
        return (self.hidden @ weight.T).float(), (self.teacher @ weight.detach().T).float()


Loss = Callable[[Case], Tensor]


def make_case(tokens: int, shape: tuple[int, int], device: str, dtype: torch.dtype, master: bool) -> Case:
    """Sampled tokens from near certain to unlikely, and a teacher that mostly agrees."""
    width, vocabulary = shape
    generator = torch.Generator(device).manual_seed(0)
    normal = partial(torch.randn, generator=generator, device=device)
    weight = normal(vocabulary, width) * (SPREAD / width**0.5)
    targets = torch.randint(vocabulary, (tokens,), generator=generator, device=device)
    higher = torch.linspace(0, 2 * math.log(vocabulary), tokens, device=device).unsqueeze(-1)
    hidden = normal(tokens, width) + higher / SPREAD**2 * weight[targets]
    teacher = (0.9 * hidden + 0.3 * normal(tokens, width)).to(dtype)
    hidden, weight = hidden.to(dtype), weight.to(torch.float32 if master else dtype)
    sampled = SampledTokens(targets, torch.full((tokens,), 1 / tokens, device=device))
    return Case(hidden.requires_grad_(), weight.requires_grad_(), teacher, sampled, dtype)


def distillation(case: Case, **settings: Any) -> Tensor:
    (student, teacher), divergence = case.sides(), Divergence(**settings)
    return distillation_loss(student, [teacher], case.tokens, divergence, compute_dtype=case.compute)[0]


def sampled(case: Case, loss: Any, teachers: int) -> Tensor:
    sides = case.sides()[: 1 + teachers]
    return sampled_loss(sides[0], case.tokens, loss, teacher=sides[1:], compute_dtype=case.compute)[0]


def token_level(logprob: Tensor, teacher_logprob: Tensor, index: object) -> Tensor:
    return sampled_token_loss(logprob, teacher_logprob, min_ratio=MIN_RATIO)


def policy(logprob: Tensor, teacher_logprob: None, index: object) -> Tensor:
    old, advantage = logprob.detach(), torch.ones_like(logprob)
    return clipped_token_loss(logprob, old, advantage, clip_low=0.2, clip_high=0.28)


def plain(case: Case) -> Tensor:
    """RESD's default loss from the logits of all tokens at once."""

    def buckets(logits: Tensor) -> Tensor:
        inside = logits.gather(-1, ids) - logits.logsumexp(-1, keepdim=True)
        mass = inside.logsumexp(-1, keepdim=True).clamp(max=-1e-7)
        return torch.cat([inside, torch.log(-torch.expm1(mass))], dim=-1)

    student, teacher = case.logits()
    ids = student.topk(TOPK, sorted=False).indices
    log_p = buckets(student)
    log_q = torch.maximum(buckets(teacher), log_p.detach() + math.log(MIN_RATIO))
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean()


OURS: dict[str, Loss] = {
    "top-100 + tail, alpha 1, clip": partial(distillation, alpha=1, topk=TOPK, min_ratio=MIN_RATIO),
    "top-100 + tail, alpha 0.5": partial(distillation, alpha=0.5, topk=TOPK),
    "full, alpha 0": partial(distillation, alpha=0),
    "full, alpha 1": partial(distillation, alpha=1),
    "full, alpha 0.5": partial(distillation, alpha=0.5),
    "full, alpha 1, clip": partial(distillation, alpha=1, min_ratio=MIN_RATIO),
    "token-level, clip": partial(sampled, loss=token_level, teachers=1),
    "policy": partial(sampled, loss=policy, teachers=0),
}


def floor(case: Case, rows: int) -> Callable[[], None]:
    """The four products in chunks of `rows` tokens, the logits standing in for their own gradient."""
    hidden, teacher, weight = case.hidden.detach(), case.teacher, case.weight.detach().to(case.compute)
    logits, others = (weight.new_empty(rows, len(weight)) for _ in range(2))
    by_hidden, by_weight = torch.empty_like(hidden), torch.zeros_like(weight)

    def run() -> None:
        for part in slices(0, len(hidden), rows):
            ours, theirs = (side[: part.stop - part.start] for side in (logits, others))
            torch.mm(teacher[part], weight.T, out=theirs)
            torch.mm(hidden[part], weight.T, out=ours)
            torch.mm(ours, weight, out=by_hidden[part])
            torch.addmm(by_weight, ours.T, hidden[part], beta=float(part.start > 0), out=by_weight)

    return run


def trl_functions(package: Path) -> tuple[Any, Any]:
    """TRL's chunked divergence and its SDPO loss, from their two files.

    Empty packages stand in for TRL's own, whose `__init__` import trainers. Of `trainer.utils` the files take
    a context that does nothing without DeepSpeed, and a function that is not called here; of transformers,
    which may be missing, whether there is Triton.
    """
    for name in ("", ".kernels", ".trainer", ".trainer.utils", ".experimental", ".experimental.sdpo"):
        module = sys.modules[f"trl_files{name}"] = ModuleType(f"trl_files{name}")
        module.__path__ = [str(package.joinpath(*name.split(".")))]
    stubs = {"maybe_gather_lm_head_ctx": lambda *_: nullcontext(), "selective_log_softmax": None}
    vars(sys.modules["trl_files.trainer.utils"]).update(stubs)
    if "transformers" not in sys.modules and importlib.util.find_spec("transformers") is None:
        utils = ModuleType("transformers.utils")
        vars(utils)["is_triton_available"] = lambda: importlib.util.find_spec("triton") is not None
        sys.modules |= {"transformers": ModuleType("transformers"), "transformers.utils": utils}
    kernel = importlib.import_module("trl_files.kernels.chunked_divergence")
    losses = importlib.import_module("trl_files.experimental.sdpo.loss_utils")
    return kernel.ChunkedDivergenceFunction, losses.compute_topk_self_distillation_loss


def peers(folder: Path | None) -> dict[str, Loss | str]:
    """TRL's entries, or why there are none."""
    spec = None if folder else importlib.util.find_spec("trl")
    package = Path(spec.origin).parent if spec and spec.origin else (folder or Path()) / "trl"
    try:
        function, topk_loss = trl_functions(package)
    except (ImportError, AttributeError) as error:
        return {"TRL": f"not imported: {error}; give --trl FOLDER, which holds trl/ of 1.16"}

    def chunked(case: Case, beta: float) -> Tensor:
        head, device = case.weight.detach(), case.hidden.device.type
        with torch.autocast(device, case.compute, enabled=head.dtype != case.compute):
            return function.apply(case.hidden, case.weight, None, case.teacher, head, None, beta)[0].mean()

    def topk(case: Case, alpha: float) -> Tensor:
        settings = {"distillation_topk": TOPK, "distillation_alpha": alpha, "distillation_add_tail": True}
        return topk_loss(*case.logits(), **settings).mean()

    entries: dict[str, Loss | str] = {f"TRL full, alpha {a:g}": partial(chunked, beta=a) for a in (0, 1, 0.5)}
    return entries | {f"TRL SDPO top-100 + tail, alpha {a:g}": partial(topk, alpha=a) for a in (1, 0.5)}


def typical_time(run: Callable[[], object], on_gpu: bool, repeats: int, cap: float) -> float:
    """Milliseconds, after a run to warm up. No repeat but the first begins after `cap` seconds."""
    run()
    begin, times = time.perf_counter(), []
    while len(times) < repeats and (not times or time.perf_counter() - begin < cap):
        times.append(_time(run, on_gpu))
    return statistics.median(times) if on_gpu else min(times)


def _time(run: Callable[[], object], on_gpu: bool) -> float:
    if not on_gpu:
        start = time.perf_counter()
        run()
        return (time.perf_counter() - start) * 1e3
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    run()
    last.record()
    last.synchronize()
    return first.elapsed_time(last)


def measure(loss: Loss, case: Case, repeats: int, cap: float) -> dict[str, Any]:
    """Of forward and backward, which make the gradients anew."""
    on_gpu, values = case.hidden.is_cuda, []

    def run() -> None:
        case.hidden.grad = case.weight.grad = None
        total = loss(case)
        total.backward()
        values.append(total.detach())

    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    kept = torch.cuda.memory_allocated() + case.hidden.nbytes + case.weight.nbytes
    try:
        taken = typical_time(run, on_gpu, repeats, cap)
    except RuntimeError as error:
        return {"note": NO_ROOM if isinstance(error, torch.OutOfMemoryError) else f"failed: {error}"}
    finally:
        case.hidden.grad = case.weight.grad = None
    memory = (torch.cuda.max_memory_allocated() - kept) / 2**30 if on_gpu else None
    return {"ms": taken, "gib": memory, "loss": float(values[-1])}


def measure_all(case: Case, trl: Path | None, repeats: int, cap: float) -> Iterator[dict[str, Any]]:
    """Rows of the table, each with its ratios to `floor` and `plain`."""
    # A CPU swaps before it refuses memory: what may not fit, with six copies of the logits, is not run.
    tokens, on_gpu = len(case.hidden), case.hidden.is_cuda
    free = math.inf if on_gpu else os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fits, bases = 6 * 4 * tokens * len(case.weight) < free, {}
    entries: dict[str, Loss | str] = {"floor": "", "plain": plain, **OURS, **peers(trl)}
    for name, entry in entries.items():
        if name == "floor":
            sizes = {min(size, tokens) for size in CHUNKS}
            best = min((typical_time(floor(case, size), on_gpu, repeats, cap), size) for size in sizes)
            row: dict[str, Any] = {"ms": best[0], "note": f"chunks of {best[1]:,} tokens"}
        elif isinstance(entry, str) or (not fits and name.startswith(("plain", "TRL SDPO"))):
            row = {"note": entry if isinstance(entry, str) else NO_ROOM}
        else:
            row = measure(entry, case, repeats, cap)
        if name in ("floor", "plain") and "ms" in row:
            bases[name] = row["ms"]
        ratios = {f"/{base}": row["ms"] / ms for base, ms in bases.items()} if "ms" in row else {}
        yield {"entry": name} | row | ratios


def line(row: dict[str, Any]) -> str:
    digits = {"ms": 2, "/floor": 2, "/plain": 2, "gib": 2, "loss": 5}
    cells = (f"{row[key]:.{places}f}" if row.get(key) is not None else "-" for key, places in digits.items())
    return f"{row['entry']:<34}{''.join(f'{cell:>9}' for cell in cells)}  {row.get('note', '')}".rstrip()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", nargs="+", help=f"{', '.join(SHAPES)} or HxV")
    parser.add_argument("--tokens", nargs="+", type=int)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--master", action="store_true", help="the head in float32, products in --dtype")
    parser.add_argument("--trl", type=Path, help="folder that holds trl/, where it is not installed")
    parser.add_argument("--repeats", type=int, help="5 on a GPU, 25 on a CPU")
    parser.add_argument("--cap", type=float, default=5.0, help="seconds for the repeats of one row")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    on_gpu = torch.device(options.device).type == "cuda"
    names, tokens, dtype = DEFAULTS["cuda" if on_gpu else "cpu"]
    dtype, repeats = options.dtype or dtype, options.repeats or (5 if on_gpu else 25)
    where = torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} CPU threads"
    print(f"{where}, torch {torch.__version__}, {dtype}{', float32 head' if options.master else ''}")
    results: list[dict[str, Any]] = []
    for name, count in itertools.product(options.shape or names, options.tokens or tokens):
        width, vocabulary = SHAPES[name] if name in SHAPES else map(int, name.split("x"))
        columns = "".join(f"{column:>9}" for column in ("ms", "/floor", "/plain", "GiB", "loss"))
        print(f"\n{f'H {width:,}, V {vocabulary:,}, T {count:,}':<34}{columns}")
        case = make_case(count, (width, vocabulary), options.device, getattr(torch, dtype), options.master)
        about = {"device": where, "dtype": dtype, "master": options.master, "shape": name, "tokens": count}
        for row in measure_all(case, options.trl, repeats, options.cap):
            results.append(about | row)
            print(line(row), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
