"""Statistics of a set of images, saved once to measure other sets against, and refused where they do not match."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from tavq.core.errors import FileError, UsageError
from tavq.core.files import parse_json, read_tensors, write_tensors
from tavq.core.mmap_tensors import MappedTensors
from tavq.metrics.distances import Gaussian

METADATA = "statistics"


@dataclass(frozen=True)
class SetDescription:
    """What a set of images and the network that saw it are known by."""

    network: str
    """What its Fréchet distance is called: `fid`, `fd_scenes`."""
    network_sha256: str
    size: tuple[int, int]
    """Rows and columns of each image."""
    resize: str
    """How images were brought to that size."""
    data: str
    """Name of the folder and its split."""
    data_sha256: str
    """The SHA-256 of the names of the images and those of their files."""


@dataclass(frozen=True)
class ReferenceStatistics:
    """The Gaussian of a set of images, and what it is of."""

    gaussian: Gaussian
    of: SetDescription

    def check(self, path: Path, other: SetDescription) -> None:
        """UsageError unless `other` was seen by the same network at the same size, brought there the same way."""
        pairs = [
            ("the network", f"{self.of.network} ({_short(self.of)})", f"{other.network} ({_short(other)})"),
            ("the size", _size(self.of), _size(other)),
            ("the resizing", repr(self.of.resize), repr(other.resize)),
        ]
        for what, own, asked in pairs:
            if own != asked:
                raise UsageError(
                    f"{path} cannot be the reference: {what} of its images is {own}, and here it is {asked}; save "
                    "statistics the same way with --save-statistics."
                )


def _short(described: SetDescription) -> str:
    return f"sha256 {described.network_sha256[:12]}…"


def _size(described: SetDescription) -> str:
    return "{} x {}".format(*described.size)


def write_statistics(path: Path, statistics: ReferenceStatistics) -> None:
    """Writes `mean` [f] and `covariance` [f f] as float64, and in the metadata the count and what they are of."""
    gaussian = statistics.gaussian
    said = {**asdict(statistics.of), "count": gaussian.count}
    tensors = {"mean": gaussian.mean, "covariance": gaussian.covariance}
    write_tensors(path, tensors, {METADATA: json.dumps(said, sort_keys=True, ensure_ascii=False)})


def read_statistics(path: Path) -> ReferenceStatistics:
    """What `write_statistics` wrote; FileError for any other file."""
    tensors = read_tensors(path)
    text = MappedTensors(path).metadata.get(METADATA)
    if text is None:
        raise FileError(f"{path} holds no statistics of images; write some with --save-statistics.")
    said = parse_json(text, f"The metadata of {path}")
    try:
        count, size = said.pop("count"), said.pop("size")
        if not all(type(number) is int for number in (count, *size)) or len(size) != 2 or count < 2:
            raise ValueError("its count and size are not whole numbers")
        if not all(type(value) is str for value in said.values()):
            raise ValueError("what they are of is not said in words")
        of = SetDescription(**said, size=(size[0], size[1]))
        return ReferenceStatistics(Gaussian(count, *_moments(tensors)), of)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FileError(f"{path} does not hold whole statistics of images: {error}.") from error


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
    """What a result says of its reference."""
    return {**asdict(statistics.of), "size": list(statistics.of.size), "count": statistics.gaussian.count}
