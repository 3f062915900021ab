"""How much memory this process holds, and what to say where it does not suffice."""

import os
import re
import sys

from tavq.core.errors import first_line

TRAINING_SETTINGS = {
    "accumulate": "--train.accumulate (the same batch in several parts)",
    "recompute": "--train.recompute (activations are computed again instead of kept)",
    "precision": "--train.precision bf16",
    "batch": "a smaller --train.batch",
}
"""Settings of a recipe that lower the memory of a training, those that change least first."""

TRAINING_ADVICE = f"Try {', '.join(TRAINING_SETTINGS.values())} or a smaller --data.size"

_ASKED = re.compile(r"[Tt]ried to allocate (\d+(?:\.\d+)?) ?([KMGTP]?i?B|bytes)|Unable to allocate (\S+) (\S+) ")
_HELD = re.compile(r"(\d+(?:\.\d+)? [KMGTP]?i?B) is allocated by PyTorch|MPS allocated: (\d+(?:\.\d+)? [KMGTP]?i?B)")
_ALLOCATORS = ("DefaultCPUAllocator", "out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of the processor or of a GPU; torch has no class for the first."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and any(name in str(error) for name in _ALLOCATORS))
    )


def describe_out_of_memory(error: BaseException, advice: str) -> str:
    """One line with what was asked for, what was held, and what helps.

    Args:
        error: one of `is_out_of_memory`.
        advice: a sentence without its period.
    """
    return f"The memory does not suffice ({_describe_sizes(str(error)) or first_line(error)}). {advice}."


def _describe_sizes(text: str) -> str | None:
    asked, held = _ASKED.search(text), _HELD.search(text)
    if asked is None:
        return None
    size = " ".join(part for part in asked.groups() if part)
    if size.endswith(" bytes"):
        size = format_bytes(int(float(size.removesuffix(" bytes"))))
    if "CUDA" in text or "MPS" in text or "HIP" in text:
        own = next((part for part in held.groups() if part), None) if held else None
        return f"{size} more asked for on the GPU" + (f", {own} held" if own else "")
    return f"{size} more asked for, {format_bytes(resident_memory())} held by this process"


def format_bytes(count: float) -> str:
    """A number of bytes as torch writes it: 1.50 GiB."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.2f} {unit}"
        count /= 1024
    return f"{count:,.2f} TiB"


def resident_memory() -> int:
    """Bytes of the machine's memory that this process holds; its peak where the system only tells that, else 0."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return _peak_memory()


def _peak_memory() -> int:
    try:
        import resource  # Windows has none
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
