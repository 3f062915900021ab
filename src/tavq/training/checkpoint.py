"""Checkpoints that resume bit-for-bit: weights, optimizer states and the step, whole or sharded.

The order of the data and all random numbers are functions of (seed, step), so no generator state is stored.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tavq.core import files
from tavq.core.errors import FileError
from tavq.core.seals import seal_record
from tavq.core.tensor_names import update_tensor_names
from tavq.ops.collective import rank, world_size
from tavq.training import sharded_checkpoint

FORMAT, SHARDED_FORMAT = 1, 2
"""Of one file with all tensors, and of a file of parts from each process."""

STATE, RECORD = "state.safetensors", "state.json"


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The tensors of the optimizer's state as `index/name`.

    Its settings are not stored: the learning rate follows from the step, the others from the recipe.
    """
    state = optimizer.state_dict()["state"]
    flat: dict[str, Tensor] = {}
    for index, values in state.items():
        flat |= {f"{index}/{name}": torch.as_tensor(value) for name, value in values.items()}
    return flat


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], source: str = "The checkpoint"
) -> None:
    """Load what `flatten_optimizer` returned into an optimizer over the same parameters.

    Raises FileError, which begins with `source`, if it is the state of other parameters.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    expected: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        index, name = key.split("/")
        state.setdefault(int(index), {})[name] = tensor
        if tensor.ndim and int(index) < len(parameters):  # torch does not check what has the shape of its parameter
            expected[key] = parameters[int(index)]
    _check_shapes(source, expected, {key: tensor for key, tensor in tensors.items() if tensor.ndim})
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value.shape == parameter.shape:  # a file knows no memory format; another one leaves Adam's fused path
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def restore_module(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load the weights of a checkpoint, also under the names of older versions, into a module.

    Raises FileError, which begins with `source`, if they are those of another network.
    """
    current = update_tensor_names(module, tensors)
    _check_shapes(source, module.state_dict(), current)
    module.load_state_dict(current)


