"""The table of hardware, and how this machine finds its entry."""

import os
import subprocess
from typing import Any

import pytest

from resd.forecast import hardware
from resd.forecast.hardware import GPUS, find, this_cpu, this_machine
from resd.records import ResdError


@pytest.mark.parametrize("name", ["h200", "H200", "rtx4090", "RTX 4090", "RTX-4090", "a100", "H100"])
def test_names(name: str) -> None:
    assert find(name) in GPUS.values()


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(ResdError, match="--hardware abacus: is not in the table; choose one of h200, h100"):
        find("abacus")


def smi(monkeypatch: pytest.MonkeyPatch, answer: str | None) -> None:
    """A driver that says this; None is a machine without one."""

    def run(*words: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        if answer is None:
            raise FileNotFoundError("nvidia-smi")
        return subprocess.CompletedProcess([], 0, answer, "")

    monkeypatch.setattr(hardware.subprocess, "run", run)


@pytest.mark.parametrize(
    ("said", "known", "mebibytes"),
    [
        ("NVIDIA H200, 143771\nNVIDIA H200, 143771\n", "h200", 143_771),
        ("NVIDIA H100 80GB HBM3, 81559\n", "h100", 81_559),
        ("NVIDIA A100-SXM4-40GB, 40960\n", "a100", 40_960),
        ("NVIDIA GeForce RTX 4090, 24564\n", "rtx4090", 24_564),
    ],
)
def test_what_the_driver_says(monkeypatch: pytest.MonkeyPatch, said: str, known: str, mebibytes: int) -> None:
    smi(monkeypatch, said)
    found = this_machine("auto")
    assert (found.matrix, found.memory) == (GPUS[known].matrix, mebibytes * 2**20)


@pytest.mark.parametrize("said", ["NVIDIA L4, 23034", "NVIDIA RTX A1000, 8188", "NVIDIA H100, [N/A]"])
def test_a_gpu_that_is_not_in_the_table(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    smi(monkeypatch, f"{said}\n")
    with pytest.raises(ResdError, match=r"^NVIDIA [\w ]+ is not in the table.*--hardware"):
        this_machine("cuda")
    assert this_machine("cpu").device == "cpu"


@pytest.mark.parametrize("answer", [None, ""])
def test_no_gpu(monkeypatch: pytest.MonkeyPatch, answer: str | None) -> None:
    smi(monkeypatch, answer)
    assert this_machine("auto").device == "cpu"
    with pytest.raises(ResdError, match="nvidia-smi finds no GPU"):
        this_machine("cuda")


def test_this_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch takes as many threads as it is told to, or one for each core."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one = this_cpu()
    assert one.name == "CPU with 1 core"
    assert one.memory == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert this_cpu().matrix == pytest.approx(6 * one.matrix)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert this_cpu().bandwidth == pytest.approx(len(os.sched_getaffinity(0)) * one.bandwidth)


def test_bfloat16_is_native_where_torch_says_so() -> None:
    import torch

    assert this_cpu().bfloat16 == torch.ops.mkldnn._is_mkldnn_bf16_supported()
