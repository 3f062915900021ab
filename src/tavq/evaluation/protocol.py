"""What a result records about how it was made, so that others can reproduce it."""

import platform
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from PIL import features

from tavq.core.devices import default_device
from tavq.core.version import __version__
from tavq.data.folder import FolderDataset
from tavq.data.transforms import PREPROCESSING
from tavq.model_folder import read_model_config
from tavq.ops.collective import world_size
from tavq.text.store import TextStore
from tavq.tokenizer import Tokenizer


def make_protocol(
    measured: Mapping[str, Any],
    folder: Path,
    dataset: FolderDataset,
    store: TextStore | None,
    tokenizer: Tokenizer,
    limit: int | None,
    batch: int,
) -> dict[str, Any]:
    """Return the protocol of an evaluation.

    Args:
        measured: what the evaluation records itself.
        folder: the model folder.
        dataset: the split that was measured.
        store: its text store, None without one.
        tokenizer: the model, on the device that it was measured on.
        limit: how many images at most.
        batch: images that were encoded at once.
    """
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
    """Return the versions of this package, of Python and of those packages that are installed."""
    found = {"tavq": __version__, "python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    jpeg = features.version("libjpeg_turbo")  # decoders differ in the last bit
    return found | ({"libjpeg-turbo": jpeg} if jpeg else {})


def _model(folder: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    config = read_model_config(folder)
    dtypes = sorted({str(value.dtype).removeprefix("torch.") for value in tokenizer.parameters()})
    return {
        "sha256": config.get("sha256"),
        "step": config.get("step"),
        "trained_at": config.get("size"),
        "dtypes": dtypes,
        **({} if tokenizer.precision == "fp32" else {"precision": tokenizer.precision}),
    }


def _data(dataset: FolderDataset, limit: int | None) -> dict[str, Any]:
    """Describe the split, with its files per suffix: JPEG and PNG of one image do not measure the same."""
    suffixes = Counter(PurePosixPath(record.file_name).suffix.lower().removeprefix(".") for record in dataset)
    return {
        "name": dataset.name,
        "sha256": dataset.fingerprint,
        "split": dataset.split,
        "images_in_split": len(dataset),
        "first": limit,
        "files": dict(sorted(suffixes.items())),
    }


def _machine(batch: int) -> dict[str, Any]:
    """Describe what may change the last bits of a metric."""
    gpu = torch.cuda.get_device_name() if default_device().type == "cuda" else None
    return {
        "device": gpu or f"{platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "processes": world_size(),
        "batch": batch,
    }
