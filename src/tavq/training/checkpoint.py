"""Checkpoints that resume to the bit: weights, optimisers and the step; everything else follows from the step.

Order of the data and every random draw are functions of (seed, step), so no generator state is stored.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tavq.core import files
from tavq.core.errors import FileError

FORMAT = 1


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors as `index/name`; settings such as the learning rate follow from the step."""
    state = optimizer.state_dict()["state"]
    return {f"{index}/{name}": torch.as_tensor(value) for index, part in state.items() for name, value in part.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts back what `flatten_optimizer` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split("/")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def save(
    folder: Path, step: int, groups: Mapping[str, Mapping[str, Tensor]], metadata: Mapping[str, Any], keep: int
) -> Path:
    """Writes `folder/STEP` atomically, then removes all but the `keep` newest.

    Args:
        groups: tensors by `group` and name; stored as `group:name`.
        facts: plain values to keep beside them.
    """
    place = folder / f"{step:08d}"
    with files.write_folder(place) as temporary:
        tensors = temporary / "state.safetensors"
        files.write_tensors(
            tensors, {f"{group}:{name}": t for group, part in groups.items() for name, t in part.items()}
        )
        record = {"format": FORMAT, "step": step, "sha256": files.sha256(tensors), **metadata}
        files.write_json(temporary / "state.json", {**record, "seal": _seal(record)})
    for old in _steps(folder)[:-keep]:
        files.remove_folder(old)
    return place


def _seal(record: Mapping[str, Any]) -> str:
    """The hash of a record: one changed digit of its step would resume wrongly, and no one would see it."""
    return files.sha256_bytes(json.dumps(record, sort_keys=True).encode())


def _steps(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name.isdigit())


def exists(folder: Path) -> bool:
    """True when `folder` holds any checkpoint, whole or not."""
    return bool(_steps(folder))


def load_newest(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any], list[str]]:
    """Tensor groups and facts of the newest whole checkpoint, with one line for each newer damaged one.

    Raises:
        FileError: there is none, or every one is damaged.
    """
    damaged: list[str] = []
    for place in reversed(_steps(folder)):
        try:
            return *_load(place), damaged
        except FileError as error:
            damaged.append(str(error))
    if damaged:
        raise FileError(f"Every checkpoint in {folder} is damaged: {damaged[0]}")
    raise FileError(f"There is no checkpoint in {folder} to resume from; start without --resume.")


def _load(place: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    metadata = files.read_json(place / "state.json")
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT or not isinstance(metadata.get("step"), int):
        raise FileError(f"{place / 'state.json'} is not a checkpoint of format {FORMAT}.")
    if metadata.pop("seal", None) != _seal(metadata):
        raise FileError(f"{place / 'state.json'} was altered or cut: its seal does not fit.")
    path = place / "state.safetensors"
    files.check_sha256(path, str(metadata.get("sha256")))
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in files.read_tensors(path).items():
        group, _, name = key.partition(":")
        groups.setdefault(group, {})[name] = tensor
    return groups, metadata