def restore_tensors(into: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy the tensors of a checkpoint into those of the same names.

    Raises FileError, which begins with `source`, if names or shapes differ.
    """
    _check_shapes(source, into, tensors)
    for name, tensor in into.items():
        tensor.copy_(tensors[name])


def _check_shapes(source: str, expected: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> None:
    """Raise FileError unless both have the same names and shapes."""
    own = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    found = {name: tuple(tensor.shape) for name, tensor in stored.items()}
    wrong = sorted(name for name in own.keys() | found.keys() if own.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        raise FileError(
            f"{source} does not fit this version: {len(wrong)} tensors differ, first {name!r} (checkpoint: "
            f"{found.get(name, 'missing')}, needed: {own.get(name, 'none')}). Another version of tavq wrote it: resume "
            "with that version, or start again in another folder."
        )


def save(
    folder: Path, step: int, groups: Mapping[str, Mapping[str, Tensor]], metadata: Mapping[str, Any], keep: int
) -> Path:
    """Write `folder/STEP` atomically, then remove all but the newest checkpoints.

    Where tensors are sharded, all processes must call it: each writes its parts. Otherwise one process does.

    Args:
        folder: the folder of all checkpoints of a run.
        step: steps done.
        groups: tensors by group and name; stored as `group:name`.
        metadata: further plain values to store.
        keep: how many checkpoints stay.
    """
    path = folder / f"{step:08d}"
    tensors: dict[str, Tensor] = {}
    for group, named in groups.items():
        tensors |= {f"{group}:{name}": tensor for name, tensor in named.items()}
    if sharded_checkpoint.is_sharded(tensors):
        plain = {"format": SHARDED_FORMAT, "step": step, "processes": world_size(), **metadata}
        sharded_checkpoint.write(path, tensors, lambda hashes: _seal({**plain, "files": hashes}), RECORD)
    else:
        _write(path, tensors, {"format": FORMAT, "step": step, **metadata})
    if rank() == 0:
        _remove_old(folder, keep)
    return path


def _write(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    with files.write_folder(path) as temporary:
        state = temporary / STATE
        files.write_tensors(state, tensors)
        files.write_json(temporary / RECORD, _seal({**record, "sha256": files.sha256(state)}))


def _seal(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "seal": seal_record(record)}


def _remove_old(folder: Path, keep: int) -> None:
    written = [
        old for old in _steps(folder) if (old / STATE).is_file() or (old / RECORD).is_file()
    ]  # no foreign folder
    for old in written[:-keep]:
        files.remove_folder(old)


def _steps(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name.isdigit())


def exists(folder: Path) -> bool:
    """Whether `folder` holds any checkpoint, damaged ones included."""
    return bool(_steps(folder))


def newest_step(folder: Path) -> int:
    """The step of the newest checkpoint, damaged or not; 0 if there is none."""
    return max((int(path.name) for path in _steps(folder)), default=0)


def has_step(folder: Path, step: int) -> bool:
    """Whether this process sees the checkpoint of a step, damaged or not."""
    return (folder / f"{step:08d}" / RECORD).is_file()


def find_newest(folder: Path) -> tuple[int, list[str]]:
    """The step of the newest intact checkpoint, and one line for each newer damaged one.

    Raises:
        FileError: there is no checkpoint, or all are damaged.
    """
    damaged: list[str] = []
    for path in reversed(_steps(folder)):
        try:
            return int(_read_record(path)["step"]), damaged
        except FileError as error:
            damaged.append(str(error))
    if damaged:
        raise FileError(f"Every checkpoint in {folder} is damaged: {damaged[0]}")
    raise FileError(f"There is no checkpoint in {folder} to resume from; start without --resume.")


def load(
    folder: Path, step: int, like: Callable[[str, str], Tensor | None] | None = None
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Tensor groups and metadata of the checkpoint of a step.

    Args:
        folder: the folder of all checkpoints of a run.
        step: of the checkpoint.
        like: gives the sharded tensor of this run by group and name, of which this process then reads its part alone;
            None where a tensor is needed whole. With it, the hashes of the files are not checked again: `find_newest`
            has done so in the first process, and to read all files in each one would take longer than loading.

    Raises:
        FileError: it is missing or damaged.
    """
    path = folder / f"{step:08d}"
    metadata = _read_record(path) if like is None else _read_metadata(path)
    if like is None and metadata["format"] == FORMAT:
        tensors = files.read_tensors(path / STATE)
    else:
        tensors = sharded_checkpoint.read(path, like and (lambda key: like(*_split_key(key))))
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        group, name = _split_key(key)
        groups.setdefault(group, {})[name] = tensor
    return groups, metadata


def _split_key(key: str) -> tuple[str, str]:
    """Group and name of a stored tensor."""
    group, _, name = key.partition(":")
    return group, name


def _read_record(folder: Path) -> dict[str, Any]:
    """The metadata of a checkpoint whose tensors are intact."""
    metadata = _read_metadata(folder)
    if metadata["format"] == FORMAT:
        files.check_sha256(folder / STATE, str(metadata.get("sha256")))
    else:
        sharded_checkpoint.check(folder, metadata.get("files"))
    return metadata


def _read_metadata(folder: Path) -> dict[str, Any]:
    """The metadata of a checkpoint; FileError if they are not as they were written."""
    record = folder / RECORD
    metadata = files.read_json(record)
    known = isinstance(metadata, dict) and metadata.get("format") in (FORMAT, SHARDED_FORMAT)
    if not known or not isinstance(metadata.get("step"), int):
        raise FileError(f"{record} is not a checkpoint of format {FORMAT} or {SHARDED_FORMAT}.")
    if metadata.pop("seal", None) != seal_record(metadata):
        raise FileError(f"{record} was altered or truncated short: its seal does not match.")
    return metadata
