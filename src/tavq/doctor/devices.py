"""GPUs, found by a real small computation, and what the processor can do."""

import os
import platform
from collections.abc import Iterator
from pathlib import Path

import torch

from tavq.core.cores import count_cores
from tavq.core.errors import first_line
from tavq.core.memory import format_bytes
from tavq.doctor.finding import Finding

FLAGS = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX-512 bf16", "amx_bf16": "AMX bf16"}
"""Features of x86 processors that PyTorch's products use, as Linux names them."""

AMPERE = (8, 0)
SMALL = 64


def check_devices() -> Iterator[Finding]:
    """Every GPU with a small computation on it; without one, why."""
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        yield _check_gpu(torch.device("cuda", index))
    if torch.backends.mps.is_available():
        yield check_computation("mps", torch.device("mps"), "Apple GPU", {})
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        yield explain_no_gpu(Path("/dev/nvidia0").exists(), torch.version.cuda)


def _check_gpu(device: torch.device) -> Finding:
    properties = torch.cuda.get_device_properties(device)
    capability = (properties.major, properties.minor)
    speeds = ["bf16", "TF32"] if capability >= AMPERE else []
    values = {"name": properties.name, "memory": properties.total_memory, "capability": list(capability)}
    text = f"{properties.name}, {format_bytes(properties.total_memory)}, {' and '.join(speeds) or 'no bf16, no TF32'}"
    return check_computation(str(device), device, text, {**values, "fast_precisions": speeds})


def check_computation(name: str, device: torch.device, text: str, values: dict[str, object]) -> Finding:
    """Multiply matrices on a device and compare the product with the processor's."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(SMALL, SMALL, generator=generator)
    advice = f"Use another device (--device cpu), or mend the driver of {name}."
    try:
        product = (matrix.to(device) @ matrix.to(device)).cpu()
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)[:80]
        return Finding("usable", name, f"{text}: fails ({reason})", {**values, "works": False}, "broken", advice)
    if not torch.allclose(product, matrix @ matrix, rtol=1e-2, atol=1e-1):
        return Finding("usable", name, f"{text}: computes wrongly", {**values, "works": False}, "broken", advice)
    return Finding("usable", name, f"{text}; computes", {**values, "works": True})


def explain_no_gpu(has_driver: bool, built_for: str | None) -> Finding:
    """Why there is no GPU.

    Args:
        has_driver: the system shows an NVIDIA GPU.
        built_for: the version of CUDA that PyTorch was built for, if any.
    """
    values = {"nvidia_device": has_driver, "torch_cuda": built_for}
    if has_driver and built_for is None:
        advice = (
            "This machine has an NVIDIA GPU, and PyTorch is the build without CUDA: install the one from pytorch.org."
        )
        return Finding("usable", "GPU", "there is one, but PyTorch has no CUDA", values, "odd", advice)
    if has_driver:
        advice = "PyTorch cannot use the NVIDIA GPU: compare the driver's CUDA version with that of torch.version.cuda."
        return Finding("usable", "GPU", f"there is one, but CUDA {built_for} cannot use it", values, "odd", advice)
    return Finding("usable", "GPU", "none; tavq computes on the processor", values, "missing")


def check_processor() -> Iterator[Finding]:
    """The processor's cores and fast instructions, and how many threads PyTorch uses on them."""
    cores, threads = count_cores(), torch.get_num_threads()
    flags = read_flags()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    values = {"cores": cores, "machine": platform.machine(), "features": flags, "load": round(load, 2)}
    busy = load > 1.5 * cores + 1
    text = f"{cores:g} cores, {', '.join(flags) or 'no AVX2'}, load {load:.1f}"
    if busy:
        advice = "Other programs use the processor: what is measured here is too low."
        yield Finding("usable", "processor", text, values, "odd", advice)
    else:
        yield Finding("usable", "processor", text, values)
    yield judge_threads(threads, cores, os.environ.get("OMP_NUM_THREADS"))


def judge_threads(threads: int, cores: float, variable: str | None) -> Finding:
    """Whether PyTorch uses more threads than there are cores.

    Args:
        threads: of PyTorch.
        cores: that this process may use.
        variable: OMP_NUM_THREADS, where it is set.
    """
    values = {"threads": threads, "OMP_NUM_THREADS": variable}
    text = f"{threads}" + (f" (OMP_NUM_THREADS={variable})" if variable else "")
    if threads > cores:
        advice = (
            f"PyTorch uses {threads} threads on {cores:g} cores, which wait for each other: set OMP_NUM_THREADS="
            f"{max(int(cores), 1)}."
        )
        return Finding("usable", "threads of PyTorch", text, values, "odd", advice)
    return Finding("usable", "threads of PyTorch", text, values)


def read_flags() -> list[str]:
    """The fast instructions of the processor, as people call them."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return [torch.backends.cpu.get_cpu_capability()]
    line = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    present = set(line.partition(":")[2].split())
    return [shown for name, shown in FLAGS.items() if name in present]
