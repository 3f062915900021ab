"""Checkpoints of sharded state: a folder to which each process writes its parts, read by any number of processes.

`torch.distributed.checkpoint` plans, writes and reads the parts. They are safetensors whose headers say which part of a
tensor they hold. Its default format has a pickle; none is written or read here. It is imported where it is used, as
that takes half as long as importing torch.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tavq.core import files
from tavq.core.errors import FileError, first_line
from tavq.core.inside import resolve_inside
from tavq.core.shared_disk import wait_until_seen
from tavq.ops.agreement import decide_first, run_together
from tavq.ops.collective import rank
from tavq.ops.gathering import gather_values
from tavq.ops.parts import is_part

if TYPE_CHECKING:
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

Like = Callable[[str], Tensor | None]
"""Gives the sharded tensor of this run by the name of a stored one; None where the stored one is needed whole."""


def is_sharded(tensors: Mapping[str, Tensor]) -> bool:
    """Whether any tensor is held in parts by several processes."""
    return any(map(is_part, tensors.values()))


def write(path: Path, tensors: Mapping[str, Tensor], record: Callable[[dict[str, str]], Any], name: str) -> None:
    """Write a folder with the parts of all processes, atomically and durably; all processes must call it.

    The folder gets its name once every part is on disk. Tensors that are not sharded are written by one process.

    Args:
        path: the folder, on a disk that all processes share.
        tensors: by name, the same names in every process.
        record: from the sha256 of each file of parts, by its name, makes the JSON value to write with them.
        name: of the file with this value.

    Raises:
        FileError: a process could not write its part. Every process raises it, and nothing is left at `path`.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.api import CheckpointException

    with ExitStack() as unfinished:
        folder = Path(decide_first(lambda: str(unfinished.enter_context(files.write_folder(path)).absolute())))
        run_together(lambda: _require_shared(folder))
        try:
            dcp.save(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
        except CheckpointException as error:  # raised in every process
            raise _explain(folder, error) from error
        parts = gather_values(run_together(lambda: _hash_own(folder)))
        hashes = {part: sha256 for own in parts for part, sha256 in own.items()}
        decide_first(lambda: _finish(unfinished, folder / name, record(hashes)))


def _require_shared(folder: Path) -> None:
    if not wait_until_seen(folder.is_dir):
        raise FileError(
            f"Process {rank()} does not see {folder}. Put the run folder on a disk that all processes share."
        )


def _hash_own(folder: Path) -> dict[str, str]:
    """The sha256 of the file that this process wrote, by its name; nothing if it had nothing to write."""
    return {path.name: files.sha256(path) for path in folder.glob(f"shard-{rank() + 1:05d}-*.safetensors")}


def _finish(unfinished: ExitStack, path: Path, record: Any) -> None:
    """Write the record and give the folder its name."""
    files.write_json(path, record)
    unfinished.close()


def _explain(folder: Path, error: "CheckpointException") -> FileError:
    """The error of the first process that failed."""
    process, (cause, _) = min(error.failures.items(), key=lambda item: item[0])
    if isinstance(cause, OSError):
        return files.write_error(folder, cause)
    return FileError(f"Process {process} could not write its part of {folder}: {first_line(cause)}.")


def check(folder: Path, hashes: Any) -> None:
    """Raise FileError, which names the file, unless the files of parts are those that were written."""
    if not isinstance(hashes, dict) or not hashes:
        raise FileError(f"{folder} lacks the hashes of its files.")
    found = {path.name for path in folder.glob("*.safetensors")}
    for name in sorted(found - {*hashes}):
        raise FileError(f"{folder / name} does not belong to the checkpoint; remove it.")
    for name, sha256 in hashes.items():
        files.check_sha256(resolve_inside(folder, str(name)), str(sha256))


def read(folder: Path, like: Like | None = None) -> dict[str, Tensor]:
    """The tensors of a folder of safetensors by name, from whole tensors or from parts.

    Args:
        folder: with parts that `write` wrote, or with one file of whole tensors.
        like: which tensors are sharded now: of these each process reads its part alone. None reads all of them whole.

    Raises:
        FileError: a file is damaged, or parts are missing.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint import HuggingFaceStorageReader

    reader = HuggingFaceStorageReader(str(folder))
    try:
        stored: Any = reader.read_metadata().state_dict_metadata
        tensors = {name: _make_target(name, found, like) for name, found in stored.items()}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            dcp.load(tensors, storage_reader=reader, no_dist=True)  # nothing to agree on: each reads what it needs
    except FileError:
        raise
    except Exception as error:  # safetensors, json, torch: each has errors of its own
        raise FileError(f"{folder} is not a complete checkpoint: {first_line(error)}.") from error
    return tensors


def _make_target(name: str, stored: "TensorStorageMetadata", like: Like | None) -> Tensor:
    """An empty tensor to read a stored one into."""
    held = sum(math.prod(chunk.sizes) for chunk in stored.chunks)
    if held != math.prod(stored.size):
        raise FileError(f"The checkpoint holds {held:,} of the {math.prod(stored.size):,} values of {name!r}.")
    template = like(name) if like is not None else None
    if template is not None and template.shape == stored.size:
        return torch.empty_like(template, dtype=stored.properties.dtype)
    return torch.empty(stored.size, dtype=stored.properties.dtype)
