"""Saved statistics of a reference set of images, and checks that other sets were measured the same way."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from tavq.core.errors import FileError, UsageError
from tavq.core.files import parse_json, read_tensors
from tavq.core.mmap_tensors import MappedTensors
from tavq.core.seals import check_seal, write_sealed_tensors
from tavq.metrics.distances import Gaussian

METADATA = "statistics"


@dataclass(frozen=True)
class SetDescription:
    """How a set of images was prepared, and by which network its features were computed."""

    network: str
    """The name of its Fréchet distance: `fid`, `fd_scenes`."""
    network_sha256: str
    size: tuple[int, int]
    """Height and width of each image."""
    resize: str
    """How images were resized to it."""
    data: str
    """Name of the folder and its split."""
    data_sha256: str
    """The SHA-256 of the names of the images and those of their files."""


@dataclass(frozen=True)
class ReferenceStatistics:
    """The Gaussian of a set of images, and how it was computed."""

    gaussian: Gaussian
    description: SetDescription

    def check(self, path: Path, other: SetDescription) -> None:
        """Raises UsageError unless `other` has the same network, size and resizing.

        Args:
            path: of these statistics, for the message.
            other: describes the set to be measured against them.
        """
        pairs = [
            (
                "the network",
                f"{self.description.network} ({_short(self.description)})",
                f"{other.network} ({_short(other)})",
            ),
            ("the size", _size(self.description), _size(other)),
            ("the resizing", repr(self.description.resize), repr(other.resize)),
        ]
        for what, ours, theirs in pairs:
            if ours != theirs:
                raise UsageError(
                    f"{path} cannot be the reference: {what} of its images is {ours}, and here it is {theirs}; save "
                    "statistics with the same settings: --save-statistics."
                )


def _short(description: SetDescription) -> str:
    return f"sha256 {description.network_sha256[:12]}…"


def _size(description: SetDescription) -> str:
    height, width = description.size
    return f"{width} x {height}"


def write_statistics(path: Path, statistics: ReferenceStatistics) -> None:
    """Writes `mean` [f] and `covariance` [f f] as float64; count and description go to the metadata."""
    gaussian = statistics.gaussian
    stored = {**asdict(statistics.description), "count": gaussian.count}
    tensors = {"mean": gaussian.mean, "covariance": gaussian.covariance}
    write_sealed_tensors(path, tensors, {METADATA: json.dumps(stored, sort_keys=True, ensure_ascii=False)})


def read_statistics(path: Path) -> ReferenceStatistics:
    """Reads what `write_statistics` wrote; FileError for any other file."""
    tensors = read_tensors(path)
    check_seal(path)
    text = MappedTensors(path).metadata.get(METADATA)
    if text is None:
        raise FileError(f"{path} does not hold statistics of images; write them with --save-statistics.")
    stored = parse_json(text, f"The metadata of {path}")
    try:
        count, size = stored.pop("count"), stored.pop("size")
        if not all(type(number) is int for number in (count, *size)) or len(size) != 2 or count < 2:
            raise ValueError("its count and size are not integers")
        if not all(type(value) is str for value in stored.values()):
            raise ValueError("its description is not text")
        description = SetDescription(**stored, size=(size[0], size[1]))
        return ReferenceStatistics(Gaussian(count, *_moments(tensors)), description)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FileError(f"{path} does not hold complete statistics of images: {error}.") from error


def _moments(tensors: dict[str, Tensor]) -> tuple[Float64[Tensor, " f"], Float64[Tensor, "f f"]]:
    mean, covariance = tensors["mean"], tensors["covariance"]
    width = len(mean) if mean.ndim == 1 else 0
    if width == 0 or covariance.shape != (width, width) or {mean.dtype, covariance.dtype} != {torch.float64}:
        raise ValueError("mean and covariance are not [f] and [f f] of float64")
    if not (mean.isfinite().all() and covariance.isfinite().all() and torch.equal(covariance, covariance.mT)):
        raise ValueError("the covariance is not finite and symmetric")
    if bool((covariance.diagonal() < 0).any()):
        raise ValueError("a variance is below 0")
    return mean, covariance


def describe_reference(statistics: ReferenceStatistics) -> dict[str, Any]:
    """The reference as a result describes it."""
    return {
        **asdict(statistics.description),
        "size": list(statistics.description.size),
        "count": statistics.gaussian.count,
    }
