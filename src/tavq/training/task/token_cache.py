"""Where the tokens of a split are kept for other runs on the same tokenizer and images."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch

from tavq.core.addresses import cache_folder
from tavq.core.errors import FileError
from tavq.data.folder import FolderDataset

FOLDER = "tokens"
"""In the folder of what can be made again; removing it costs encoding again, and nothing else."""


def find_cached_tokens(stamp: str, dataset: FolderDataset, device: torch.device) -> Path | None:
    """The file that holds the tokens of a split, or will hold them; None where an image cannot be found.

    Its name changes with the tokenizer, with how images are read, with the time or size of any image, and with what
    may round features in another way: PyTorch and the kind of device. Shards count by their own fingerprint.

    Args:
        stamp: names the weights of the tokenizer, the data set and its split, and the form of the tokens.
        dataset: the split.
        device: where images are encoded.
    """
    digest = hashlib.sha256(json.dumps([stamp, torch.__version__, device.type]).encode())
    try:
        for state in _states(dataset):
            digest.update(state.encode("utf-8", "surrogatepass"))
    except (OSError, FileError):
        return None
    return cache_folder() / FOLDER / f"{digest.hexdigest()[:32]}.safetensors"


def _states(dataset: FolderDataset) -> Iterator[str]:
    """For each image and segmentation map of a folder its name, size and time of change."""
    for record in dataset:
        for name in (record.file_name, record.segmentation):
            file = None if name is None else dataset.file(name)
            if isinstance(file, Path):
                status = file.stat()
                yield f"{name}\n{status.st_size}\n{status.st_mtime_ns}\n"
