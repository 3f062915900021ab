"""Weights that other projects published as pickles: read once, by the one reader that runs nothing, and converted.

A converted file is safetensors. It says which files it was made from, so that a result may carry a published name only
where the published weights made it.
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tavq.core.errors import FileError
from tavq.core.files import parse_json, read_tensors, write_tensors
from tavq.core.mmap_tensors import MappedTensors

MAX_BYTES = 4_000_000_000
ORIGIN = "origin"
"""The one key of a converted file's metadata; of several the format does not keep the order, nor so the file's hash."""


@dataclass(frozen=True)
class Origin:
    """What a converted file was made from: its kind, and the SHA-256 of each source; both empty for any other file."""

    kind: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint that torch saved, by name, on the CPU.

    A checkpoint is a pickle. Only torch's restricted reader opens it (`weights_only`), and there is no other way in:
    what holds more than tensors in plain containers is refused with FileError.
    """
    if not path.is_file():
        raise FileError(f"There is no file {path}.")
    if path.stat().st_size > MAX_BYTES:
        raise FileError(f"{path} holds {path.stat().st_size:,} bytes; checkpoints here stay below {MAX_BYTES:,}.")
    _check_unpacked(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of a hostile file torch raises anything
        raise FileError(
            f"{path} is not a checkpoint of tensors alone ({type(error).__name__}), and nothing else is read."
        ) from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not found or not all(map(_is_named_tensor, found.items())):
        raise FileError(f"{path} does not hold tensors by name.")
    return dict(found)


def _check_unpacked(path: Path) -> None:
    """Refuses an archive whose files would grow beyond MAX_BYTES when they are unpacked."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise FileError(f"{path} is a damaged archive.") from error
    if unpacked > MAX_BYTES or unpacked > 2 * path.stat().st_size + 1_000_000:  # real ones are not compressed
        raise FileError(f"{path} would unpack to {unpacked:,} bytes from {path.stat().st_size:,}; it is not read.")


def _is_named_tensor(item: tuple[Any, Any]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def write_converted(path: Path, tensors: Mapping[str, Tensor], origin: Origin) -> None:
    """Writes tensors with their origin; the same ones give the same bytes."""
    said = {"kind": origin.kind, "sources": dict(origin.sources), "tensors": _digest(tensors)}
    write_tensors(path, tensors, {ORIGIN: json.dumps(said, sort_keys=True)})


def read_converted(path: Path) -> tuple[dict[str, Tensor], Origin]:
    """The tensors of a safetensors file and their origin; FileError where they are not those that were converted."""
    tensors = read_tensors(path)
    text = MappedTensors(path).metadata.get(ORIGIN)
    if text is None:
        return tensors, Origin()
    said = parse_json(text, f"The origin in {path}")
    if not isinstance(said, dict) or not isinstance(said.get("sources"), dict):
        raise FileError(f"The origin in {path} is not one that a conversion wrote.")
    if said.get("tensors") != _digest(tensors):
        raise FileError(f"{path} was altered: its tensors are not those that were converted; convert them again.")
    return tensors, Origin(str(said.get("kind")), {str(k): str(v) for k, v in said["sources"].items()})


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of names, kinds, shapes and numbers."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
