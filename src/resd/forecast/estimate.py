"""A run's memory by part and time by phase, computed from model shape and hardware, without torch.

Constants that mirror the program's are checked against it by tests; the others state their origin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from resd.forecast.hardware import Hardware
from resd.forecast.model_shape import ModelShape

# --- as in the program
TILE_BYTES = {"cuda": 320 << 20, "cpu": 2 << 20}  # objectives.chunked: logits of one side and tile
ROW_UNIT = 128
TILES_PER_PRODUCT = {"cuda": 4, "cpu": 1}
MAX_BATCH = {"cpu": 64, "cuda": 512}  # training.setup: requests decoded at once
CACHE_BYTES = 4 << 30  # generation.decoder: keys and values of one batch
PREFILL_TOKENS = 16384  # generation.forward: prompt tokens of one forward
LARGE = 200_000_000  # learner.learner: parameters from which on a GPU recomputes layers

# --- measured, or estimated
# The driver's context and the libraries' buffers on a GPU, the interpreter and torch on a CPU: about 0.6 GiB.
BASE_BYTES = 1 << 30
# Gradients of an MLP's three intermediate results live at once while a layer goes backward.
TRANSIENT = 3
# Bytes of a prefill's mask, per token and column: twice as a boolean, once in bfloat16.
MASK_BYTES = 4
# Time of the loss relative to its four matrix products: 126 ms for 93.5 ms on an H200.
LOSS_FACTOR = 1.35
# The rate of layers relative to large products, because of attention and elementwise float32 operations. With
# four billion parameters an H200 scored 147,000 tokens in rows of 37,000 in 5.8 s, and trained on 90,000 in
# rows of 23,000 in 13.2 s. On a CPU the rate itself was measured on layers.
LAYER_RATE = {"cuda": 0.66, "cpu": 1.0}
# A layer's activations are written once and read at least once, and so are their gradients. On a CPU the
# caches hold most of them.
TRAFFIC = {"cuda": 4, "cpu": 0}
# Bytes moved per parameter by one step: norm 4, clipping 8, AdamW 28, EMA 12, the decoder's copy 6.
STEP_BYTES = 58
# A layer in the library's forward launches about three times the operations of the lean decoding step.
EAGER = 3
# Sampling and bookkeeping of one decoding step, in units of layers.
SAMPLING_LAYERS = 4
# vLLM: its default number of concurrent sequences, and the overhead of a step beside reading weights and
# cache, constant and per row: 5,900 tokens a second with 32 rows and 14,500 with 256, Qwen3-4B on one H200.
VLLM_ROWS = 256
VLLM_STEP, VLLM_ROW = 1.9e-3, 42e-6
VLLM_CPU_CACHE = 1 << 30  # generation.vllm_runtime: on a CPU, whatever the share


@dataclass(frozen=True)
class Workload:
    """The work of an update and an evaluation. Lengths are in tokens.

    `reply` is the mean rollout length, `longest` the maximum, which its batch waits for. `teacher_prompt` is
    0 without a teacher; `reflections` and `curations` are 0 without a context engine.
    """

    attempts: int
    prompt: int
    reply: float
    longest: float
    teacher_prompt: float
    reflections: int
    reflection: int
    curations: int
    curation: int
    context_prompt: int
    samples: int
    updates: int
    evaluations: int
    micro_batch_tokens: int


@dataclass(frozen=True)
class Choices:
    """Settings that affect memory. `checkpointing` None is the learner's default."""

    teacher_copy: bool
    decoders: int = 1  # engines: each keeps a copy if it decodes in another dtype
    vllm: float | None = None  # its share of a GPU while awake; None: the embedded decoder
    bfloat16: bool | None = None  # compute dtype; None: if native
    checkpointing: bool | None = None
    offload: bool = False  # moments and an idle teacher are on the host during generation
    measured: bool = False  # credit: the teacher scores while an engine is awake


