"""Weights that other projects published as pickles: read once, without running their code, and converted.

A converted file is safetensors. It records the hashes of its sources, so that a metric can claim a published name only
if the published weights computed it. A file can be written by hand, with any hashes: its word counts only where this
user converted the same tensors from these sources, which `write_converted` notes in the user's folder of state.
"""

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tavq.core.errors import FileError
from tavq.core.files import parse_json, read_tensors, sha256_bytes, write_json, write_tensors
from tavq.core.mmap_tensors import MappedTensors

MAX_BYTES = 4_000_000_000
_logger = logging.getLogger("tavq")

ORIGIN = "origin"
"""The only metadata key of a converted file: the format does not keep the order of several, and so not the hash."""


@dataclass(frozen=True)
class Origin:
    """The kind and the SHA-256 of each source of a converted file; both empty for other files."""

    kind: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    confirmed: bool = field(default=False, compare=False)
    """This user converted the same tensors from these sources."""

    def proves(self, kind: str, sources: Mapping[str, str], path: Path) -> bool:
        """Whether the file `path` was converted from `sources`; warns where only the file itself says so."""
        claimed = self.kind == kind and dict(self.sources) == dict(sources)
        if claimed and not self.confirmed:
            _logger.warning(
                "%s says that it holds the published weights of %s, but was not converted here, and any file can say "
                "so; its results do not carry the published name. Convert the published file: tavq metrics convert",
                path,
                kind,
            )
        return claimed and self.confirmed


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint that torch saved, by name, on the CPU.

    Raises FileError as `load_checkpoint`, and for anything but tensors by name, alone or as a `state_dict`.
    """
    checkpoint = load_checkpoint(path)
    if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get("state_dict"), Mapping):
        checkpoint = checkpoint["state_dict"]
    if not isinstance(checkpoint, Mapping) or not checkpoint or not all(map(_is_named_tensor, checkpoint.items())):
        raise FileError(f"{path} does not hold tensors by name.")
    return dict(checkpoint)


LFS = b"version https://"
"""How a file begins that stands for a large one in a Git repository."""


def load_checkpoint(path: Path, remedy: str = "no other kind is read.") -> Any:
    """Read what torch saved: tensors and plain values in plain containers, on the CPU.

    A checkpoint is a pickle, which could run code. Only torch's restricted reader (`weights_only`) opens it; raises
    FileError, with `remedy` at its end, for anything that this reader does not read.
    """
    if not path.is_file():
        raise FileError(f"There is no file {path}.")
    if path.stat().st_size > MAX_BYTES:
        raise FileError(f"{path} has {path.stat().st_size:,} bytes; checkpoints may have at most {MAX_BYTES:,}.")
    _check_container(path)
    _check_unpacked(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # hostile files can make torch raise anything
        raise FileError(f"{path} is not a checkpoint of tensors alone ({type(error).__name__}); {remedy}") from error


def _check_container(path: Path) -> None:
    """Raise FileError for a file that torch did not write, or of which a part is missing."""
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(LFS):
        raise FileError(f"{path} is a pointer of Git LFS and not the file itself; fetch it with: git lfs pull")
    if start.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise FileError(f"{path} is not a checkpoint of tensors alone: it is cut short or damaged; download it again.")
    if not start.startswith((b"PK", b"\x80")):
        raise FileError(f"{path} is not a checkpoint of tensors alone: it is neither an archive of torch nor a pickle.")


def _check_unpacked(path: Path) -> None:
    """Raise FileError for a zip bomb: an archive whose files would unpack to more than MAX_BYTES."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise FileError(f"{path} is a damaged archive.") from error
    if unpacked > MAX_BYTES or unpacked > 2 * path.stat().st_size + 1_000_000:  # torch does not compress checkpoints
        raise FileError(
            f"{path} would unpack from {path.stat().st_size:,} to {unpacked:,} bytes, which no checkpoint does."
        )


def _is_named_tensor(item: tuple[Any, Any]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def write_converted(path: Path, tensors: Mapping[str, Tensor], origin: Origin) -> None:
    """Write tensors with their origin, and note that this user converted them; equal tensors give equal bytes."""
    record = {"kind": origin.kind, "sources": dict(origin.sources), "tensors": _digest(tensors)}
    write_tensors(path, tensors, {ORIGIN: json.dumps(record, sort_keys=True)})
    try:
        write_json(_note_path(record), record)
    except FileError as error:
        _logger.warning("%s Without this note, results do not carry the published name.", error)


def _note_path(record: Mapping[str, Any]) -> Path:
    """Where a conversion is noted: by its kind, sources and tensors, in the folder that XDG gives to state."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "tavq" / "converted" / f"{sha256_bytes(json.dumps(record, sort_keys=True).encode())}.json"


def read_converted(path: Path) -> tuple[dict[str, Tensor], Origin]:
    """Read the tensors of a safetensors file and their origin; raises FileError if they were changed since."""
    tensors = read_tensors(path)
    text = MappedTensors(path).metadata.get(ORIGIN)
    if text is None:
        return tensors, Origin()
    record = parse_json(text, f"The origin in {path}")
    if not isinstance(record, dict) or not isinstance(record.get("sources"), dict):
        raise FileError(f"The origin in {path} was not written by a conversion.")
    if record.get("tensors") != _digest(tensors):
        raise FileError(f"{path} was altered: its tensors are not those that were converted; convert them again.")
    sources = {str(name): str(value) for name, value in record["sources"].items()}
    return tensors, Origin(str(record.get("kind")), sources, _note_path(record).is_file())


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
