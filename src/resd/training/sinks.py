"""Sinks for a run's metrics: JSON Lines always, TensorBoard and Weights & Biases optionally."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol
from uuid import uuid4

from resd.config import LoggingConfig
from resd.training import journal


@dataclass(frozen=True)
class Record:
    """One update, or one evaluation after `step` updates. `timing` is in seconds and not reproducible."""

    kind: Literal["update", "evaluation"]
    step: int
    metrics: Mapping[str, float]
    timing: Mapping[str, float] = field(default_factory=dict)
    batch: int | None = None
    round: int | None = None

    @property
    def place(self) -> dict[str, Any]:
        """The first fields of a line."""
        where = {"kind": self.kind, "step": self.step, "batch": self.batch, "round": self.round}
        return {key: value for key, value in where.items() if value is not None}


class Sink(Protocol):
    """Receives records as they are produced."""

    def write(self, record: Record) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """metrics.jsonl is identical for a resumed and an uninterrupted run; timing.jsonl is not."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def write(self, record: Record) -> None:
        journal.append(self.run / journal.METRICS, [{**record.place, **record.metrics}])
        journal.append(self.run / journal.TIMING, [{**record.place, **record.timing}])

    def close(self) -> None:
        """Nothing to do: every write closes its file."""


class TensorBoard:
    """Event files under `<run>/tensorboard`."""

    def __init__(self, run: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(run / "tensorboard"))

    def write(self, record: Record) -> None:
        for name, value in {**record.metrics, **record.timing}.items():
            self.writer.add_scalar(name, value, record.step)

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """One wandb run per run folder, wherever that is: a resumed run continues in it."""

    def __init__(self, run: Path, project: str, config: Mapping[str, Any]) -> None:
        import wandb

        known = run / ".wandb_id"
        if not known.is_file():
            known.write_text(uuid4().hex, encoding="utf-8")
        name = known.read_text(encoding="utf-8")
        self.session = wandb.init(
            project=project, name=run.name, id=name, resume="allow", dir=str(run), config=dict(config)
        )

    def write(self, record: Record) -> None:
        self.session.log({**record.metrics, **record.timing}, step=record.step)

    def close(self) -> None:
        self.session.finish()


def make_sinks(run: Path, logging: LoggingConfig, config: Mapping[str, Any]) -> list[Sink]:
    """The sinks that `logging` enables."""
    sinks: list[Sink] = [JsonLines(run)]
    if logging.tensorboard:
        sinks.append(TensorBoard(run))
    if logging.wandb:
        sinks.append(WeightsAndBiases(run, logging.project, config))
    return sinks


def write_all(sinks: Sequence[Sink], record: Record) -> None:
    for sink in sinks:
        sink.write(record)
