"""The benchmark of the losses runs, and what it times are the losses that it names."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def objective() -> Any:
    spec = importlib.util.spec_from_file_location(
        "benchmarks_objective", REPOSITORY / "benchmarks/objective.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_table_and_its_json(objective: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results.json"
    arguments = ["--device", "cpu", "--shape", "16x300", "--tokens", "48", "--repeats", "1"]
    objective.main([*arguments, "--trl", str(tmp_path), "--json", str(results)])
    rows = {row["entry"]: row for row in json.loads(results.read_text())}
    measured = ["floor", "plain", *objective.OURS]
    assert list(rows) == [*measured, "TRL"]
    assert "not imported" in rows["TRL"]["note"]
    printed = capsys.readouterr().out
    for entry in measured:
        row = rows[entry]
        assert row["/floor"] == row["ms"] / rows["floor"]["ms"]
        assert re.search(rf"^{re.escape(entry)} +{row['ms']:.2f} +{row['/floor']:.2f} ", printed, re.M)
    assert rows["policy"]["/plain"] == rows["policy"]["ms"] / rows["plain"]["ms"]


@pytest.mark.parametrize("master", [False, True])
def test_plain_is_the_first_loss(objective: Any, master: bool) -> None:
    """In value and in both gradients, so that their times compare."""
    dtype = torch.bfloat16 if master else torch.float32
    case = objective.make_case(40, (16, 300), "cpu", dtype, master)
    gradients = []
    for loss in (objective.plain, next(iter(objective.OURS.values()))):
        total = loss(case)
        gradients.append((total.detach(), *torch.autograd.grad(total, (case.hidden, case.weight))))
    for reference, ours in zip(*gradients, strict=True):
        tolerance = 5e-2 if master else 1e-5  # bfloat16: autograd also rounds the logits
        assert (ours - reference).norm() <= tolerance * reference.norm()


def test_the_floor_is_the_four_products(objective: Any) -> None:
    """Each of them once for all tokens, whatever the chunks."""
    counted = []
    case = objective.make_case(40, (16, 300), "cpu", torch.float32, False)
    for rows in (40, 12):
        run = objective.floor(case, rows)
        with FlopCounterMode(display=False) as flops:
            run()
        counted.append(flops.get_total_flops())
    assert counted == [4 * 2 * 40 * 16 * 300] * 2


def test_trl_is_taken_from_two_files(objective: Any, tmp_path: Path) -> None:
    """Neither its own packages are run nor the rest of its trainers' utilities."""
    kernels, losses = tmp_path / "trl/kernels", tmp_path / "trl/experimental/sdpo"
    for folder in (kernels, losses, tmp_path / "trl/trainer"):
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("raise ImportError")
    (tmp_path / "trl/trainer/utils.py").write_text("raise ImportError")
    (kernels / "chunked_divergence.py").write_text(
        "from ..trainer.utils import maybe_gather_lm_head_ctx\nChunkedDivergenceFunction = 'kernel'\n"
    )
    (losses / "loss_utils.py").write_text(
        "from ...trainer.utils import selective_log_softmax\ncompute_topk_self_distillation_loss = 'loss'\n"
    )
    assert objective.trl_functions(tmp_path / "trl") == ("kernel", "loss")
