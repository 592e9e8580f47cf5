"""The forecast of a configured run: computed in advance, printed as tables, compared with measurements."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

from resd.config import RunConfig
from resd.forecast.estimate import Choices, Forecast, Workload
from resd.forecast.hardware import GIB, Hardware, find, this_machine
from resd.forecast.lora import LoRAForecast
from resd.forecast.model_shape import ModelShape, read_shape
from resd.launch import world_size
from resd.records import Problem, ResdError
from resd.training import journal
from resd.training.plan import Plan, model_folder, wrapped
from resd.training.run_folder import check_folder

# Texts are not tokenized for a forecast. The lab model's tokenizer has 1.5 to 2.2 characters per token, those
# with 100,000 tokens and more have 3 to 4.
CHARACTERS_PER_TOKEN = 2
# Names in timing.jsonl, and the phases that each of them covers.
TIMED = {
    "generate": ("rollouts",),
    "context": ("reflections and curations",),
    "update": ("teacher scoring", "student update"),
    "evaluation": ("evaluation",),
}
PEAK = "memory_gib/peak"  # where a run logs it
NOTES = {
    "optimizer": "two float32 moments",
    "teacher": "float32",
    "decoder": "copies in the dtype that is decoded in",
    "gradients": "float32",
}


@dataclass(frozen=True)
class Outlook:
    """A forecast, or the reason why there is none."""

    config: RunConfig
    forecast: Forecast | None
    reason: str = ""

    def lines(self) -> list[str]:
        """The report as text, compared with the measurements in the run's folder if there are any."""
        if self.forecast is None:
            return wrapped(f"forecast     none, only tokens are counted: {self.reason}")
        lines = [*_opening(self.forecast), "", *_memory(self.forecast), "", *_time(self.forecast)]
        for table in _measured(self.forecast, self.config):
            lines += ["", *table]
        return lines

    def check(self) -> None:
        """Raises ResdError if the run does not fit into memory at its maximum lengths."""
        if self.forecast is None:
            return
        if self.forecast.peak > self.forecast.hardware.memory:
            raise ResdError(refusal(self.forecast))
        _check_engine(self.forecast)

    def check_standing(self) -> None:
        """Raises ResdError if the run does not fit into memory at any length."""
        run = self.forecast
        if run is not None and _least(run) > run.hardware.memory:
            raise ResdError(refusal(run))


def look_ahead(
    config: RunConfig, plan: Plan, problems: Sequence[Problem], hardware: str | None = None
) -> Outlook:
    """The forecast for the named hardware, or for this machine. `problems` are the training problems.

    Raises ResdError for an unknown name.
    """
    named = find(hardware) if hardware else None
    folder = shape_folder(config.model)
    if world_size() > 1:
        return Outlook(config, None, "several processes share the run, and a forecast is of one device")
    if folder is None:
        return Outlook(
            config,
            None,
            f"{config.model} has not been fetched from the hub; for a forecast, fetch its config.json, "
            "or set model to a folder that has it",
        )
    try:
        shape = read_shape(folder)
        machine = named or this_machine(config.device)
    except ResdError as error:
        return Outlook(config, None, str(error))
    work = workload(config, plan, prompt_tokens(problems), shape)
    return Outlook(config, make_forecast(config, shape, machine, work))


def make_forecast(config: RunConfig, shape: ModelShape, machine: Hardware, work: Workload) -> Forecast:
    """The forecast of a run that trains all weights or adapters."""
    if config.lora.rank is None:
        return Forecast(shape, machine, work, choices(config))
    chosen = config.lora.target_modules
    names = None if chosen == "all-linear" else tuple(name.rpartition(".")[2] for name in chosen)
    return LoRAForecast(shape, machine, work, choices(config), config.lora.rank, names)


def shape_folder(name: str) -> Path | None:
    """The folder of a model's config.json; for an adapter folder, that of its base model."""
    folder = model_folder(name) or fetched_folder(name)
    if folder is None or not (settings := folder / "adapter_config.json").is_file():
        return folder
    return shape_folder(json.loads(settings.read_text(encoding="utf-8"))["base_model_name_or_path"])


def fetched_folder(name: str) -> Path | None:
    """The hub cache's folder with a model's config.json, if already fetched. Nothing is fetched here."""
    from huggingface_hub import constants, try_to_load_from_cache

    try:
        found = try_to_load_from_cache(name, "config.json", cache_dir=constants.HF_HUB_CACHE)
    except ValueError:  # not a valid hub name
        return None
    return Path(found).parent if isinstance(found, str) else None


