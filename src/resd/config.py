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
    """Base of all sections: unknown keys are errors, and instances are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Reject booleans for numbers: pydantic would take true as 1."""
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and {int, float} & {kind, *get_args(kind)}:
            raise ValueError(f"should be a number, not {str(value).lower()}")
        return value


class EnvironmentConfig(Section):
    name: str = "manufactoria"
    # Passed to the environment unchanged, e.g. {"family": "has", "prompt": "compact"}.
    options: dict[str, Any] = Field(default_factory=dict)


class RolloutConfig(Section):
    n: int = Field(1, ge=1)  # attempts per problem and update
    max_tokens: int = Field(1024, ge=1)  # the response alone
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1.0)  # below 1, importance ratios use the truncated support
    thinking: bool = True


class GenerationConfig(Section):
    """The generation engine. All keys but `engine` are vLLM's, under their vLLM names."""

    engine: Literal["decoder", "vllm"] = "decoder"
    gpu_memory_utilization: float = Field(0.4, gt=0, lt=1)  # share of each GPU, while awake
    tensor_parallel_size: int = Field(1, ge=1)
    max_model_len: int | None = Field(None, ge=1)  # prompt and response; None: the model's maximum
    prefix_caching: bool = True


class StreamConfig(Section):
    batch_size: int = Field(32, ge=1)  # problems per batch; each problem is in one batch only
    updates_per_batch: int = Field(4, ge=1)  # K
    max_updates: int | None = Field(None, ge=0)  # None: the whole stream
    # Leave a batch early when fewer problems than this improved since the last update. 0: never.
    early_stop_improvement: Fraction = 0.0
    min_updates_per_batch: int = Field(1, ge=1)


class ContextConfig(Section):
    """The context engine (the reference's `spec` names in brackets where they differ)."""

    style: Literal["compact", "full"] = "full"
    order: Literal["static_first", "as_released"] = "static_first"
    prompts: str | None = Field(None, min_length=1)  # YAML that overrides the style's wording [prompt_file]
    mode: Literal["global", "per_example"] = "global"
    max_entries: int | None = Field(120, ge=1)  # M_max
    concise_method: Literal["reset", "prioritized", "staleness"] = "staleness"
    concise_frequency: int | None = Field(4, ge=1)  # F, in context updates
    concise_after_curation: bool = True
    # How entries earn their place: by the reflector's tags alone, or by their effect on the teacher's
    # predictions (`context/credit.py`), with tags deciding until that is known.
    credit: Literal["votes", "measured"] = "votes"
    credit_budget: int = Field(32, ge=1)  # measurements per playbook and update
    probation: Literal["shown", "withheld"] = "shown"  # whether the teacher sees unproven entries
    over_budget: Literal["oldest", "least_relevant"] = "oldest"  # entries dropped first from a full prompt
    tag_successes: bool = True  # [tag_correct_samples]
    one_curation_per_problem: bool = True  # [deduplicate_rollouts]
    use_solution_buffer: bool = True
    # What the teacher sees.
    use_playbook: bool = True
    use_reflection: bool = True
    use_feedback: bool = True
    use_trial: bool | None = None  # None: RESD shows it, SDPO, SRPO and RLSD do not
    use_solution: bool = True
    # None: RESD shows both; SDPO, SRPO and RLSD show feedback only without a solution. True = as released.
    drop_feedback_with_solution: bool | None = None
    # Distil successes against their own solution. None: the algorithm's default (resd does, sdpo does not).
    distill_successes: bool | None = None
    remove_thinking: bool = True
    reflect_on_thinking: bool = True  # the reflector sees the end of the thinking too; False = as released
    max_prompt_tokens: int = Field(8192, ge=16)  # teacher, reflector and curator prompts
    # Whose weights write reflections, tags and curations. The teacher's change slowly or not at all, so that
    # training one role does not degrade the others. Costs one more copy of the weights if decoding uses
    # another dtype than the teacher's float32.
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
    # Training rollouts also see a snapshot of the playbook, taken every `student_playbook_sync` updates.
    student_playbook: bool = False  # [use_playbook_in_student_rollout]
    # [student_playbook_sync_frequency] None: `concise_frequency`, or 1 where that is None.
    student_playbook_sync: int | None = Field(None, ge=1)

    @property
    def snapshot_every(self) -> int | None:
        """Context updates between two snapshots for the student; None if it sees no playbook."""
        return (self.student_playbook_sync or self.concise_frequency or 1) if self.student_playbook else None


