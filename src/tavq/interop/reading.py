"""Reading the files of other projects' checkpoints: safetensors, and torch's without running what they hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tavq.core import files
from tavq.core.conversion import load_checkpoint
from tavq.core.errors import FileError, UsageError

WEIGHT_FILES = (
    "diffusion_pytorch_model.safetensors", "model.safetensors", "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
)  # fmt: skip
"""Weights of a diffusers folder, the best first."""

INDEX_FILES = ("model.safetensors.index.json", "diffusion_pytorch_model.safetensors.index.json")
"""Which file of a folder each tensor is in, where there are several."""

HALVES = (torch.float16, torch.bfloat16)

WEIGHT_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
"""Ends of the names of files that hold weights."""

SECTIONS = ("ema", "state_dict", "model")
"""Where a checkpoint of a training run keeps its weights; the running means first, which published results are of."""

DISCRIMINATOR = "discriminator"
"""The section of a discriminator in LlamaGen's checkpoints."""

PARTS = ("model.vqmodel.", "vqmodel.", "gen_vision_model.", "first_stage_model.")
"""Beginnings of the names of a tokenizer in a larger model: of Janus and Chameleon in transformers, of Janus in its own
layout, and of latent diffusion."""

WRAPPERS = ("module.", "_orig_mod.")
"""What torch puts before every name: for distributed training, and for compiled modules."""


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint, and where they were."""

    file: Path
    tensors: Mapping[str, Tensor]
    section: str | None = None  # the key of the file under which they were
    left: tuple[str, ...] = ()  # its other keys
    settings: Mapping[str, Any] | None = None  # the config.json beside it
    discriminator: Mapping[str, Tensor] = field(default_factory=dict)  # of a section of its own


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file of weights, or a folder with a config.json and one.

    Raises:
        UsageError: there is no such file, or the folder is not one of a checkpoint.
        FileError: it is damaged, too large, or holds more than tensors and plain values.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise UsageError(f"There is no checkpoint {path}; give a file of weights, or the folder of a diffusers model.")
    config = path.parent / "config.json"
    settings = _read_settings(config) if path.name in WEIGHT_FILES and config.is_file() else None
    if path.suffix == ".safetensors":
        return _read_shards(path, {path: files.tensor_names(path)}, settings)
    saved = load_checkpoint(path, _remedy(path))
    section, tensors, left = _select(saved, path)
    own = saved.get(DISCRIMINATOR) if DISCRIMINATOR in left else {}
    discriminator = _check_tensors(own, path) if isinstance(own, Mapping) else {}
    part, chosen = _choose_part(list(tensors))
    checked = _check_tensors({name: tensors[name] for name in chosen}, path, part)
    left += _describe_rest(len(tensors) - len(chosen))
    return Checkpoint(path, checked, part.rstrip(".") or section, left, settings, discriminator)


def _read_shards(path: Path, names: Mapping[Path, list[str]], settings: Mapping[str, Any] | None) -> Checkpoint:
    """Read a tokenizer from safetensors files, of a larger model its part alone.

    Args:
        path: the file, or the index of several.
        names: those of the tensors in each file.
        settings: the config.json beside it.
    """
    part, chosen = _choose_part([name for listed in names.values() for name in listed])
    tensors: dict[str, Tensor] = {}
    shards = tokenizer_shards(names)
    for shard in shards:
        tensors |= _read_single(shard, [name for name in names[shard] if name.startswith(part)])
    rest = _describe_rest(sum(map(len, names.values())) - len(chosen))
    file = shards[0] if len(shards) == 1 else path
    return Checkpoint(file, _check_tensors(tensors, path, part), part.rstrip(".") or None, rest, settings)


def _read_single(path: Path, names: list[str]) -> dict[str, Tensor]:
    """Tensors of a safetensors file, half precision as single, in memory of their own.

    A part of the file is mapped at a time: its pages count as memory as long as one tensor shares them, and the copies
    of a file in half precision take twice its size already.
    """
    tensors: dict[str, Tensor] = {}
    step = max(16, len(names) // 64)  # each part reads the header again
    for start in range(0, len(names), step):
        for name, value in files.read_tensors(path, names[start : start + step]).items():
            tensors[name] = value.float() if value.dtype in HALVES else value.clone()
    return tensors


def tokenizer_shards(names: Mapping[Path, list[str]]) -> list[Path]:
    """Those of the files of a model that hold the tokenizer, from the names of the tensors in each."""
    part, _ = _choose_part([name for listed in names.values() for name in listed])
    return [shard for shard, listed in names.items() if any(name.startswith(part) for name in listed)]


def read_index(path: Path) -> dict[Path, list[str]]:
    """The names of the tensors in each file of an index."""
    places = _read_settings(path).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
        raise FileError(f"{path} does not say in which files the tensors are.")
    shards: dict[Path, list[str]] = {}
    for name, place in places.items():
        if place != Path(place).name:
            raise FileError(f"{path} names {place[:80]!r}, which is not a file beside it.")
        shards.setdefault(path.parent / place, []).append(name)
    return shards


def _choose_part(names: list[Any]) -> tuple[str, list[Any]]:
    """What the names of a tokenizer's tensors begin with in a larger model, and those names; else "" and all names."""
    part = next((part for part in PARTS if any(str(name).startswith(part) for name in names)), "")
    return part, [name for name in names if str(name).startswith(part)]


