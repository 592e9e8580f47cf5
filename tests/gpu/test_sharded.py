"""Sharding on one GPU, in a world of one process: kernels, streams and files are those of a larger one.

Run with `pytest -m gpu` on a machine that has one. With company, `test_parallel.py`.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from learner import steps
from processes import CASES, Case, compare, make_learner, two_updates
from resd.learner import saving
from resd.learner.parallel import ALONE, Ranks
from starts import KINDS, begin, save_kinds

pytestmark = pytest.mark.gpu
# Packed sequences have kernels in bfloat16 alone.
ON_GPU = {
    name: replace(case, device="cuda", bfloat16=case.bfloat16 or case.packed) for name, case in CASES.items()
}


class Sharing(Ranks):
    """One process that acts as if it had company."""

    @property
    def shared(self) -> bool:
        return True


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    dist.init_process_group("cpu:gloo,cuda:nccl", store=dist.HashStore(), rank=0, world_size=1)
    yield Sharing(0, 1, dist.new_group(backend="gloo"))
    dist.destroy_process_group()


@pytest.mark.parametrize("name", ON_GPU)
def test_updates_are_those_of_a_whole_model(ranks: Ranks, name: str) -> None:
    case = ON_GPU[name]
    compare([two_updates(case, ranks)], two_updates(case), 0.02 if case.bfloat16 else 1e-4)


def test_a_sharded_start_is_a_whole_one(ranks: Ranks, tmp_path: Path) -> None:
    """To the bit: shells get their weights and buffers on the GPU, tied ones too."""
    save_kinds(tmp_path)
    dealt, whole = begin(tmp_path, ranks), begin(tmp_path, ALONE)
    for name in KINDS:
        for part in ("weights", "teacher", "buffers"):
            ours, theirs = dealt[name][part], whole[name][part]
            assert ours.keys() == theirs.keys()
            assert all(tensor.is_cuda and torch.equal(tensor, theirs[key]) for key, tensor in ours.items())
        assert dealt[name]["tied"] == whole[name]["tied"]


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("reads_shards", [False, True])
@pytest.mark.parametrize("writes_shards", [False, True])
def test_what_is_saved_is_read(
    ranks: Ranks, tmp_path: Path, writes_shards: bool, reads_shards: bool, offload: bool
) -> None:
    """To the bit, from shards and whole tensors, parked in host memory or not, into either."""
    case = Case(device="cuda", offload=offload)
    writer = make_learner(case, ranks if writes_shards else ALONE)
    writer.update(steps.examples(), steps.DISTILLATION)
    writer.save(tmp_path)
    assert (tmp_path / saving.SHARDS).is_dir() == writes_shards
    reader = make_learner(case, ranks if reads_shards else ALONE)
    reader.load(tmp_path)
    ours, theirs = (dict(saving.named(one.state_dict())) for one in (reader, writer))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor.cpu(), theirs[key].cpu()) for key, tensor in ours.items())


def test_offloading_changes_no_number_and_frees_memory() -> None:
    """Between updates neither moments nor teacher are on the GPU."""
    held, after = [], []
    for offload in (False, True):
        run = steps.config()
        run = run.model_copy(update={"optimizer": run.optimizer.model_copy(update={"offload": offload})})
        learner = steps.build(run, device="cuda")
        before = torch.cuda.memory_allocated()
        for seed in range(2):
            learner.update(steps.examples(seed=seed), steps.DISTILLATION)
        learner.model.zero_grad()
        held.append(torch.cuda.memory_allocated() - before)
        after.append(steps.weights(learner))
        size = sum(p.numel() * p.element_size() for p in learner.model.parameters())
        del learner
    torch.testing.assert_close(after[0], after[1], rtol=1e-5, atol=1e-7)
    assert held[0] - held[1] > 1.9 * size  # both moments; the teacher had left before
