"""Tests of several processes: how they are started, and what they do."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

import toy
from learner.kernels import varlen_by_hand
from learner.steps import adapt
from resd.cli import main
from resd.config import (
    DistillationConfig,
    LoRAConfig,
    OptimizerConfig,
    PolicyConfig,
    RLSDConfig,
    RunConfig,
    SRPOConfig,
    TeacherConfig,
)
from resd.generation.decoder import Decoder
from resd.learner import attention, probe, student
from resd.learner.learner import Learner
from resd.learner.parallel import ALONE, Ranks, joined, local, take_device
from resd.learner.teacher import make_teacher
from resd.objectives.objective import Objective
from resd.records import Request, ResdError, Response, TrainingExample
from resd.training import checkpoint
from support import tiny_model

# Processes forked from one that has imported what is slow to import, and never computed.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["processes", "resd.training.setup", "transformers.models.qwen3.modeling_qwen3"])
OBJECTIVES = {
    "distillation": Objective(DistillationConfig(topk=10)),
    "grpo": Objective(policy=PolicyConfig()),
    "srpo": Objective(DistillationConfig(topk=10), PolicyConfig(is_level="sequence"), srpo=SRPOConfig()),
    "rlsd": Objective(policy=PolicyConfig(), rlsd=RLSDConfig()),
}


def together(
    work: Callable[..., None], folder: Path, *words: Any, size: int = 2, limit: float = 60
) -> list[int | None]:
    """Call `work(folder, *words)` in each of `size` processes, as torchrun would start them.

    Gives their exit codes. What each prints is in `<folder>/<rank>.log`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        FORKS.Process(target=_start, args=(rank, size, port, work, folder, words)) for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(limit)
        process.kill()
        process.join()
    return [process.exitcode for process in processes]


