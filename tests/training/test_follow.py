"""A run of two processes is the run of one, and ends when either of them fails."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open

import toy
from processes import together, train
from resd.learner import saving
from resd.training import checkpoint, journal
from support import save_tiny

ALONE, TWO = 1, 2
GAP = "actor/rollout_logprob_gap"  # where engines round weights to bfloat16: the last digit matters
HALF = {"batch_size": 2, "updates_per_batch": 2, "max_updates": 4}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def expected(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone")
    assert run(model, folder, ALONE) == [0]
    return folder / "run"


def run(model: Path, folder: Path, size: int, *words: Any, **changes: Any) -> list[int | None]:
    """The exit codes of a toy run of `size` processes; `words` as for `train`."""
    config = toy.toy_config(model, folder / "run", **changes).model_dump(mode="json")
    (folder / "toy.yaml").write_text(yaml.safe_dump(config))
    return together(train, folder, *words, size=size)


def assert_same_run(ours: Path, theirs: Path) -> None:
    """Numbers to rounding; files, lessons and the names in checkpoints to the letter."""
    for one, other in zip(metrics(ours), metrics(theirs), strict=True):
        assert one.pop("kind") == other.pop("kind")
        gaps = one.pop(GAP, 0.0), other.pop(GAP, 0.0)
        assert gaps[0] == pytest.approx(gaps[1], abs=1e-3)
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)
    assert (ours / journal.PLAYBOOK).read_bytes() == (theirs / journal.PLAYBOOK).read_bytes()
    assert files(ours) == files(theirs)
    assert tensors(ours) == tensors(theirs)


def metrics(folder: Path) -> list[dict[str, Any]]:
    return journal.read(folder / journal.METRICS)


def files(folder: Path) -> set[str]:
    """But for those that each process of several writes of a checkpoint."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != saving.SHARDS]
    return {str(path.relative_to(folder)) for path in paths}


def tensors(folder: Path) -> set[str]:
    newest = checkpoint.latest(folder / "checkpoints")
    (file,) = newest.glob("*.safetensors")  # type: ignore[union-attr]
    with safe_open(file, "pt") as saved:  # type: ignore[no-untyped-call]
        return set(saved.keys())


@pytest.mark.parametrize("author", ["student", "teacher"])
def test_two_processes_write_what_one_does(model: Path, tmp_path: Path, author: str) -> None:
    context = {"style": "compact", "max_prompt_tokens": 2048, "author": author}
    for name, size in (("one", ALONE), ("two", TWO)):
        (tmp_path / name).mkdir()
        assert run(model, tmp_path / name, size, context=context) == [0] * size
    assert_same_run(tmp_path / "two/run", tmp_path / "one/run")
    for name in [f"rollouts/{step}.jsonl" for step in range(1, 7)]:
        one, two = (journal.read(tmp_path / size / "run" / name) for size in ("one", "two"))
        assert [row.get("response") for row in one] == [row.get("response") for row in two]
        assert any(row.get("response") for row in one)
    assert (tmp_path / "two/1.log").read_text() == ""
    assert " 6/6" in (tmp_path / "two/0.log").read_text()


def test_all_processes_generate(expected: Path, model: Path, tmp_path: Path) -> None:
    """Rollouts and evaluations are dealt out; a single request is rank 0's."""
    assert run(model, tmp_path, TWO) == [0, 0]
    alone, *shares = (
        [int(line) for line in path.read_text().splitlines()]
        for path in (expected.parent / "0.decoded", tmp_path / "0.decoded", tmp_path / "1.decoded")
    )
    assert [sum(pair) for pair in zip(*shares, strict=True)] == alone
    assert all(abs(mine - yours) <= 1 for mine, yours in zip(*shares, strict=True))
    assert max(alone) > 3


@pytest.mark.parametrize(("first", "then"), [(ALONE, TWO), (TWO, ALONE)])
def test_a_run_goes_on_with_another_number_of_processes(
    model: Path, expected: Path, tmp_path: Path, first: int, then: int
) -> None:
    run(model, tmp_path, first, stream=HALF)
    assert len(metrics(tmp_path / "run")) < len(metrics(expected))
    assert run(model, tmp_path, then) == [0] * then
    assert_same_run(tmp_path / "run", expected)


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_ends_both_with_one_sentence(model: Path, tmp_path: Path, failing: int) -> None:
    codes = run(model, tmp_path, TWO, failing)
    assert codes == ([2, 1] if failing == 0 else [1, 2])  # -9 were a hang
    sentence = "the disk is full; make room"
    assert complaints(tmp_path) == [f"resd: process 1: {sentence}" if failing else f"resd: {sentence}"]


def test_a_process_that_is_killed_ends_the_run(model: Path, tmp_path: Path) -> None:
    assert run(model, tmp_path, TWO, 1, True) == [2, -9]
    (said,) = complaints(tmp_path)
    assert "died without a message" in said


def test_a_checkpoint_that_was_not_renamed_is_none(model: Path, expected: Path, tmp_path: Path) -> None:
    """Killed when all ranks have written it: the run goes on from the one before."""
    assert run(model, tmp_path, TWO, 0, False, True)[0] == -9
    folder = tmp_path / "run/checkpoints"
    assert [path.name for path in checkpoint.saved(folder)] == ["2"]
    assert {path.suffix for path in (folder / ".4.partial/state/learner").iterdir()} == {".distcp", ""}
    assert run(model, tmp_path, TWO) == [0, 0]
    assert_same_run(tmp_path / "run", expected)


def complaints(folder: Path) -> list[str]:
    lines = [line for rank in range(2) for line in (folder / f"{rank}.log").read_text().splitlines()]
    return [line for line in lines if line.startswith("resd: ") or "Traceback" in line]


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_an_engine_in_every_process_or_half_of_one_in_each(tmp_path: Path) -> None:
    """With vLLM, which reads the shards: the same run either way, and log-probs as the trainer's."""
    runs = [vllm_run(tmp_path / str(parts), parts) for parts in (1, 2)]
    for one, other in zip(*runs, strict=True):
        assert one.pop(GAP, 0.0) < 0.01 > other.pop(GAP, 0.0)
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)


def vllm_run(output: Path, parts: int) -> list[dict[str, Any]]:
    """The metrics of a short run of the lab model, as a user would start it."""
    settings = {
        "output": output,
        "generation.engine": "vllm",
        "generation.max_model_len": 2048,
        "generation.tensor_parallel_size": parts,
        "stream.max_updates": 2,
        "stream.batch_size": 4,
        "evaluation.limit": 4,
    }
    words = [f"{key}={value}" for key, value in settings.items()]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "resd"]
    subprocess.run([*launcher, "train", "examples/lab.yaml", *words], check=True, timeout=300)
    return metrics(output)
