"""What a result says of its making, so that a stranger can make it again."""

import platform
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any


def protocol(
    measured: dict[str, Any], folder: Path, dataset: Any, store: Any, tokenizer: Any, limit: int | None, batch: int
) -> dict[str, Any]:
    """The protocol that `evaluate` gave, with what the command line knows besides.

    Args:
        measured: what the evaluation says of itself.
        folder: the model folder.
        dataset: the split that was measured.
        store: its text store, None without one.
        tokenizer: the model, on the device that it was measured on.
        limit: how many images at most.
        batch: images that were encoded at once.
    """
    from tavq.data.transforms import PREPROCESSING

    return {
        "model": _model(folder, tokenizer),
        "data": _data(dataset, limit),
        "images": {**measured["images"], **PREPROCESSING},
        **{key: value for key, value in measured.items() if key != "images"},
        "text": None if store is None else store.manifest.model_dump(mode="json"),
        "machine": _machine(batch),
        "versions": versions("numpy", "pillow", "safetensors", "torch"),
    }


def versions(*packages: str) -> dict[str, str]:
    """Of this program, of Python and of those packages that are installed."""
    from PIL import features

    from tavq.core.version import __version__

    found = {"tavq": __version__, "python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    jpeg = features.version("libjpeg_turbo")  # decoders differ in the last bit
    return found | ({"libjpeg-turbo": jpeg} if jpeg else {})


def _model(folder: Path, tokenizer: Any) -> dict[str, Any]:
    from tavq.model_folder import read_model_config

    told = read_model_config(folder)
    kinds = sorted({str(value.dtype).removeprefix("torch.") for value in tokenizer.parameters()})
    return {"sha256": told.get("sha256"), "step": told.get("step"), "trained_at": told.get("size"), "dtypes": kinds}


def _data(dataset: Any, limit: int | None) -> dict[str, Any]:
    """The split, and how many files it has of each ending: JPEG and PNG of one image do not measure alike."""
    endings = Counter(PurePosixPath(record.file_name).suffix.lower().removeprefix(".") for record in dataset)
    return {
        "name": dataset.folder.resolve().name,
        "sha256": dataset.fingerprint,
        "split": dataset.split,
        "images_in_split": len(dataset),
        "first": limit,
        "files": dict(sorted(endings.items())),
    }


def _machine(batch: int) -> dict[str, Any]:
    """What may change the last bits of a figure."""
    import torch

    from tavq.core.devices import default_device
    from tavq.ops.collective import world_size

    gpu = torch.cuda.get_device_name() if default_device().type == "cuda" else None
    return {
        "device": gpu or f"{platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "processes": world_size(),
        "batch": batch,
    }
