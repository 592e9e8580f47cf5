"""A table of hardware with achieved rates, and finding this machine's entry. No torch here."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from resd.records import ResdError

GIB = 1 << 30


@dataclass(frozen=True)
class Hardware:
    """One device. Rates are achieved ones, not those of the data sheet."""

    name: str
    memory: int  # bytes
    matrix: float  # FLOP/s of matrix products in the compute dtype
    bandwidth: float  # bytes/s
    # Seconds to launch one layer's operations in a forward pass, which dominates for small models.
    launch: float
    device: str = "cuda"
    bfloat16: bool = True  # native, so that `auto` chooses it


# About 25 operations per layer, 6 to 10 microseconds of Python each.
GPU_LAUNCH = 2e-4
# Bandwidth is 0.85 of the data sheet's, as achieved by large copies.
GPUS = {
    # 681 TFLOP/s measured: four products of 20,480 tokens, hidden 2560, vocabulary 151,936, in 93.5 ms.
    "h200": Hardware("H200", 140 * GIB, 680e12, 4.1e12, GPU_LAUNCH),
    # The same arithmetic units as the H200's, with slower memory (3.35 TB/s).
    "h100": Hardware("H100", 79 * GIB, 680e12, 2.85e12, GPU_LAUNCH),
    # 0.8 of the data sheet's 312 TFLOP/s; 2.04 TB/s.
    "a100": Hardware("A100", 79 * GIB, 250e12, 1.73e12, GPU_LAUNCH),
    # 0.85 of the data sheet's 165 TFLOP/s with sums in float32; 1.01 TB/s.
    "rtx4090": Hardware("RTX 4090", 23 * GIB, 140e12, 0.86e12, GPU_LAUNCH),
}
NAMES = (*GPUS, "cpu")
# Per core, coarse: 12 million parameters on 32 x 512 tokens trained in 8.9 s (float32) and 4.1 s (bfloat16)
# on two cores of a server of 2024. Decoding 32 rows with 5 million parameters took 6.5 ms a step.
CPU_MATRIX = {False: 0.066e12, True: 0.14e12}
CPU_BANDWIDTH = 10e9  # per core: two channels of DDR4 feed about four
CPU_LAUNCH = 4e-4
# CPU instructions that PyTorch needs for native bfloat16.
BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16")


def find(name: str) -> Hardware:
    """The entry called `name`; `cpu` is this machine's. Raises ResdError listing the known names."""
    key = name.lower().replace(" ", "").replace("-", "")
    if key == "cpu":
        return this_cpu()
    if key not in GPUS:
        raise ResdError(f"--hardware {name}: is not in the table; choose one of {', '.join(NAMES)}")
    return GPUS[key]


def this_machine(device: str) -> Hardware:
    """The entry for `device` (auto, cpu or cuda). Raises ResdError for a GPU that is not in the table."""
    gpu = None if device == "cpu" else _ask_driver()
    if gpu is not None:
        return _entry(gpu)
    if device == "cuda":
        raise ResdError("nvidia-smi finds no GPU; name one with --hardware")
    return this_cpu()


def this_cpu() -> Hardware:
    """This machine's processor, with rates per core that torch uses."""
    cores = _cores()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    native = _native_bfloat16()
    name = f"CPU with {cores} core{'s' * (cores > 1)}"
    return Hardware(
        name, memory, cores * CPU_MATRIX[native], cores * CPU_BANDWIDTH, CPU_LAUNCH, "cpu", native
    )


def _cores() -> int:
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) > 0:
        return int(threads)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _entry(said: str) -> Hardware:
    """The entry for a line of nvidia-smi like "NVIDIA H200, 143771", with that memory in MiB."""
    name, _, mebibytes = said.rpartition(", ")
    found = next((gpu for gpu in GPUS.values() if re.search(rf"\b{gpu.name}\b", name)), None)
    if found is None or not mebibytes.isdigit():
        raise ResdError(f"{name} is not in the table; name the closest entry with --hardware")
    return replace(found, name=name, memory=int(mebibytes) << 20)


def _ask_driver() -> str | None:
    """The line of the first GPU; None without driver or GPU."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.splitlines()), None)


def _native_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return any(flag in flags for flag in BFLOAT16_FLAGS)
