"""What training needs from the system: shared memory, disk, open files, a compiler, other processes."""

import os
import shutil
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist

from tavq.core.errors import first_line
from tavq.core.memory import format_bytes
from tavq.doctor.finding import Finding
from tavq.doctor.installed import find_version, is_importable

GIGABYTE = 1 << 30
SHARED = Path("/dev/shm")
SMALL_SHARED = GIGABYTE
"""Containers have 64 MiB by default; a worker passes its batches through it, some 40 MB each at 64 images of 224 px."""

SMALL_DISK = 5 * GIGABYTE
"""A checkpoint of a tokenizer at 256 px takes about 1 GB, and two are kept."""

SLOW_DISK = 50e6
DISK_BYTES, DISK_SECONDS = 64 << 20, 2.0
FEW_FILES = 1024


def check_memory() -> Iterator[Finding]:
    """The machine's memory, and what worker processes share."""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        yield Finding("usable", "memory", format_bytes(total), {"bytes": total})
    if SHARED.is_dir():
        usage = shutil.disk_usage(SHARED)
        yield judge_shared(usage.total, usage.free)


def judge_shared(total: int, free: int) -> Finding:
    """Whether worker processes have the shared memory that they need."""
    values = {"bytes": total, "free": free}
    text = f"{format_bytes(free)} free of {format_bytes(total)}"
    if free < SMALL_SHARED:
        advice = (
            "Worker processes need more shared memory, and die of a bus error without: start the container with "
            "--shm-size 8g, or use data.workers 0."
        )
        return Finding("usable", "shared memory", text, values, "odd", advice)
    return Finding("usable", "shared memory", text, values)


def check_disk(folder: Path) -> Iterator[Finding]:
    """Free space of the disk that holds a folder, and how fast it writes."""
    free = shutil.disk_usage(folder).free
    try:
        speed = measure_writing(folder)
    except OSError as error:
        advice = "Files cannot be written here: change to another folder, or give runs another --out."
        values = {"free": free, "bytes_per_second": None}
        yield Finding("usable", "disk", f"cannot be written ({error.strerror})", values, "odd", advice)
        return
    yield judge_disk(free, speed)


def judge_disk(free: int, speed: float) -> Finding:
    """Whether a disk has space for checkpoints, and writes them in reasonable time."""
    values = {"free": free, "bytes_per_second": round(speed)}
    text = f"{format_bytes(free)} free, writes {speed / 1e6:,.0f} MB/s"
    if free < SMALL_DISK:
        advice = "A run keeps two checkpoints of up to 1 GB each, and its samples: make space, or lower train.keep."
        return Finding("usable", "disk", text, values, "odd", advice)
    if speed < SLOW_DISK:
        advice = (
            "Training stands still while a checkpoint is written: use a local disk, or a larger train.checkpoint_every."
        )
        return Finding("usable", "disk", text, values, "odd", advice)
    return Finding("usable", "disk", text, values)


def measure_writing(folder: Path) -> float:
    """Bytes a second that reach the disk, by a file that is removed again.

    Raises:
        OSError: the folder cannot be written.
    """
    block, written = os.urandom(4 << 20), 0
    with tempfile.TemporaryFile(dir=folder) as file:
        started = time.perf_counter()
        while written < DISK_BYTES and time.perf_counter() - started < DISK_SECONDS:
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
            written += len(block)
    return written / (time.perf_counter() - started)


def check_limits() -> Iterator[Finding]:
    """How many files a process may open."""
    try:
        import resource  # Windows has none
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = "unlimited" if soft == resource.RLIM_INFINITY else f"{soft:,}"
    few = soft != resource.RLIM_INFINITY and soft < FEW_FILES
    advice = "Shards and worker processes may need more open files: ulimit -n 65536." if few else None
    yield Finding(
        "usable", "open files", f"at most {limit}", {"soft": soft, "hard": hard}, "odd" if few else "ok", advice
    )


def check_compilers() -> Iterator[Finding]:
    """What `torch.compile` and Triton's kernels need."""
    compiler = next((name for name in (os.environ.get("CXX"), "g++", "clang++") if name and shutil.which(name)), None)
    header = Path(sysconfig.get_path("include")) / "Python.h"
    values = {"compiler": Path(compiler).name if compiler else None, "python_headers": header.is_file()}
    if compiler is None:
        text = "no C++ compiler, so torch.compile does not work on the processor"
        yield Finding("usable", "torch.compile", text, values, "missing")
    elif not header.is_file():
        text = f"{values['compiler']}, but Python's headers are missing"
        yield Finding("usable", "torch.compile", text, values, "missing", "Install python3-dev for torch.compile.")
    else:
        yield Finding("usable", "torch.compile", f"{values['compiler']} and Python's headers", values)
    yield _check_triton()


def _check_triton() -> Finding:
    number = find_version("triton")
    on_gpu = torch.cuda.is_available()
    if number is None or not is_importable("triton"):
        advice = "Triton's kernels are faster on this GPU: install tavq[triton]." if on_gpu else None
        return Finding(
            "usable", "Triton", "not installed; for GPUs", {"version": None}, "odd" if on_gpu else "missing", advice
        )
    where = "kernels run on the GPU" if on_gpu else "no GPU to run its kernels on"
    return Finding("usable", "Triton", f"{number}; {where}", {"version": number, "used": on_gpu})


def check_processes() -> Iterator[Finding]:
    """Whether several processes can work together: a group of one is made."""
    backends = {
        "nccl": dist.is_available() and dist.is_nccl_available(),
        "gloo": dist.is_available() and dist.is_gloo_available(),
    }
    text = ", ".join(f"{name} {'yes' if has else 'no'}" for name, has in backends.items())
    needed = "nccl" if torch.cuda.is_available() else "gloo"
    if not backends[needed]:
        advice = f"torchrun needs {needed} here: install a build of PyTorch that has it."
        yield Finding("usable", "several processes", text, backends, "odd", advice)
        return
    failed = _try_group(needed) if needed == "gloo" else None
    if failed is not None:
        advice = "torchrun cannot join processes on this machine; look at its network interfaces (GLOO_SOCKET_IFNAME)."
        yield Finding("usable", "several processes", f"{text}: fails ({failed})", backends, "odd", advice)
    else:
        yield Finding("usable", "several processes", text, backends)


def _try_group(backend: str) -> str | None:
    """Why a group of this process alone cannot be made; None where it can."""
    if dist.is_initialized():
        return None
    try:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        dist.all_reduce(torch.ones(1))
        dist.destroy_process_group()
    except (RuntimeError, ValueError) as error:
        return first_line(error)[:60]
    return None