class DistillationConfig(Section):
    alpha: Fraction = 1.0  # 0 forward KL, 1 reverse KL, between: generalised JSD
    topk: int | None = Field(100, ge=1)  # None: the full vocabulary
    add_tail: bool = True
    selector: Literal["student", "teacher", "union"] = "student"
    min_ratio: float | None = Field(0.2, gt=0, le=1)  # eps_min: teacher/student probability ratio
    max_ratio: float | None = Field(None, gt=0)  # eps_max
    token_level: bool = False  # the sampled token only; needs alpha 1
    is_clip: float | None = Field(2.0, gt=0)  # cap of the student/rollout importance weight
    # Success-rate weights. None: the algorithm's default (resd uses them, sdpo does not).
    rebalance: bool | None = None
    rebalance_alpha: float = 1.0
    rebalance_beta: float = 1.0

    @model_validator(mode="after")
    def _check_combination(self) -> DistillationConfig:
        if self.token_level and self.alpha != 1.0:
            raise ValueError("token_level needs alpha 1 (it is an estimate of the reverse KL)")
        if self.min_ratio is not None and self.max_ratio is not None and self.min_ratio > self.max_ratio:
            raise ValueError("min_ratio must not exceed max_ratio")
        return self


class TeacherConfig(Section):
    kind: Literal["ema", "frozen", "live", "trust_region"] = "ema"
    update_rate: Fraction = 1e-4  # ema: share of the student per update; trust_region: share of its logits


class LoRAConfig(Section):
    """Low-rank adapters (arXiv 2106.09685): the base weights are frozen."""

    rank: int | None = Field(None, ge=1)  # None: train all weights
    alpha: float = Field(32.0, gt=0)  # adapter outputs are scaled by alpha / rank
    # Linear layers to adapt: all but the output layer, or those named, e.g. [q_proj, v_proj].
    target_modules: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"


class PolicyConfig(Section):
    """Settings of GRPO, shared by SRPO and RLSD."""

    clip_low: float = Field(0.2, gt=0)
    clip_high: float = Field(0.28, gt=0)
    dual_clip: float | None = Field(3.0, gt=1)
    normalize_by_std: bool = True
    is_clip: float | None = Field(2.0, gt=0)  # cap of the student/rollout importance weight
    is_level: Literal["token", "sequence"] = "token"  # granularity of that weight


class SRPOConfig(Section):
    """Settings that SRPO (arXiv 2604.02288) adds to `distillation` and `policy`."""

    entropy_beta: float = Field(1.0, ge=0)  # distilled tokens are weighted by exp(-beta * teacher entropy)


class RLSDConfig(Section):
    """Settings that RLSD (arXiv 2604.03128) adds to `policy`."""

    mixing: Fraction = 0.5  # weight of the teacher in a token's advantage, before the first update
    final_mixing: Fraction = 0.0
    decay_updates: int = Field(50, ge=1)  # length of the linear decay
    max_change: Fraction = 0.2  # the teacher's factor is clipped to 1 +- this


class OptimizerConfig(Section):
    learning_rate: float = Field(1e-6, gt=0)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    weight_decay: float = Field(0.01, ge=0)
    warmup_updates: int = Field(10, ge=0)  # linear; the first update has 1/warmup of the rate
    # Adam's steps do not depend on the gradient's scale: once nearly everything is solved and gradients are
    # tiny, they follow noise at full speed. An eps near the size of those gradients' elements damps them.
    eps: float = Field(1e-8, gt=0)
    # After the warm-up, the rate falls to `final_ratio` of its peak over the largest possible number of
    # updates. A run resumed with another `stream.max_updates` follows the schedule of the new total.
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    final_ratio: Fraction = 0.0
    grad_clip: float = Field(1.0, gt=0)
    micro_batch_tokens: int = Field(16384, ge=1)  # tokens per forward with padding; does not change results
    # Pack examples into one row, without padding. None: on a GPU in bfloat16, if there are kernels for it.
    packing: bool | None = None
    # Recompute layers in the backward pass instead of storing activations. None: on a GPU, for models of
    # more than 0.2 billion parameters.
    activation_checkpointing: bool | None = None
    # Keep optimizer moments and the teacher in pinned host memory during generation.
    offload: bool = False


class SwitchConfig(Section):
    """Switching to another algorithm once success is common (the paper's own advice, section 6)."""

    to: Literal["grpo", "srpo", "rlsd", "sdpo"] | None = None
    n: int = Field(8, ge=1)  # attempts per problem and update from then on
    success: Fraction = 0.7  # share of an update's attempts; `to` starts at the next update


class EvaluationConfig(Section):
    split: str = "test"
    samples: int = Field(4, ge=1)
    temperature: float = Field(0.6, ge=0)
    top_p: float = Field(0.95, gt=0, le=1.0)
    every_batches: int | None = Field(1, ge=1)  # None: only before the first and after the last update
    playbook: bool = False  # held-out prompts show the current playbook
    limit: int | None = Field(None, ge=1)  # use only the first `limit` problems
    seed: int = 20_260_512


class CheckpointConfig(Section):
    every_updates: int = Field(4, ge=1)
    keep: int | None = Field(2, ge=1)


