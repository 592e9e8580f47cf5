"""The configuration of a run: pydantic models, YAML, and dotted `key=value` overrides. No torch here.

The values are the paper's (arXiv 2605.12741) unless a comment says otherwise; `docs/settings.md` says where
paper, released code and this project differ.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from resd.algorithms.traits import TRAITS
from resd.records import ResdError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """Every part of the configuration: unknown keys are errors, values are fixed once checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Where a number is wanted, true would be taken as 1."""
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and {int, float} & {kind, *get_args(kind)}:
            raise ValueError(f"should be a number, not {str(value).lower()}")
        return value


class EnvironmentConfig(Section):
    name: str = "manufactoria"
    # Passed to the environment as they are, e.g. {"family": "has", "prompt": "compact"}.
    options: dict[str, Any] = Field(default_factory=dict)


class RolloutConfig(Section):
    n: int = Field(1, ge=1)  # tries per problem and update
    max_tokens: int = Field(1024, ge=1)  # the response alone
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1.0)  # below 1, importance ratios are taken on the kept support
    thinking: bool = True


class GenerationConfig(Section):
    """Who decodes. All but `engine` is for vLLM, by the names that it has there."""

    engine: Literal["decoder", "vllm"] = "decoder"
    gpu_memory_utilization: float = Field(0.4, gt=0, lt=1)  # share of each GPU, while awake
    tensor_parallel_size: int = Field(1, ge=1)
    max_model_len: int | None = Field(None, ge=1)  # prompt and response; None: the model's positions
    prefix_caching: bool = True


class StreamConfig(Section):
    batch_size: int = Field(32, ge=1)  # problems per batch; each problem is in one batch only
    updates_per_batch: int = Field(4, ge=1)  # K
    max_updates: int | None = Field(None, ge=0)  # None: the whole stream
    # Leave a batch early when fewer problems than this improved since the last update. 0 never does.
    early_stop_improvement: Fraction = 0.0
    min_updates_per_batch: int = Field(1, ge=1)


class ContextConfig(Section):
    """The context engine (`spec` names of the reference in brackets where they differ)."""

    style: Literal["compact", "full"] = "full"
    order: Literal["static_first", "as_released"] = "static_first"
    prompts: str | None = Field(None, min_length=1)  # YAML: words in place of the style's [prompt_file]
    mode: Literal["global", "per_example"] = "global"
    max_entries: int | None = Field(120, ge=1)  # M_max
    concise_method: Literal["reset", "prioritized", "staleness"] = "staleness"
    concise_frequency: int | None = Field(4, ge=1)  # F, in context updates
    concise_after_curation: bool = True
    # How entries earn their place: by the reflector's tags alone, or by what they do to the teacher's
    # predictions (`context/credit.py`), tags being what counts until that is known.
    credit: Literal["votes", "measured"] = "votes"
    credit_budget: int = Field(32, ge=1)  # measurements per playbook and update
    probation: Literal["shown", "withheld"] = "shown"  # whether the teacher sees entries not yet proven
    over_budget: Literal["oldest", "least_relevant"] = "oldest"  # entries that a full prompt does without
    tag_successes: bool = True  # [tag_correct_samples]
    one_curation_per_problem: bool = True  # [deduplicate_rollouts]
    use_solution_buffer: bool = True
    # What the teacher is shown.
    use_playbook: bool = True
    use_reflection: bool = True
    use_feedback: bool = True
    use_trial: bool | None = None  # None: RESD shows it, SDPO, SRPO and RLSD do not
    use_solution: bool = True
    # None: RESD shows both; SDPO, SRPO and RLSD the feedback only without a solution. True = as released.
    drop_feedback_with_solution: bool | None = None
    # Distil successes against their own solution. None: as the algorithm has it (resd does, sdpo does not).
    distill_successes: bool | None = None
    remove_thinking: bool = True
    reflect_on_thinking: bool = True  # the reflector sees the end of the thinking too; False = as released
    max_prompt_tokens: int = Field(8192, ge=16)  # teacher, reflector and curator prompts
    # Whose weights write reflections, tags and curations. The teacher's change slowly or not at all, so that
    # training on one role does not wear off the others; costs one more copy of the weights for decoding where
    # that is in another dtype than the teacher's float32.
    author: Literal["student", "teacher"] = "student"
    max_reflection_tokens: int = Field(1024, ge=32)
    max_curation_tokens: int = Field(512, ge=32)
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1.0)
    # Curation goes in waves against the current playbook: this many reflections at a time, at most
    # `max_curations` per update; while the playbook is smaller than `sequential_below`, one at a time.
    curation_wave: int = Field(4, ge=1)
    max_curations: int | None = Field(8, ge=0)
    sequential_below: int = Field(8, ge=0)
    # Training rollouts see a snapshot of the playbook too, taken every so many context updates.
    student_playbook: bool = False  # [use_playbook_in_student_rollout]
    # [student_playbook_sync_frequency] None: `concise_frequency`, or 1 where that is None.
    student_playbook_sync: int | None = Field(None, ge=1)

    @property
    def snapshot_every(self) -> int | None:
        """Context updates between two snapshots for the student; None where it is shown none."""
        return (self.student_playbook_sync or self.concise_frequency or 1) if self.student_playbook else None


class DistillationConfig(Section):
    alpha: Fraction = 1.0  # 0 forward KL, 1 reverse KL, between: generalised JSD
    topk: int | None = Field(100, ge=1)  # None: the full vocabulary
    add_tail: bool = True
    selector: Literal["student", "teacher", "union"] = "student"
    min_ratio: float | None = Field(0.2, gt=0, le=1)  # eps_min: teacher/student probability ratio
    max_ratio: float | None = Field(None, gt=0)  # eps_max
    token_level: bool = False  # only the sampled token; needs alpha 1
    is_clip: float | None = Field(2.0, gt=0)  # cap of the student/rollout importance weight
    # Success-rate weights. None: as the algorithm has it (resd does, sdpo does not).
    rebalance: bool | None = None
    rebalance_alpha: float = 1.0
    rebalance_beta: float = 1.0

    @model_validator(mode="after")
    def _possible(self) -> DistillationConfig:
        if self.token_level and self.alpha != 1.0:
            raise ValueError("token_level needs alpha 1 (it is an estimate of the reverse KL)")
        if self.min_ratio is not None and self.max_ratio is not None and self.min_ratio > self.max_ratio:
            raise ValueError("min_ratio must not exceed max_ratio")
        return self


class TeacherConfig(Section):
    kind: Literal["ema", "frozen", "live", "trust_region"] = "ema"
    update_rate: Fraction = 1e-4  # ema: share of the student per update; trust_region: share of its logits


class LoRAConfig(Section):
    """Low-rank adapters (arXiv 2106.09685): the model itself stays as it is."""

    rank: int | None = Field(None, ge=1)  # None: all weights are trained
    alpha: float = Field(32.0, gt=0)  # what an adapter adds is scaled by alpha / rank
    # Linear layers to adapt: all but the output layer, or those of these names, as [q_proj, v_proj].
    target_modules: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"


class PolicyConfig(Section):
    """GRPO, and what SRPO and RLSD take from it."""

    clip_low: float = Field(0.2, gt=0)
    clip_high: float = Field(0.28, gt=0)
    dual_clip: float | None = Field(3.0, gt=1)
    normalize_by_std: bool = True
    is_clip: float | None = Field(2.0, gt=0)  # cap of the student/rollout importance weight
    is_level: Literal["token", "sequence"] = "token"  # what that weight is of


class SRPOConfig(Section):
    """What SRPO (arXiv 2604.02288) adds to `distillation` and `policy`."""

    entropy_beta: float = Field(1.0, ge=0)  # distilled tokens weigh exp(-beta * the teacher's entropy)


class RLSDConfig(Section):
    """What RLSD (arXiv 2604.03128) adds to `policy`."""

    mixing: Fraction = 0.5  # share of the teacher's say in a token's advantage, before the first update
    final_mixing: Fraction = 0.0
    decay_updates: int = Field(50, ge=1)  # linear from the one to the other
    max_change: Fraction = 0.2  # the teacher's factor is clipped to 1 +- this


class OptimizerConfig(Section):
    learning_rate: float = Field(1e-6, gt=0)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    weight_decay: float = Field(0.01, ge=0)
    warmup_updates: int = Field(10, ge=0)  # linear; the first update already has 1/warmup of the rate
    # Adam's steps do not depend on the gradient's scale: once nearly all is solved and gradients are tiny,
    # they follow noise at full speed. An eps near the size of such gradients' elements makes them shrink too.
    eps: float = Field(1e-8, gt=0)
    # After the warm-up, the rate falls to `final_ratio` of it over the updates that the run can have. A run
    # that is resumed with another `stream.max_updates` follows the schedule of the new total from there on.
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    final_ratio: Fraction = 0.0
    grad_clip: float = Field(1.0, gt=0)
    micro_batch_tokens: int = Field(16384, ge=1)  # tokens per forward, padding included; changes no numbers
    # Examples in one row, without padding. None: on a GPU in bfloat16, where there are kernels for it.
    packing: bool | None = None
    # Compute layers again in the backward pass instead of keeping what they made. None: on a GPU, for models
    # of more than 0.2 billion parameters.
    activation_checkpointing: bool | None = None
    # Moments and the teacher wait in pinned host memory while text is generated.
    offload: bool = False


class SwitchConfig(Section):
    """Going on with another algorithm once success is common (the paper's own advice, section 6)."""

    to: Literal["grpo", "srpo", "rlsd", "sdpo"] | None = None
    n: int = Field(8, ge=1)  # tries per problem and update from there on
    success: Fraction = 0.7  # of an update's attempts; the next update is the first with `to`


class EvaluationConfig(Section):
    split: str = "test"
    samples: int = Field(4, ge=1)
    temperature: float = Field(0.6, ge=0)
    top_p: float = Field(0.95, gt=0, le=1.0)
    every_batches: int | None = Field(1, ge=1)  # None: only before the first and after the last update
    playbook: bool = False  # held-out prompts show the playbook as it is
    limit: int | None = Field(None, ge=1)  # only the first so many problems
    seed: int = 20_260_512


class CheckpointConfig(Section):
    every_updates: int = Field(4, ge=1)
    keep: int | None = Field(2, ge=1)


class LoggingConfig(Section):
    tensorboard: bool = False
    wandb: bool = False
    project: str = "resd"
    token_losses: int = Field(0, ge=0)  # responses per update whose divergences are kept token by token
    rollouts: bool = True  # rollouts, reflections and teacher prompts of each update as JSON Lines


class RunConfig(Section):
    model: str = "lab"  # "lab", a folder, or a hub name
    algorithm: Literal["resd", "sdpo", "grpo", "srpo", "rlsd", "ace"] = "resd"
    output: str = Field("runs/resd", min_length=1)
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    loss_aggregation: Literal[
        "seq_mean_including_empty",
        "token_mean",
        "seq_mean_token_mean",
        "seq_mean_token_sum",
        "seq_mean_token_sum_norm",
    ] = "seq_mean_including_empty"
    environment: EnvironmentConfig = EnvironmentConfig()
    rollout: RolloutConfig = RolloutConfig()
    generation: GenerationConfig = GenerationConfig()
    stream: StreamConfig = StreamConfig()
    context: ContextConfig = ContextConfig()
    distillation: DistillationConfig = DistillationConfig()
    teacher: TeacherConfig = TeacherConfig()
    lora: LoRAConfig = LoRAConfig()
    switch: SwitchConfig = SwitchConfig()
    policy: PolicyConfig = PolicyConfig()
    srpo: SRPOConfig = SRPOConfig()
    rlsd: RLSDConfig = RLSDConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()

    @property
    def keeps_playbook(self) -> bool:
        """Whether there is a context engine."""
        return TRAITS[self.algorithm].keeps_playbook

    @property
    def has_teacher(self) -> bool:
        """Whether some algorithm of the run asks a teacher anything."""
        return any(TRAITS[name].has_teacher for name in (self.algorithm, self.switch.to) if name)

    @model_validator(mode="after")
    def _possible(self) -> RunConfig:
        then = [(self.switch.to, self.switch.n, "switch.n")] if self.switch.to else []
        for algorithm, n, key in [(self.algorithm, self.rollout.n, "rollout.n"), *then]:
            if TRAITS[algorithm].compares_tries and n < 2:
                raise ValueError(
                    f"algorithm {algorithm} compares tries at one problem: set {key} to 2 or more"
                )
        if self.evaluation.playbook and not (self.keeps_playbook and self.context.mode == "global"):
            raise ValueError(
                "evaluation.playbook needs algorithm resd or ace and context.mode global: there is no other "
                "playbook for held-out problems"
            )
        if self.algorithm == "resd" and self.context.distill_successes and not self.context.use_solution:
            raise ValueError(
                "context.distill_successes true needs context.use_solution: a success is distilled against "
                "its own text"
            )
        if self.algorithm == "ace" and not (self.evaluation.playbook or self.context.student_playbook):
            raise ValueError(
                "algorithm ace changes the playbook alone: set evaluation.playbook or "
                "context.student_playbook to true, or nobody is shown it"
            )
        if self.context.author == "teacher" and self.teacher.kind not in ("ema", "frozen"):
            raise ValueError(
                f"context.author teacher needs teacher.kind ema or frozen: a teacher of kind "
                f"{self.teacher.kind} scores with the student's weights"
            )
        if self.context.probation == "withheld" and self.context.credit == "votes":
            raise ValueError("context.probation withheld needs context.credit measured: no vote ends it")
        if self.context.author == "teacher" and self.generation.engine == "vllm":
            raise ValueError(
                "context.author teacher would need a second vLLM engine on the same GPU: set "
                "generation.engine to decoder or context.author to student"
            )
        snapshot_every = self.context.snapshot_every if self.context.mode == "per_example" else None
        if snapshot_every and snapshot_every >= self.stream.updates_per_batch:
            raise ValueError(
                f"context.student_playbook in mode per_example: a snapshot after {snapshot_every} updates "
                f"comes too late for a problem that has {self.stream.updates_per_batch}; set "
                "context.student_playbook_sync below stream.updates_per_batch"
            )
        if self.stream.min_updates_per_batch > self.stream.updates_per_batch:
            raise ValueError("stream.min_updates_per_batch must not exceed stream.updates_per_batch")
        return self


def load_config(path: str | Path, overrides: list[str] | None = None) -> RunConfig:
    """Read a YAML file, apply dotted `key=value` overrides, check. Raises ResdError with one sentence."""
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ResdError(f"config {path}: cannot be read ({error.strerror}); give a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ResdError(f"config {path}: not valid YAML ({reason})") from error
    if not isinstance(data, dict):
        raise ResdError(f"config {path}: is no mapping; write keys and values, as in `model: lab`")
    before = _first_mistake(data)
    for override in overrides or []:
        apply_override(data, override)
    # What is wrong in the file as it stands is the file's, all else came with the overrides.
    return check_config(data, str(path) if _first_mistake(data) == before else "command line")


def check_config(data: Any, where: str) -> RunConfig:
    """A `RunConfig` from plain data; the first thing wrong becomes one sentence. `where` they are from."""
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise ResdError(f"{where}: {_told(error)}") from error


def _first_mistake(data: Any) -> str | None:
    try:
        RunConfig.model_validate(data)
    except ValidationError as error:
        return _told(error)
    return None


def _told(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    return ": ".join([*([key] if key else []), _complaint(key, first)])


def _complaint(key: str, error: ErrorDetails) -> str:
    """What pydantic found, with the value that it found."""
    match error["type"]:
        case "extra_forbidden":
            return f"is not a known key; {_known(key)}"
        case "value_error":
            return error["msg"].removeprefix("Value error, ")
        case "model_type" | "dict_type":
            return "is a section; give it keys and values"
    wanted = re.sub(r", (unable|got) .*", "", error["msg"]).removeprefix("Input ")
    return f"{wanted}, not {error['input']!r:.60}"


def apply_override(data: dict[str, Any], override: str) -> None:
    """Set a dotted `key=value` in plain data. Raises ResdError for what is none."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ResdError(f"override {override!r}: write it as key=value, as in optimizer.learning_rate=1e-4")
    *parents, leaf = key.split(".")
    node = data
    for name in parents:
        node = node.setdefault(name, {})
        if not isinstance(node, dict):
            raise ResdError(f"override {override!r}: {name} is a value, not a section")
    try:
        node[leaf] = _parse(value)
    except yaml.YAMLError as error:
        raise ResdError(f"override {override!r}: the value is not valid YAML; quote it") from error


def _parse(value: str) -> Any:
    """YAML, and floats such as 1e-4, which YAML 1.1 reads as text."""
    parsed = yaml.safe_load(value) if value else ""
    if isinstance(parsed, str):
        try:
            return float(parsed)
        except ValueError:
            return parsed
    return parsed


def _known(key: str) -> str:
    """For an unknown key: the one that was meant, or all that there are in its section."""
    *parents, leaf = key.split(".")
    model: type[BaseModel] = RunConfig
    for name in parents:
        model = _section(model, name) or model
    fields = list(model.model_fields)
    short = [name for name in fields if leaf == "".join(word[0] for word in name.split("_"))]
    if close := short or get_close_matches(leaf, fields, n=1):
        return f"did you mean {'.'.join([*parents, close[0]])}?"
    for name in RunConfig.model_fields:
        if (section := _section(RunConfig, name)) and leaf in section.model_fields:
            return f"did you mean {name}.{leaf}?"
    return f"known: {', '.join(fields)}"


def _section(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The model of a section; None for a value."""
    kind = model.model_fields[name].annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
