"""The forecast of a run that trains adapters: differences from training all weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from resd.forecast.estimate import BASE_BYTES, LOSS_FACTOR, STEP_BYTES, TRAFFIC, Forecast, layer_terms

# Bytes moved per adapted weight on merging: read, summed in float32, random draw, rounded, copied.
MERGE_BYTES = 48
# Two products, a scaling and a sum beside each linear layer: about as many kernels as the layer launches.
OPERATIONS = 2


@dataclass(frozen=True)
class LoRAForecast(Forecast):
    """`targets` are names of linear layers; None adapts all of them."""

    rank: int
    targets: tuple[str, ...] | None = None

    @property
    def adapters(self) -> int:
        """The number of trained parameters."""
        return self.shape.adapters(self.rank, self.targets)

    @property
    def weight_bytes(self) -> int:
        """Bytes per base weight, and per element of the residual stream."""
        return 2 if self.bfloat16 and self.hardware.device == "cuda" else 4

    @cached_property
    def standing(self) -> Mapping[str, int]:
        return {
            "weights": self.weight_bytes * self.shape.parameters,
            "adapters": 4 * self.adapters,
            "optimizer": 8 * self.adapters,
            "teacher": 4 * self.adapters if self.choices.teacher_copy else 0,
            "decoder": self._decoder_copies if self._copies_stay else 0,
        }

    @cached_property
    def updating(self) -> Mapping[str, int]:
        casts = self.adapters if self.weight_bytes == 2 else self.shape.body(self.shape.experts)
        return {
            "gradients": 4 * self.adapters,
            "activations": self.activations(self.checkpointing),
            "tiles of the loss": self.loss_bytes,
            "workspace": BASE_BYTES + (2 * casts if self.bfloat16 else 0) + self._transient,
        }

    @property
    def bytes_per_token(self) -> int:
        """Counted in the library's Qwen3. Frozen products keep no input; adapters keep both of theirs."""
        shape = self.shape
        heads, small, mlp = layer_terms(shape)
        ranks = (
            self.rank * len(shape.linear_layers) if self.targets is None else self.rank * len(self.targets)
        )
        if not self.bfloat16:
            return round(16 * shape.hidden + 12 * heads + 4 * mlp + 4 * ranks + small)
        stream = 12 if self.weight_bytes == 2 else 18
        return round(stream * shape.hidden + 8 * heads + 2 * mlp + 2 * ranks + small)

    @property
    def loss_bytes(self) -> int:
        """The head is frozen: it has no gradient, and no rounded copy if already in the compute dtype."""
        head = self.shape.head
        rounded = 2 if self.workload.teacher_prompt else 1
        operand = 2 if self.hardware.device == "cuda" else 4
        copies = rounded * operand * head if self.bfloat16 and self.weight_bytes == 2 else 0
        return super().loss_bytes - 4 * head - copies

    @property
    def _copies_stay(self) -> bool:
        """Merged weights are always a copy."""
        return self.choices.vllm is None or self.hardware.device == "cpu"

    @property
    def _decoder_copies(self) -> int:
        """The embedded decoder shares weights without adapters if they have the same dtype."""
        own = self.shape.parameters
        if self.choices.vllm is None and self.weight_bytes == self._decoded_bytes:
            own -= self.shape.embeddings
        return self.choices.decoders * self._decoded_bytes * own

    @property
    def _student_seconds(self) -> float:
        """The backward pass only computes input gradients, except for the adapters' small products."""
        work, hardware = self.workload, self.hardware
        tokens, passes = work.attempts * self.student_row, 3 if self.checkpointing else 2
        traffic = TRAFFIC[hardware.device] * tokens * self.shape.layers * self.bytes_per_token
        products = 3 if work.teacher_prompt else 2
        loss = LOSS_FACTOR * products * 2 * work.attempts * work.reply * self.shape.head / self._matrix
        moved = traffic + STEP_BYTES * self.adapters + MERGE_BYTES * self.shape.body(0)
        body = passes * self._forward(tokens, self.student_row) + self._started(passes)
        return body + loss + moved / hardware.bandwidth

    def _started(self, passes: int) -> float:
        return OPERATIONS * super()._started(passes)