def _start(
    rank: int, size: int, port: int, work: Callable[..., None], folder: Path, words: tuple[Any, ...]
) -> None:
    with (folder / f"{rank}.log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size}
    os.environ.update({name: str(value) for name, value in {**address, **place}.items()})
    torch.set_num_threads(1)
    work(folder, *words)


@dataclass(frozen=True)
class Case:
    """Two updates on recorded rollouts."""

    device: str = "cpu"
    objective: str = "distillation"
    count: int = 7
    teacher: Any = "ema"
    tokens: int = 60  # per micro-batch
    untied: bool = False
    bfloat16: bool = False
    recomputed: bool = False
    packed: bool = False  # and the teacher's prompts begin alike
    broken: bool = False  # the second update's gradient is not finite
    lora: bool = False
    offload: bool = False


CASES = {
    "distillation": Case(),
    "untied": Case(untied=True),
    "fewer examples than ranks": Case(count=1),
    "one micro-batch each": Case(tokens=10_000),
    "grpo": Case(objective="grpo"),
    "srpo": Case(objective="srpo"),
    "srpo, live": Case(objective="srpo", teacher="live", untied=True),
    "srpo, one distilled": Case(objective="srpo", count=2),
    "rlsd": Case(objective="rlsd", teacher="frozen"),
    "trust region": Case(teacher="trust_region"),
    "recomputed": Case(recomputed=True),
    "packed": Case(packed=True),
    "packed, one example": Case(packed=True, count=1),
    "packed srpo": Case(objective="srpo", packed=True, teacher="live"),
    "not finite": Case(broken=True),
    "nothing to learn from": Case(objective="grpo", count=0),
    "bfloat16": Case(bfloat16=True),
    "offloaded": Case(offload=True),
    "adapters": Case(lora=True),
    "adapters, fewer examples than ranks": Case(lora=True, count=1, teacher="trust_region"),
    "adapters, packed": Case(lora=True, packed=True),
    "adapters, not finite": Case(lora=True, broken=True),
}


def examples(count: int, seed: int, beginning: tuple[int, ...]) -> list[TrainingExample]:
    """Every third has no teacher prompt, one has no response. Teacher prompts have the same `beginning`."""
    source = random.Random(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(source.randrange(5, 100) for _ in range(source.randint(low, high)))

    made = []
    for index in range(count):
        response = () if index == 4 else ids(1, 12)
        taught = index % 3 != 1
        made.append(
            TrainingExample(
                prompt_ids=ids(2, 9),
                response_ids=response,
                rollout_logprobs=tuple(source.uniform(-6, -3) for _ in response),
                teacher_prompt_ids=beginning + ids(5, 20) if taught else None,
                weight=source.uniform(0.5, 2),
                advantage=source.uniform(-2, 2),
            )
        )
    return made


BEGINNING = tuple(range(20, 50))


def make_learner(case: Case, ranks: Ranks) -> Learner:
    config = RunConfig(
        compute_dtype="bfloat16" if case.bfloat16 else "float32",
        optimizer=OptimizerConfig(
            learning_rate=1e-3,
            micro_batch_tokens=case.tokens,
            activation_checkpointing=case.recomputed,
            packing=case.packed,
            offload=case.offload,
        ),
        teacher=TeacherConfig(kind=case.teacher, update_rate=0.1),
        lora=LoRAConfig(rank=2 if case.lora else None, alpha=2),
    )
    model = tiny_model().to(case.device)
    if case.untied:
        model.config.tie_word_embeddings = False
        head = model.get_output_embeddings()
        head.weight = torch.nn.Parameter(torch.randn_like(head.weight) * 0.3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 2  # away from a uniform prediction
    if case.lora:
        adapt(model, config)
    return Learner(model, make_teacher(config.teacher, model), config, total_updates=10, ranks=ranks)


def two_updates(case: Case, ranks: Ranks = ALONE) -> dict[str, Any]:
    """Metrics of both, and all that a checkpoint would hold after them."""
    kernel = varlen_by_hand if case.device == "cpu" else attention.varlen_attn
    metrics = []
    with (
        mock.patch.object(attention, "varlen_attn", kernel),
        mock.patch.object(probe, "packable", return_value=True),
        mock.patch.object(student, "record_prefix", wraps=student.record_prefix) as prefixes,
    ):
        learner = make_learner(case, ranks)
        for seed in range(2):
            batch = examples(case.count, seed, BEGINNING if case.packed else ())
            if case.broken and seed == 1:
                batch = [replace(one, weight=float("inf")) for one in batch]
            metrics.append(learner.update(batch, OBJECTIVES[case.objective]))
        pairs = [(one.teacher_prompt_ids, one.response_ids) for one in batch]
        scores = learner.score([(prompt, reply) for prompt, reply in pairs if prompt and reply])
        metrics.append({f"score/{i}": value for i, value in enumerate(scores)})
    weights = {name: tensor.detach().clone() for name, tensor in learner.weights()}
    saved = {"model": learner.model_state(), "learner": learner.state_dict()}
    counts = {"version": learner.version, "held": held(learner), "prefixed": prefixes.call_count}
    return {"metrics": metrics, "weights": weights, **saved, **counts}


def held(learner: Learner) -> dict[str, int]:
    """Numbers in this process's memory between two updates."""
    moments = (state["exp_avg"] for state in learner.optimizer.adamw.state.values())
    parts = {"student": learner.model.parameters(), "teacher": learner.teacher.model.parameters()}
    return {
        name: sum(local(tensor.detach()).numel() for tensor in tensors)
        for name, tensors in {**parts, "moments": moments}.items()
    }


def learn(folder: Path, cases: dict[str, Case]) -> None:
    """Every case, on each rank."""
    with joined() as ranks:
        for device in {case.device for case in cases.values()}:
            take_device(torch.device(device), ranks)
        made = {name: two_updates(case, ranks) for name, case in cases.items()}
        torch.save(made, folder / f"{ranks.rank}.pt")
        if ranks.rank:
            assert ranks.receive() is None


def train(folder: Path, failing: int | None = None, killed: bool = False, saving: bool = False) -> None:
    """`resd train` of the toy run in `folder`, new or resumed.

    Rank `failing` fails in its second update, or is killed there, or when its second checkpoint is written
    and has no name yet. How many requests a rank decodes is in `<folder>/<rank>.decoded`, a line for each
    time.
    """
    rank, update, submit = int(os.environ["RANK"]), Learner.update, Decoder.submit
    sync, written = checkpoint._sync_tree, []

    def counted(self: Decoder, requests: Sequence[Request]) -> Iterator[Response]:
        with (folder / f"{rank}.decoded").open("a") as counts:
            counts.write(f"{len(requests)}\n")
        return submit(self, requests)

    def fails(self: Learner, *words: Any) -> Any:
        if self.version == 1 and killed:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.version == 1:
            raise ResdError("the disk is full; make room")
        return update(self, *words)

    def ends(root: Path) -> None:
        written.append(root)
        if len(written) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(root)

    Decoder.submit = counted  # type: ignore[method-assign]
    if failing == rank and saving:
        checkpoint._sync_tree = ends
    elif failing == rank:
        Learner.update = fails  # type: ignore[method-assign]
    with toy.in_place():
        main(["train", str(folder / "toy.yaml"), "--resume"])


# Rounding decides which ratios near a limit are clipped: in bfloat16 a second update's norm is off by 8 %.
NORM = "actor/grad_norm"


def compare(ranks: list[Any], expected: Any, rough: float) -> None:
    """What `two_updates` made on each rank with what it made in one process, to a relative error."""
    for made in ranks:
        assert made["version"] == expected["version"]
        for ours, theirs in zip(made["metrics"], expected["metrics"], strict=True):
            near = pytest.approx({**theirs, NORM: 0.0}, rel=rough, abs=1e-7 + rough / 10, nan_ok=True)
            assert {**ours, NORM: 0.0} == near
            assert ours.get(NORM, 0.0) == pytest.approx(theirs.get(NORM, 0.0), rel=5 * rough, nan_ok=True)
        assert_close(made["weights"], expected["weights"], rough)
    for saved in ("model", "learner"):
        assert_close(ranks[0][saved], expected[saved], rough)


def assert_close(ours: Any, theirs: Any, rough: float) -> None:
    """Through nested dicts and lists, wherever the tensors lie."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_close(ours[key], theirs[key], rough)
    elif isinstance(ours, list):
        for one, other in zip(ours, theirs, strict=True):
            assert_close(one, other, rough)
    elif isinstance(ours, torch.Tensor):
        torch.testing.assert_close(ours.cpu(), theirs.cpu(), rtol=10 * rough, atol=rough)
    else:
        assert ours == theirs