@dataclass(frozen=True)
class Forecast:
    """Memory and time of `workload` on `hardware`, training all weights of a model of this shape."""

    shape: ModelShape
    hardware: Hardware
    workload: Workload
    choices: Choices

    # --- memory, bytes

    @cached_property
    def standing(self) -> Mapping[str, int]:
        """Memory held all the time, independent of lengths: all float32, including AdamW's two moments."""
        count = self.shape.parameters
        return {
            "weights": 4 * count,
            "optimizer": 8 * count,
            "teacher": 4 * count if self.choices.teacher_copy else 0,
            "decoder": self._decoder_copies if self._copies_stay else 0,
        }

    @cached_property
    def generating(self) -> Mapping[str, int]:
        """Additional memory during generation."""
        if self.choices.vllm is not None and self.hardware.device == "cuda":
            return {
                "decoder": self._decoder_copies,
                "KV cache": self.choices.decoders * self.cache_room,
                "workspace": BASE_BYTES,
            }
        prefilled = max(PREFILL_TOKENS, self._longest_prompt)
        waves = self._rollouts, self._reflections, self._curations
        cache = max(wave.rows(self) * wave.columns for wave in waves) * self.cache_bytes_per_token
        return {
            "KV cache": round(cache) if self.choices.vllm is None else VLLM_CPU_CACHE,
            "workspace": BASE_BYTES
            + TRANSIENT * prefilled * self._mlp_width * self._decoded_bytes
            + MASK_BYTES * prefilled * self._longest_prompt,
        }

    @cached_property
    def updating(self) -> Mapping[str, int]:
        """Additional memory during weight updates."""
        copies = 2 * self.shape.body(self.shape.experts) if self.bfloat16 else 0
        return {
            "gradients": 4 * self.shape.parameters,
            "activations": self.activations(self.checkpointing),
            "tiles of the loss": self.loss_bytes,
            "workspace": BASE_BYTES + copies + self._transient,
        }

    def activations(self, checkpointing: bool) -> int:
        """Activations of one micro-batch: of all layers; or their inputs plus one recomputed layer."""
        layers, stream = self.shape.layers, self.weight_bytes * self.shape.hidden
        kept = layers * stream + self.bytes_per_token if checkpointing else layers * self.bytes_per_token
        return round(self.student_tokens * (kept + 3 * stream))  # last norm: input, result, and its gradient

    @property
    def weight_bytes(self) -> int:  # also per element of the residual stream
        return 4

    @property
    def bytes_per_token(self) -> int:
        """Activation bytes of one layer per token: counted in the library's Qwen3.

        With autocast the residual stream and the norms are float32, and each product keeps its own bfloat16
        copy of the normed input: two for the MLP, three for attention.
        """
        shape = self.shape
        heads, small, mlp = layer_terms(shape)
        if self.bfloat16:
            return round(26 * shape.hidden + 10 * heads + 2 * mlp + small)
        return round(24 * shape.hidden + 16 * heads + 4 * mlp + small)

    @property
    def loss_bytes(self) -> int:
        """Two tiles of float32 logits, gradients waiting for a product, the head's gradient in float32, and
        both heads rounded to the compute dtype."""
        device, vocab = self.hardware.device, self.shape.vocab
        rows = TILE_BYTES[device] // (4 * vocab)
        rows = max(rows - rows % ROW_UNIT, ROW_UNIT)
        sides = 2 if self.workload.teacher_prompt else 1
        operand = 2 if self.bfloat16 and device == "cuda" else 4
        waiting = rows * TILES_PER_PRODUCT[device] * vocab * operand
        heads = sides * operand * self.shape.head if self.bfloat16 else 0
        return sides * rows * 4 * vocab + waiting + 4 * self.shape.head + heads

    @property
    def _transient(self) -> int:
        return round(TRANSIENT * self.student_tokens * self._mlp_width * (2 if self.bfloat16 else 4))

    @property
    def _mlp_width(self) -> int:
        """The total MLP width that a token passes through in a layer."""
        shape = self.shape
        return max(shape.intermediate, shape.experts_per_token * shape.expert_intermediate + shape.shared)

    @property
    def peaks(self) -> Mapping[str, int]:
        """Peak memory by phase of the run."""
        always = sum(self.always.values())
        return {
            "decoding": always + sum(self.generating.values()),
            "update": always + sum(self.learning.values()),
        }

    @property
    def always(self) -> Mapping[str, int]:
        """Standing memory that is not offloaded during generation."""
        return {name: size for name, size in self.standing.items() if name not in self._parked}

    @property
    def learning(self) -> Mapping[str, int]:
        """Additional memory of an update."""
        return {**{name: self.standing[name] for name in self._parked}, **self.updating}

    @property
    def _parked(self) -> tuple[str, ...]:
        if not self.choices.offload:
            return ()
        idle = self.choices.decoders == 1 and not self.choices.measured
        return ("optimizer", "teacher") if idle else ("optimizer",)

    @property
    def peak(self) -> int:
        return max(self.peaks.values())

    @property
    def bfloat16(self) -> bool:
        chosen = self.choices.bfloat16
        return self.hardware.bfloat16 if chosen is None else chosen

    @property
    def checkpointing(self) -> bool:
        chosen = self.choices.checkpointing
        large = self.hardware.device == "cuda" and self.shape.parameters > LARGE
        return large if chosen is None else chosen

    @property
    def cache_room(self) -> int:
        """Bytes available to one engine for keys and values; negative if vLLM's share is too small."""
        if self.choices.vllm is None:
            return CACHE_BYTES
        if self.hardware.device == "cpu":
            return VLLM_CPU_CACHE
        return round(self.choices.vllm * self.hardware.memory) - self._decoded_bytes * self.shape.parameters

    @property
    def longest_columns(self) -> float:
        """Prompt and reply of the longest request, in tokens."""
        return max(wave.columns for wave in (self._rollouts, self._reflections, self._curations))

    @property
    def _copies_stay(self) -> bool:
        """Whether engine copies persist: the decoder's in another dtype, or vLLM's if it never sleeps."""
        if self.choices.vllm is None:
            return self.hardware.bfloat16
        return self.hardware.device == "cpu"

    @property
    def _decoder_copies(self) -> int:
        return self.choices.decoders * self._decoded_bytes * self.shape.parameters

    @property
    def cache_bytes_per_token(self) -> int:
        return 2 * self.shape.layers * self.shape.key_width * self._decoded_bytes

    # --- micro-batches

    @property
    def student_row(self) -> float:
        return self.workload.prompt + self.workload.reply

    @property
    def teacher_row(self) -> float:
        return self.workload.teacher_prompt + self.workload.reply if self.workload.teacher_prompt else 0.0

    @property
    def rows(self) -> int:
        """Examples per micro-batch; a single one may exceed the limit."""
        longer = max(self.student_row, self.teacher_row)
        return max(1, min(self.workload.attempts, int(self.workload.micro_batch_tokens // longer)))

    @property
    def student_tokens(self) -> float:
        return self.rows * self.student_row

    # --- time, seconds

    @cached_property
    def phases(self) -> Mapping[str, float]:
        """Seconds of each phase of an update; `evaluation` is for one evaluation."""
        return {
            "rollouts": self._rollouts.seconds(self),
            "reflections and curations": self._reflections.seconds(self)
            + self.workload.curations * self._curations.seconds(self),
            "teacher scoring": self._teacher_seconds,
            "student update": self._student_seconds,
            "evaluation": self._evaluation.seconds(self),
        }

    @property
    def update_seconds(self) -> float:
        return sum(self.phases.values()) - self.phases["evaluation"]

    @property
    def run_seconds(self) -> float:
        work = self.workload
        return work.updates * self.update_seconds + work.evaluations * self.phases["evaluation"]

    @property
    def _teacher_seconds(self) -> float:
        if not self.workload.teacher_prompt:
            return 0.0
        tokens = self.workload.attempts * self.teacher_row
        return self._forward(tokens, self.teacher_row) + self._started(1)

    @property
    def _student_seconds(self) -> float:
        """The backward pass is twice the forward; recomputing layers adds another forward."""
        work, shape, hardware = self.workload, self.shape, self.hardware
        tokens, passes = work.attempts * self.student_row, 4 if self.checkpointing else 3
        traffic = TRAFFIC[hardware.device] * tokens * shape.layers * self.bytes_per_token
        products = 4 if work.teacher_prompt else 3
        loss = LOSS_FACTOR * products * 2 * work.attempts * work.reply * shape.head / self._matrix
        step = STEP_BYTES * shape.parameters / hardware.bandwidth
        body = passes * self._forward(tokens, self.student_row) + self._started(passes)
        return body + traffic / hardware.bandwidth + loss + step

    def _forward(self, tokens: float, row: float) -> float:
        """The body only: two operations per parameter, and attention to half of the row on average."""
        body = 2 * (self.shape.active - self.shape.head)
        attention = 2 * self.shape.layers * self.shape.query_width * row
        return tokens * (body + attention) / (self._matrix * LAYER_RATE[self.hardware.device])

    def _started(self, passes: int) -> float:
        micro_batches = math.ceil(self.workload.attempts / self.rows)
        return passes * micro_batches * EAGER * self.shape.layers * self.hardware.launch

    # --- decoding

    @property
    def _matrix(self) -> float:
        """FLOP/s in the compute dtype: float32 has 1/8 of the bfloat16 rate on a GPU, half on a CPU."""
        slower = 8 if self.hardware.device == "cuda" else 2
        return self.hardware.matrix / (slower if self.hardware.bfloat16 and not self.bfloat16 else 1)

    @property
    def _decoded_bytes(self) -> int:
        return 2 if self.hardware.bfloat16 else 4

    @property
    def _longest_prompt(self) -> int:
        return max(self.workload.prompt, self.workload.context_prompt)

    @property
    def _rollouts(self) -> Wave:
        work = self.workload
        return Wave(work.attempts, work.prompt, work.reply, work.longest)

    @property
    def _evaluation(self) -> Wave:
        work = self.workload
        return Wave(work.samples, work.prompt, work.reply, work.longest)

    @property
    def _reflections(self) -> Wave:
        work = self.workload
        return Wave(work.reflections, work.context_prompt, work.reflection, work.reflection)

    @property
    def _curations(self) -> Wave:
        """One at a time, as while the playbook is small."""
        work = self.workload
        return Wave(min(1, work.curations), work.context_prompt, work.curation, work.curation)


@dataclass(frozen=True)
class Wave:
    """Requests decoded together, as far as the cache has room."""

    requests: int
    prompt: int
    reply: float
    longest: float

    @property
    def columns(self) -> float:
        return self.prompt + self.longest

    def rows(self, run: Forecast) -> int:
        most = MAX_BATCH[run.hardware.device] if run.choices.vllm is None else VLLM_ROWS
        room = int(run.cache_room // (run.cache_bytes_per_token * self.columns)) if self.columns else 0
        return min(self.requests, max(1, min(most, room)))

    def seconds(self, run: Forecast) -> float:
        """Prefill at the rate of matrix products, then steps that each read weights and cache."""
        if not self.requests:
            return 0.0
        prefill = 2 * run.shape.active * self.requests * self.prompt / run.hardware.matrix
        batches = self.requests / self.rows(run)
        if run.choices.vllm is not None:  # a finished row makes room for the next request
            return prefill + max(self.longest, batches * self.reply) * self._step(run)
        return prefill + math.ceil(batches) * self.longest * self._step(run)

    def _step(self, run: Forecast) -> float:
        """Seconds for one token per row. Rows leave as they finish: on average `reply / longest` remain."""
        shape, hardware = run.shape, run.hardware
        rows = max(1.0, self.rows(run) * self.reply / self.longest)
        read = (shape.head + shape.body(experts_read(shape, rows))) * run._decoded_bytes
        cache = rows * (self.prompt + self.reply / 2) * run.cache_bytes_per_token
        arithmetic = 2 * shape.active * rows / hardware.matrix
        started = (shape.layers + SAMPLING_LAYERS) * hardware.launch
        if run.choices.vllm is not None and hardware.device == "cuda":
            started = VLLM_STEP + VLLM_ROW * rows
        return max(arithmetic, read / hardware.bandwidth) + cache / hardware.bandwidth + started


def experts_read(shape: ModelShape, rows: float) -> float:
    """Expected number of distinct experts read per layer if each row chooses its own at random."""
    if not shape.experts:
        return 0.0
    left_out = 1 - shape.experts_per_token / shape.experts
    return shape.experts * (1 - math.pow(left_out, rows))


def layer_terms(shape: ModelShape) -> tuple[int, int, float]:
    """Of one layer and token: the widths of queries and keys, bytes of small tensors, elements of the MLP."""
    sparse = shape.sparse_layers / shape.layers
    # An expert's input rows are gathered first, and its outputs weighted.
    expert = shape.experts_per_token * (4 * shape.expert_intermediate + 3 * shape.hidden)
    mlp = (1 - sparse) * 4 * shape.intermediate + sparse * (expert + 4 * shape.shared)
    return shape.query_width + shape.key_width, 8 + 8 * shape.heads + 4 * shape.kv_heads, mlp