def _describe_rest(count: int) -> tuple[str, ...]:
    return (f"the rest of the model ({count:,} tensors)",) if count else ()


def _read_folder(path: Path) -> Checkpoint:
    """Read a diffusers folder; of a pipeline's folder its `vqvae`."""
    folder = next((place for place in (path, path / "vqvae") if (place / "config.json").is_file()), None)
    if folder is None:
        raise UsageError(f"{path} has no config.json, so it is not the folder of a model; give a file of weights.")
    settings = _read_settings(folder / "config.json")
    if settings.get("kind") == "tokenizer":
        raise UsageError(f"{folder} is a model of tavq already; it needs no import.")
    index = next((folder / name for name in INDEX_FILES if (folder / name).is_file()), None)
    if index is not None:
        return _read_shards(index, read_index(index), settings)
    weights = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if weights is None:
        raise UsageError(f"{folder} has no weights; expected one of: {', '.join(WEIGHT_FILES)}.")
    return read_checkpoint(weights)


def _read_settings(path: Path) -> dict[str, Any]:
    settings = files.read_json(path)
    if not isinstance(settings, dict):
        raise FileError(f"{path} holds no settings.")
    return settings


def _select(saved: Any, path: Path) -> tuple[str | None, Mapping[Any, Any], tuple[str, ...]]:
    """The section with the weights, the weights, and the names of the other sections."""
    if not isinstance(saved, Mapping) or not saved:
        raise FileError(f"{path} holds no tensors by name.")
    section = next((name for name in SECTIONS if isinstance(saved.get(name), Mapping)), None)
    if section is None:
        return None, saved, ()
    return section, saved[section], tuple(sorted(str(name) for name in saved if name != section))


def _check_tensors(tensors: Mapping[Any, Any], path: Path, part: str = "") -> dict[str, Tensor]:
    """The tensors without `part` and what torch puts before their names; FileError for what is not a plain tensor."""
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            what = f"is a {type(value).__name__}, not a tensor"
            raise FileError(f"{path} does not hold weights alone: {str(name)[:80]!r} {what}.")
        if not _is_plain(value):
            raise FileError(f"{path} holds {name[:80]!r}, which is not a plain tensor; save dense tensors on the CPU.")
    short = {name.removeprefix(part): value.detach() for name, value in tensors.items()}
    wrapper = next((wrapper for wrapper in WRAPPERS if all(name.startswith(wrapper) for name in short)), "")
    return {name.removeprefix(wrapper): value for name, value in short.items()}


def _is_plain(tensor: Tensor) -> bool:
    """Dense, on the CPU and with memory for each number: one number that is repeated by strides can stand for 10^12."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return False
    return tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()


def _remedy(path: Path) -> str:
    """What to do about a file that holds objects, as those of PyTorch Lightning do."""
    target = path.with_name(f"{path.stem}-weights.pt")
    return (
        "it may hold objects of its training run, which could run code here. If you trust it, write its weights to a "
        "file of their own, where its project is installed, and import that file:\n"
        f"  import torch; saved = torch.load({str(path)!r}, map_location='cpu', weights_only=False)\n"
        f"  torch.save(next(saved[name] for name in {SECTIONS} if name in saved), {str(target)!r})"
    )