class LoggingConfig(Section):
    tensorboard: bool = False
    wandb: bool = False
    project: str = "resd"
    token_losses: int = Field(0, ge=0)  # responses per update whose per-token divergences are logged
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
        """Whether the run has a context engine."""
        return TRAITS[self.algorithm].keeps_playbook

    @property
    def has_teacher(self) -> bool:
        """Whether any algorithm of the run uses a teacher."""
        return any(TRAITS[name].has_teacher for name in (self.algorithm, self.switch.to) if name)

    @model_validator(mode="after")
    def _check_combination(self) -> RunConfig:
        then = [(self.switch.to, self.switch.n, "switch.n")] if self.switch.to else []
        for algorithm, n, key in [(self.algorithm, self.rollout.n, "rollout.n"), *then]:
            if TRAITS[algorithm].compares_tries and n < 2:
                raise ValueError(
                    f"algorithm {algorithm} compares attempts at one problem: set {key} to 2 or more"
                )
        if self.evaluation.playbook and not (self.keeps_playbook and self.context.mode == "global"):
            raise ValueError(
                "evaluation.playbook needs algorithm resd or ace and context.mode global: no other "
                "playbook applies to held-out problems"
            )
        if self.algorithm == "resd" and self.context.distill_successes and not self.context.use_solution:
            raise ValueError(
                "context.distill_successes true needs context.use_solution: a success is distilled against "
                "its own text"
            )
        if self.algorithm == "ace" and not (self.evaluation.playbook or self.context.student_playbook):
            raise ValueError(
                "algorithm ace only changes the playbook: set evaluation.playbook or "
                "context.student_playbook to true, or the student never sees it"
            )
        if self.context.author == "teacher" and self.teacher.kind not in ("ema", "frozen"):
            raise ValueError(
                f"context.author teacher needs teacher.kind ema or frozen: a teacher of kind "
                f"{self.teacher.kind} scores with the student's weights"
            )
        if self.context.probation == "withheld" and self.context.credit == "votes":
            raise ValueError("context.probation withheld needs context.credit measured: votes never end it")
        if self.context.author == "teacher" and self.generation.engine == "vllm":
            raise ValueError(
                "context.author teacher would need a second vLLM engine on the same GPU: set "
                "generation.engine to decoder or context.author to student"
            )
        snapshot_every = self.context.snapshot_every if self.context.mode == "per_example" else None
        if snapshot_every and snapshot_every >= self.stream.updates_per_batch:
            raise ValueError(
                f"context.student_playbook in mode per_example: a snapshot every {snapshot_every} updates "
                f"comes too late for a problem that gets {self.stream.updates_per_batch}; set "
                "context.student_playbook_sync below stream.updates_per_batch"
            )
        if self.stream.min_updates_per_batch > self.stream.updates_per_batch:
            raise ValueError("stream.min_updates_per_batch must not exceed stream.updates_per_batch")
        return self


def load_config(path: str | Path, overrides: list[str] | None = None) -> RunConfig:
    """Read a YAML file, apply dotted `key=value` overrides, validate. Raises ResdError with one sentence."""
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ResdError(f"config {path}: cannot be read ({error.strerror}); give a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ResdError(f"config {path}: not valid YAML ({reason})") from error
    if not isinstance(data, dict):
        raise ResdError(f"config {path}: is not a mapping; write keys and values, as in `model: lab`")
    before = _first_mistake(data)
    for override in overrides or []:
        apply_override(data, override)
    # Errors in the file as it stands are reported for the file, all others for the overrides.
    return check_config(data, str(path) if _first_mistake(data) == before else "command line")


def check_config(data: Any, where: str) -> RunConfig:
    """Build a `RunConfig` from plain data. Raises ResdError for the first error; `where` names the source."""
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise ResdError(f"{where}: {_describe(error)}") from error


def _first_mistake(data: Any) -> str | None:
    try:
        RunConfig.model_validate(data)
    except ValidationError as error:
        return _describe(error)
    return None


def _describe(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    return ": ".join([*([key] if key else []), _complaint(key, first)])


def _complaint(key: str, error: ErrorDetails) -> str:
    """Pydantic's complaint, with the offending value."""
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
    """Set a dotted `key=value` in plain data. Raises ResdError if `override` is malformed."""
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
    """Parse YAML, and floats such as 1e-4, which YAML 1.1 reads as text."""
    parsed = yaml.safe_load(value) if value else ""
    if isinstance(parsed, str):
        try:
            return float(parsed)
        except ValueError:
            return parsed
    return parsed


def _known(key: str) -> str:
    """A hint for an unknown key: the key probably meant, or all keys of its section."""
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
    """The pydantic model of a section; None if `name` is a plain value."""
    kind = model.model_fields[name].annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