def prompt_tokens(problems: Sequence[Problem]) -> int:
    """The approximate prompt tokens of the longest problem."""
    characters = (sum(len(message["content"]) for message in problem.messages) for problem in problems)
    return -(-max(characters) // CHARACTERS_PER_TOKEN)


def workload(config: RunConfig, plan: Plan, prompt: int, shape: ModelShape) -> Workload:
    """The workload at maximum lengths."""
    context, attempts = config.context, config.stream.batch_size * config.rollout.n
    engine = config.keeps_playbook
    reply = max(context.max_reflection_tokens, context.max_curation_tokens) if engine else 0
    longest_prompt = max(1, min(context.max_prompt_tokens, shape.positions - reply))
    longest_taught = max(1, min(context.max_prompt_tokens, shape.positions - config.rollout.max_tokens))
    most = attempts if context.max_curations is None else min(attempts, context.max_curations)
    return Workload(
        attempts=attempts,
        prompt=prompt,
        reply=config.rollout.max_tokens,
        longest=config.rollout.max_tokens,
        teacher_prompt=longest_taught if config.has_teacher else 0,
        reflections=attempts if engine else 0,
        reflection=context.max_reflection_tokens,
        curations=most if engine else 0,
        curation=context.max_curation_tokens,
        context_prompt=longest_prompt if engine else 0,
        samples=plan.evaluation_samples,
        updates=plan.updates,
        evaluations=plan.evaluations,
        micro_batch_tokens=config.optimizer.micro_batch_tokens,
    )


def choices(config: RunConfig) -> Choices:
    author = config.keeps_playbook and config.context.author == "teacher"
    # The initial weights of a student with adapters are in memory anyway.
    copied = ("ema", "frozen", "trust_region") if config.lora.rank is None else ("ema",)
    return Choices(
        teacher_copy=config.has_teacher and config.teacher.kind in copied,
        decoders=2 if author else 1,
        vllm=config.generation.gpu_memory_utilization if config.generation.engine == "vllm" else None,
        bfloat16=None if config.compute_dtype == "auto" else config.compute_dtype == "bfloat16",
        checkpointing=config.optimizer.activation_checkpointing,
        offload=config.optimizer.offload,
        measured=config.keeps_playbook and config.context.credit == "measured",
    )


def refusal(run: Forecast) -> str:
    """One sentence: what does not fit, and what would help."""
    doing, peak = max(run.peaks.items(), key=lambda item: item[1])
    parts = {**run.always, **(run.learning if doing == "update" else run.generating)}
    name, size = max(parts.items(), key=lambda item: item[1])
    return (
        f"memory: the {doing} may take {_gib(peak)} GiB, of which {name} {_gib(size)}, and "
        f"{run.hardware.name} has {_gib(run.hardware.memory)}; {_remedy(run)}"
    )


def _check_engine(run: Forecast) -> None:
    """Raises ResdError if vLLM has no room for the longest request."""
    needed = run.longest_columns * run.cache_bytes_per_token
    if run.choices.vllm is None or run.cache_room >= needed:
        return
    raise ResdError(
        f"memory: generation.gpu_memory_utilization {run.choices.vllm} of {run.hardware.name} leaves "
        f"{_gib(max(0, run.cache_room))} GiB for keys and values, and a request of "
        f"{run.longest_columns:,.0f} tokens needs {_gib(needed)}; raise it, or shorten prompts and replies"
    )


def _least(run: Forecast) -> int:
    return sum(run.standing.values()) + run.updating["gradients"]


def _remedy(run: Forecast) -> str:
    """Advice: the first change that makes the run fit."""
    longest = int(max(run.student_row, run.teacher_row))
    smaller = replace(run.workload, micro_batch_tokens=min(longest, run.workload.micro_batch_tokens))
    redone = replace(run.choices, checkpointing=True)
    fewer = f"optimizer.micro_batch_tokens to {smaller.micro_batch_tokens}"
    recompute = "optimizer.activation_checkpointing to true"
    for words, changed in (
        (f"set {recompute}", replace(run, choices=redone)),
        (f"set {fewer}, the longest row", replace(run, workload=smaller)),
        (f"set {recompute} and {fewer}, the longest row", replace(run, choices=redone, workload=smaller)),
    ):
        if changed.peak <= run.hardware.memory:
            return words
    if _least(run) > run.hardware.memory:
        return "use a smaller model, or hardware with more memory"
    return "lower rollout.max_tokens and context.max_prompt_tokens, or use hardware with more memory"


def _opening(run: Forecast) -> list[str]:
    shape, hardware, work = run.shape, run.hardware, run.workload
    fits = work.prompt + work.longest <= shape.positions
    warning = "" if fits else f"; the model has {shape.positions:,} positions, too few for the longest"
    experts = f", {shape.active / 1e9:.3g} for each token" if shape.experts else ""
    told: tuple[str, ...] = (
        f"model        {shape.parameters / 1e9:.3g} billion parameters{experts}: {shape.layers} layers, "
        f"hidden {shape.hidden}, vocabulary {shape.vocab:,}",
        f"hardware     {hardware.name}: {_gib(hardware.memory)} GiB, {hardware.matrix / 1e12:.3g} TFLOP/s "
        f"reached, {hardware.bandwidth / 1e9:,.0f} GB/s",
        f"lengths      at most: prompts about {work.prompt:,} tokens, replies {work.reply:,.0f}, teacher "
        f"prompts {work.teacher_prompt:,.0f}{warning}",
    )
    if isinstance(run, LoRAForecast) and run.targets is None and shape.unadapted:
        told += (
            f"adapters     none for the {shape.unadapted / 1e9:.3g} billion parameters of experts and MLPs",
        )
    return [line for sentence in told for line in wrapped(sentence)]


def _memory(run: Forecast) -> list[str]:
    redone, kept = run.activations(True), run.activations(False)
    how = {
        **NOTES,
        "weights": "float32" if run.weight_bytes == 4 else "bfloat16",
        "adapters": f"float32, {run.standing.get('adapters', 0) / 4e6:,.1f} million parameters",
        "activations": f"{run.student_tokens:,.0f} tokens: {_gib(redone)} checkpointed, "
        f"{_gib(kept)} kept whole",
        "tiles of the loss": "logits and their gradients, the head's, rounded heads",
        "KV cache": f"{run.cache_bytes_per_token / 1024:,.0f} KiB a token",
    }
    sections = (("always", run.always), ("decoding", run.generating), ("update", run.learning))
    rows = []
    for section, parts in sections:
        for index, (name, size) in enumerate(parts.items()):
            note = how.get(name, "") if size else ""
            rows.append(f"{section if not index else '':<12} {name:<18}{_gib(size):>8}  {note}".rstrip())
    peaks = ", ".join(f"{name} {_gib(size)}" for name, size in run.peaks.items())
    fits = "fits" if run.peak <= run.hardware.memory else "does not fit"
    return [
        "memory, GiB",
        *rows,
        f"{'peak':<12} {peaks}: {fits} into {_gib(run.hardware.memory)}",
    ]


def _time(run: Forecast) -> list[str]:
    work = run.workload
    counts = {name: work.evaluations if name == "evaluation" else work.updates for name in run.phases}
    rows = [
        f"{'':<12} {name:<26}{_duration(seconds):>9}{counts[name]:>8,}{_duration(seconds * counts[name]):>11}"
        for name, seconds in run.phases.items()
    ]
    head = f"{'time':<12} {'':<26}{'each':>9}{'times':>8}{'in all':>11}"
    return [head, *rows, f"{'':<12} {'the run, at most':<26}{'':>17}{_duration(run.run_seconds):>11}"]


def _measured(run: Forecast, config: RunConfig) -> Iterator[list[str]]:
    """Comparison of the forecast with measurements of this configuration in the run's folder, if any."""
    folder = Path(config.output)
    metrics, timing = (journal.read(folder / name) for name in (journal.METRICS, journal.TIMING))
    found = {name: [row[key] for row in timing if (key := f"timing_s/{name}") in row] for name in TIMED}
    if not timing:
        return
    try:
        check_folder(folder, config, resume=True)
    except ResdError as error:
        yield wrapped(f"measured     not compared: {error}")
        return
    if any(found.values()):
        yield list(_off_by(run, replace(run, workload=lengths_of(run.workload, metrics)), found, folder))
    if peaks := [row[PEAK] for row in (*metrics, *timing) if PEAK in row]:
        ratio = max(peaks) * GIB / run.peak
        yield [f"memory       peak {max(peaks):.1f} GiB measured, {ratio:.2f} of the forecast"]


def lengths_of(work: Workload, metrics: Sequence[Mapping[str, Any]]) -> Workload:
    """The workload with the lengths and counts that a run logged, and limits where it logged none.

    Prompts of the context engine are assumed to be as long as the teacher's.
    """

    def logged(name: str, default: float, merge: Callable[[list[float]], float] = fmean) -> float:
        return merge(values) if (values := [row[name] for row in metrics if name in row]) else default

    teacher = logged("self_distillation/reprompt_len_mean", work.teacher_prompt)
    return replace(
        work,
        prompt=round(logged("prompt_length/mean", work.prompt)),
        reply=max(1.0, logged("response_length/mean", work.reply)),
        longest=max(1.0, logged("response_length/max", work.longest)),
        teacher_prompt=min(work.teacher_prompt, teacher),
        context_prompt=min(work.context_prompt, round(teacher)),
        curations=round(logged("context/curations", work.curations)),
    )


def _off_by(
    limits: Forecast, run: Forecast, found: Mapping[str, Sequence[float]], folder: Path
) -> Iterator[str]:
    updates, evaluations = len(found["update"]), len(found["evaluation"])
    yield from wrapped(f"measured     medians of {updates} updates and {evaluations} evaluations in {folder}")
    yield f"{'':<12} {'':<36}{'at most':>9}{'at its lengths':>16}{'measured':>10}{'off':>7}"
    for name, seconds in found.items():
        if not seconds:
            continue
        most, expected = (sum(one.phases[phase] for phase in TIMED[name]) for one in (limits, run))
        middle = median(seconds)
        off = f"{middle / expected:.2f}x" if expected else ""
        cells = f"{_duration(most):>9}{_duration(expected):>16}{_duration(middle):>10}{off:>7}"
        yield f"{'':<12} {' and '.join(TIMED[name]):<36}{cells}"


def _gib(count: float) -> str:
    return f"{count / GIB:,.2f}" if count < 10 * GIB else f"{count / GIB:,.1f}"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
