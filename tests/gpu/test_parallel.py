"""Two GPUs take the steps of one. Run with `pytest -m gpu` on a machine that has them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from processes import CASES, compare, learn, together, two_updates

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]
# Packed sequences have kernels in bfloat16 alone.
ON_GPU = {
    name: replace(case, device="cuda", bfloat16=case.bfloat16 or case.packed) for name, case in CASES.items()
}


def test_two_gpus_equal_one(tmp_path: Path) -> None:
    """NCCL, packed sequences and bfloat16 where a case has it."""
    assert together(learn, tmp_path, ON_GPU, limit=240) == [0, 0], (tmp_path / "0.log").read_text()
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2)]
    for name, case in ON_GPU.items():
        compare([made[name] for made in ranks], two_updates(case), 0.02 if case.bfloat16 else 1e-4)
