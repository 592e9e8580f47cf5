"""The benchmarks run, and what they time are the losses that they name."""

import importlib.util
import json
import re
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def objective() -> Any:
    return load("objective")


@pytest.fixture
def update_step(monkeypatch: pytest.MonkeyPatch) -> Any:
    """With a shape that takes no time."""
    module = load("update_step")
    sizes = {"layers": 1, "width": 32, "inner": 48, "head_dim": 8, "vocabulary": 300, "sequences": 4}
    lengths = {"prompts": (3, 6), "teacher_prompts": (5, 12), "responses": (2, 20)}
    tiny = replace(module.SHAPES["tiny"], **sizes, **lengths, micro_batch_tokens=64, trl_rows=(2, 4))
    monkeypatch.setitem(module.SHAPES, "tiny", tiny)
    return module


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", REPOSITORY / f"benchmarks/{name}.py")
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


def rows_of_update(update_step: Any, folder: Path, *more: str) -> list[dict[str, Any]]:
    arguments = ["--device", "cpu", "--dtype", "float32", "--updates", "1", "--json", str(folder / "results")]
    update_step.main([*arguments, *more])
    rows: list[dict[str, Any]] = json.loads((folder / "results").read_text())
    return rows


def test_an_update_without_trl(
    update_step: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its rates count the tokens, and its loss is the mean over sequences of those of whole logits."""
    monkeypatch.setitem(sys.modules, "trl", None)
    row, missing = rows_of_update(update_step, tmp_path)
    assert "not installed" in missing["note"]
    assert f"{row['loss']:.6f}" in capsys.readouterr().out
    examples = update_step.make_examples(update_step.SHAPES["tiny"])
    responses = sum(len(example.response_ids) for example in examples)
    assert row["resp/s"] * row["s"] == pytest.approx(responses)
    assert row["all/s"] * row["s"] == pytest.approx(responses + sum(len(e.prompt_ids) for e in examples))
    model = update_step.make_model(update_step.SHAPES["tiny"], "cpu")
    assert row["loss"] == pytest.approx(sum(map(partial(plain_loss, model), examples)) / 4, rel=1e-4)


@torch.no_grad()
def plain_loss(model: Any, example: Any) -> float:
    """Reverse KL on the student's top 100 and a tail, in float64, the mean over the response."""

    def probabilities(prompt: tuple[int, ...]) -> torch.Tensor:
        logits = model(torch.tensor([[*prompt, *example.response_ids]])).logits[0, len(prompt) - 1 : -1]
        return logits.double().softmax(-1)

    student = probabilities(example.prompt_ids)
    ids = student.topk(100).indices
    p, q = (
        torch.cat([side.gather(-1, ids), 1 - side.gather(-1, ids).sum(-1, keepdim=True)], dim=-1)
        for side in (student, probabilities(example.teacher_prompt_ids))
    )
    return float((p * (p / q).log()).sum(-1).mean())


def test_trl_is_given_the_same_tokens(update_step: Any) -> None:
    """Each row without its padding is prompt and response; responses begin in the same column."""
    examples = update_step.make_examples(update_step.SHAPES["tiny"])
    batch = update_step.trl_batch(examples, "cpu")
    longest = max(len(example.response_ids) for example in examples)
    assert batch["completion_ids"].shape == (4, longest)
    student = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1).bool()
    taught, taught_mask = batch["teacher_input_ids"], batch["teacher_attention_mask"].bool()
    assert torch.equal(taught[:, -longest:], batch["completion_ids"])
    for i, example in enumerate(examples):
        assert student[i, mask[i]].tolist() == [*example.prompt_ids, *example.response_ids]
        assert taught[i, taught_mask[i]].tolist() == [*example.teacher_prompt_ids, *example.response_ids]


@pytest.mark.parametrize("more", ["--checkpointing", "--no-checkpointing"])
def test_trl_makes_the_same_update(update_step: Any, tmp_path: Path, more: str) -> None:
    pytest.importorskip("trl")
    ours, *theirs = rows_of_update(update_step, tmp_path, more)
    assert len(theirs) == 2
    for row in theirs:
        assert row["loss"] == pytest.approx(ours["loss"], rel=1e-5)
        assert row["norm"] == pytest.approx(ours["norm"], rel=1e-4)
