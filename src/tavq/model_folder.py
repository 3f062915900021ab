"""The format of a tokenizer's model folder: finding one, checking its config.json and its tensors."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tavq.core import files
from tavq.core.errors import FileError, UsageError
from tavq.core.pretrained import download_from_hub, is_hub_name
from tavq.core.seals import SEAL, seal_record
from tavq.core.tensor_names import update_tensor_names
from tavq.ops.checks import is_finite

CONFIG = "config.json"
FORMAT = 1
"""Format number in a tokenizer's config.json."""


def find_model(name_or_path: str | Path) -> Path:
    """Find the model folder of a path (a model folder or a run folder) or a hub name, `OWNER/NAME[@REVISION]`."""
    path = Path(name_or_path)
    for folder in (path, path / "model"):
        if os.path.isfile(folder / "config.json"):
            return folder
    if os.path.exists(path) or not is_hub_name(str(name_or_path)):
        raise UsageError(
            f"There is no model at {str(name_or_path)!r}: found no config.json there or in its folder model/."
        )
    return download_from_hub(str(name_or_path), "model", FILES)


def write_config(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the config.json of a model folder, sealed by a hash of the whole record."""
    files.write_json(folder / CONFIG, {**record, SEAL: seal_record(record)})


def read_config(folder: Path) -> Any:
    """Read the config.json of a model folder, without its seal; folders of older versions have none.

    Raises:
        FileError: there is none, it is not JSON, or it was changed since it was sealed.
    """
    path = folder / CONFIG
    stored = files.read_json(path)
    if not isinstance(stored, dict) or SEAL not in stored:
        return stored
    seal = stored.pop(SEAL)
    if seal != seal_record(stored):
        raise FileError(
            f"{path} was altered: its settings do not fit its seal, a hash of them. Put the original back. If you "
            f"changed them on purpose, remove the line {SEAL!r}; the model may then compute something else."
        )
    return stored


def describe_start(name_or_path: str | Path) -> dict[str, Any]:
    """What a model records of the one that its training started from: name, hash, and where that one comes from."""
    stored = read_model_config(find_model(name_or_path))
    return {
        "model": Path(name_or_path).name,
        "sha256": stored.get("sha256"),
        "imported": dict(find_import(stored)) or None,
    }


def find_import(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record of the import that a model, or the one that its training started from, comes from; else empty."""
    started = stored.get("started_from")
    found = stored.get("imported") or (started.get("imported") if isinstance(started, Mapping) else None)
    return found if isinstance(found, Mapping) else {}


def read_model_config(folder: Path) -> dict[str, Any]:
    """Read and check the config.json of a tokenizer's model folder; raises FileError and UsageError."""
    stored = read_config(folder)
    if isinstance(stored, dict) and stored.get("kind") == "task":
        raise UsageError(f"{folder} holds a task, not a tokenizer; its tokenizer is {folder / 'tokenizer'}.")
    if not isinstance(stored, dict) or stored.get("kind") != "tokenizer":
        raise FileError(
            f"{folder / 'config.json'} does not describe a tokenizer of tavq. One of another project is imported with: "
            f"tavq import-checkpoint auto {folder} --out MODEL"
        )
    if stored.get("format") != FORMAT:
        raise FileError(
            f"{folder / 'config.json'} has format {stored.get('format')!r}; this version reads format {FORMAT}."
        )
    if not isinstance(stored.get("model"), dict):
        raise FileError(f"{folder / 'config.json'} lacks 'model', the settings of the tokenizer.")
    return stored


FILES = ("README.md", "*.json", "*.safetensors")
"""Files to download from the hub; patterns match in subfolders too, where a task's model folder keeps tokenizers."""

DISCRIMINATOR = "discriminator"
"""Key of its settings and SHA-256 in a model folder's config.json, and name of the file, where there is one."""


def read_discriminator(folder: Path) -> dict[str, Tensor]:
    """Read the weights of the discriminator that an imported model was published with.

    Raises:
        UsageError: the model folder has none.
        FileError: the file is missing, truncated or altered.
    """
    record = read_model_config(folder).get(DISCRIMINATOR)
    if not isinstance(record, dict):
        raise UsageError(
            f"{folder} has no discriminator: only models that were imported from a checkpoint with one have. Remove "
            "train.adversarial.start_from."
        )
    path = folder / f"{DISCRIMINATOR}.safetensors"
    if not path.is_file():
        raise FileError(f"There is no file {path}.")
    files.check_sha256(path, str(record.get("sha256")))
    return files.read_tensors(path)


FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def match_tensors(tokenizer: nn.Module, tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Cast tensors to the dtypes of the tokenizer (weights may be stored in any usual float dtype).

    Raises FileError, which names `path`, if names, shapes or fixed values do not match or a number is not finite.
    """
    tensors = update_tensor_names(tokenizer, tensors)
    own = tokenizer.state_dict()
    expected = {name: (tuple(value.shape), _kind(value)) for name, value in own.items()}
    stored = {name: (tuple(value.shape), _kind(value)) for name, value in tensors.items()}
    wrong = sorted(name for name in expected.keys() | stored.keys() if expected.get(name) != stored.get(name))
    if wrong:
        name = wrong[0]
        raise FileError(
            f"{path} does not fit its config.json: {len(wrong)} tensors differ, first {name!r} "
            f"(file: {stored.get(name, 'missing')}, settings: {expected.get(name, 'unknown')})."
        )
    cast = {name: value.to(own[name].dtype) for name, value in tensors.items()}
    _check_finite(cast, path)
    _check_fixed(tokenizer, cast, path)
    return cast


def _check_fixed(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise FileError if a tensor that follows from the settings says something else than they do."""
    for prefix, part in module.named_modules():
        for name, expected in getattr(part, "fixed_tensors", dict)().items():
            found = tensors[f"{prefix}.{name}"]
            if not torch.equal(found.float(), expected):
                raise FileError(
                    f"{path} does not fit its config.json: {prefix}.{name} is {found.tolist()}, and the settings give "
                    f"{expected.tolist()}."
                )


def _check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise FileError if a weight is NaN or infinite: every result of such a model would be meaningless."""
    damaged = [name for name, value in tensors.items() if value.is_floating_point() and not is_finite(value)]
    if damaged:
        name = damaged[0]
        count = int((~tensors[name].isfinite()).sum())
        raise FileError(
            f"{path} holds weights that are not finite (NaN or infinity): {len(damaged)} of {len(tensors)} tensors, "
            f"first {name!r} with {count:,} of {tensors[name].numel():,} numbers. Its training had failed; use an "
            "earlier checkpoint, or train again."
        )


def _kind(tensor: Tensor) -> str:
    return "float" if tensor.dtype in FLOATS else str(tensor.dtype).removeprefix("torch.")


def kind_of_images(stored: dict[str, Any]) -> str | None:
    """What a tokenizer was trained on by its config.json, "images" or "segmentation"; None if it does not say."""
    kind = stored.get("kind_of_images", stored.get("kind_of_pictures"))  # the second key until version 0.1
    return "images" if kind == "pictures" else kind
