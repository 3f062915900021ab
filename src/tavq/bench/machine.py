"""What was measured on: the processor's features, and the class that its floors are kept for."""

from typing import Any

import torch

from tavq.core.cores import count_cores
from tavq.core.version import __version__
from tavq.doctor.devices import read_flags
from tavq.doctor.installed import find_version

CLASSES = {"AMX bf16": "amx", "AVX-512 bf16": "avx512-bf16", "AVX-512": "avx512", "AVX2": "avx2"}
"""Classes of processors by the fastest feature that they have, the fastest first."""

PEERS = ("diffusers", "vector-quantize-pytorch", "POT", "geomloss", "transformers", "simplejpeg")


def find_class(device: torch.device, flags: list[str]) -> str:
    """The class of a device: `cuda-9.0` for a GPU by its capability, else by the processor's features."""
    if device.type == "cuda":
        return "cuda-" + ".".join(map(str, torch.cuda.get_device_capability(device)))
    return next((name for flag, name in CLASSES.items() if flag in flags), "other")


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Features, threads and versions, without names of hosts."""
    flags = read_flags()
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return {
        "class": find_class(device, flags),
        "features": flags,
        "cores": count_cores(),
        "threads": torch.get_num_threads(),
        **gpu,
        "tavq": __version__,
        "torch": str(torch.__version__),
        "peers": {name: find_version(name) for name in PEERS},
    }
