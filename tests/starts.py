"""How processes get their parts of a model. Here and not in a test: processes import it by name."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from learner.kernels import varlen_by_hand
from processes import BEGINNING, CASES, OBJECTIVES, Case, examples, make_learner
from resd.config import OptimizerConfig, RunConfig, TeacherConfig
from resd.learner import attention, probe
from resd.learner.learner import Learner
from resd.learner.parallel import ALONE, Ranks, joined, local
from resd.training import leader, setup
from resd.training.leader import Start

SHAPE = {
    "vocab_size": 105,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
# Kind and shape; the head's weight is the embedding's, or its own.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "tied": ("qwen3", SHAPE | {"tie_word_embeddings": True}),
    "untied": ("qwen3", SHAPE | {"tie_word_embeddings": False}),
    "experts": ("qwen3_moe", SHAPE | EXPERTS),
    "cannot be packed": ("gemma2", SHAPE | {"final_logit_softcapping": None}),  # caps in its attention
}


class Memory(TorchDispatchMode):
    """Bytes of the tensors that are made and not yet gone, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in (t for t in tree_leaves(made) if isinstance(t, torch.Tensor) and not t.is_meta):
            self.add(local(tensor).untyped_storage())
        return made

    def add(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.known:
            self.known.add(storage._cdata)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.drop, storage._cdata, storage.nbytes())

    def drop(self, name: int, size: int) -> None:
        self.known.remove(name)
        self.now -= size


def save_kinds(folder: Path) -> None:
    """A random model of each kind, in bfloat16, which is read as float32."""
    from transformers import AutoConfig, AutoModelForCausalLM

    for name, (kind, shape) in KINDS.items():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter *= 5
        model.bfloat16().save_pretrained(folder / name)


def begin(folder: Path, ranks: Ranks = ALONE) -> dict[str, dict[str, Any]]:
    """What each kind begins with, and what one update makes of it."""
    with (
        mock.patch.object(attention, "varlen_attn", varlen_by_hand),
        mock.patch.object(probe, "packable", return_value=True),
    ):
        return {name: _begin(folder / name, ranks) for name in KINDS}


def _begin(model: Path, ranks: Ranks) -> dict[str, Any]:
    config = RunConfig(
        model=str(model), compute_dtype="float32", teacher=TeacherConfig(kind="ema", update_rate=0.1)
    )
    unread = mock.patch.object(leader, "load_student", side_effect=AssertionError("another rank reads"))
    unpacked = config.model_copy(update={"optimizer": OptimizerConfig(packing=False)})  # nothing is tried out
    with unread if ranks.rank else nullcontext():
        with Memory() as memory:
            setup.make_learner(Start(unpacked, None, 10), ranks)
        learner, student, _ = setup.make_learner(Start(config, None, 10), ranks)
    networks = {"student": learner.model, "teacher": learner.teacher.model}
    return {
        "peak": memory.peak,
        "largest": max(p.numel() * 4 for p in learner.model.parameters()),
        "decoder": sum(p.numel() * p.element_size() for p in student.parameters()),
        "held": {name: _bytes(network) for name, network in networks.items()},
        "weights": {name: t.clone() for name, t in learner.weights()},
        "teacher": {name: t.clone() for name, t in learner.teacher_weights()},
        "buffers": dict(learner.model.named_buffers()) | dict(student.named_buffers(prefix="decoder")),
        "tied": learner.model.get_output_embeddings().weight is learner.model.get_input_embeddings().weight,
        "names": [name for name, _ in networks["teacher"].named_parameters()],
        "packed": learner.packed,
        "metrics": learner.update(examples(6, 0, BEGINNING), OBJECTIVES["distillation"]),
        "after": {name: t.clone() for name, t in learner.weights()},
        "averaged": {name: t.clone() for name, t in learner.teacher_weights()},
    }


def _bytes(network: Any) -> int:
    return sum(local(p.detach()).untyped_storage().nbytes() for p in network.parameters())


def begin_together(folder: Path) -> None:
    _together(lambda ranks: torch.save(begin(folder, ranks), folder / f"{ranks.rank}.pt"))


# A teacher with weights of its own, one that has the student's, and one that waits in host memory.
SAVED = {name: CASES[name] for name in ("distillation", "srpo, live", "offloaded")}


def write_states(folder: Path, ranks: Ranks = ALONE) -> None:
    """After an update of each case, a checkpoint's learner and, for comparison, all of it."""
    for name, case in SAVED.items():
        learner = make_learner(case, ranks)
        learner.update(examples(case.count, 0, ()), OBJECTIVES[case.objective])
        place = folder / f"{ranks.size}" / name
        place.mkdir(parents=True, exist_ok=True)
        learner.save(place)
        _keep(learner, place / "expected.pt", ranks)


def read_states(folder: Path, writers: list[int], ranks: Ranks = ALONE) -> None:
    """Each of those, read by this number of processes, and written again."""
    for name, case in readable(ranks.size).items():
        for writer in writers:
            learner, place = make_learner(case, ranks), folder / f"{writer}" / name
            learner.load(place)
            again = place / f"{ranks.size}"
            again.mkdir(exist_ok=True)
            learner.save(again)
            _keep(learner, again / "expected.pt", ranks)


def readable(size: int) -> dict[str, Case]:
    """On a CPU a process alone takes tensors as they were read, whose memory cannot be given back."""
    return {name: case for name, case in SAVED.items() if size > 1 or not case.offload}


def _keep(learner: Learner, file: Path, ranks: Ranks) -> None:
    state = learner.state_dict()
    if ranks.rank == 0:
        torch.save(state, file)


def write_together(folder: Path) -> None:
    _together(lambda ranks: write_states(folder, ranks))


def read_together(folder: Path, writers: list[int]) -> None:
    _together(lambda ranks: read_states(folder, writers, ranks))


def _together(work: Callable[[Ranks], None]) -> None:
    with joined() as ranks:
        work(ranks)
        if ranks.rank:
            assert ranks.receive() is None
