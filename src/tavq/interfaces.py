"""Read this first: the values that pass between the rooms, and what each kind of part must do.

Axis letters, fixed here for the whole package: b batch, c image channels, y x image, h w latent grid, d latent
width, k entries, m text units, t text width, l levels, s samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tavq.core.config import NamedConfig
from tavq.core.registry import Registry

GRANULARITIES = ("words", "phrases", "sentences")
"""What a text is split into, fine to coarse; level i of the hierarchy is aligned with the i-th of them."""

DEEP = 2
"""The level of the hierarchy that the decoder reads; 0 is low and fine, 1 middle."""

WHOLE = "whole"
"""The fourth table of a text store: the token vectors of a text that was not split (TA-VQ's ablation)."""


@dataclass(frozen=True)
class TextUnits:
    """The encoded units of one granularity for a batch of pictures, padded to the longest."""

    vectors: Float[Tensor, "b m t"]
    mask: Bool[Tensor, "b m"]  # True where a unit stands; padding is False and never counts


@dataclass(frozen=True)
class TextFeatures:
    """The text of a batch at each granularity."""

    words: TextUnits
    phrases: TextUnits
    sentences: TextUnits
    whole: TextUnits | None = None

    def __getitem__(self, granularity: str) -> TextUnits | None:
        return getattr(self, granularity)


@dataclass(frozen=True)
class Batch:
    """Pictures with their text, as the loader makes them and the training step takes them."""

    images: Float[Tensor, "b c y x"]  # in [-1, 1]
    keys: tuple[str, ...]  # file_name of each picture
    text: TextFeatures | None = None


def default_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def to_device(value: Any, device: torch.device) -> Any:
    """A copy of a Batch, TextFeatures or TextUnits with every tensor on `device`."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Batch | TextFeatures | TextUnits):
        return replace(value, **{field.name: to_device(getattr(value, field.name), device) for field in fields(value)})
    return value


class Loss(NamedTuple):
    """One term of the objective and the factor it counts with; training/loop sums `weight * value`."""

    value: Float[Tensor, ""]
    weight: float


Losses = dict[str, Loss]
"""Terms by `room/name`: `quantizer/commitment`, `align/sentences`."""


@dataclass(frozen=True)
class Quantized:
    """One quantised grid.

    `codes` is what the decoder reads: in value the chosen entries, in gradient the encoder's features
    (straight-through). `entries` is the same value whose gradient goes to the codebook.
    """

    codes: Float[Tensor, "b d h w"]
    entries: Float[Tensor, "b d h w"]
    indices: Int[Tensor, "b h w"]
    losses: Losses


class Codebook(nn.Module):
    """A table of k entries of width d."""

    Config: ClassVar[type[NamedConfig]]
    name: ClassVar[str]
    size: int
    width: int

    def forward(self) -> Float[Tensor, "k d"]:
        """All entries, as the quantizer compares against them."""
        raise TypeError(f"{type(self).__name__} must define forward")

    def start(self, rows: Float[Tensor, "n d"]) -> None:
        """Called with the deep grid's features of every training batch before they are quantised; most need nothing."""


class Quantizer(nn.Module):
    """Replaces each feature by an entry of a codebook."""

    Config: ClassVar[type[NamedConfig]]
    name: ClassVar[str]

    def forward(self, features: Float[Tensor, "b d h w"], codebook: Codebook) -> Quantized:
        """The quantised grid with its losses."""
        raise TypeError(f"{type(self).__name__} must define forward")

    def indices(self, features: Float[Tensor, "b d h w"], codebook: Codebook) -> Int[Tensor, "b h w"]:
        """The chosen entries only; what `encode` needs."""
        raise TypeError(f"{type(self).__name__} must define indices")

    def lookup(self, indices: Int[Tensor, "b h w"], codebook: Codebook) -> Float[Tensor, "b d h w"]:
        """The grid of entries that indices stand for; what `decode` needs."""
        raise TypeError(f"{type(self).__name__} must define lookup")


class Aligner(nn.Module):
    """Pulls codes towards text. Sees codes and text only: no pixels, no optimizer, no files."""

    Config: ClassVar[type[NamedConfig]]
    name: ClassVar[str]
    levels: tuple[int, ...]
    """Which of the hierarchy's grids it reads: 0 low and fine, 1 middle, 2 deep; the others are not built."""

    def forward(self, levels: Mapping[int, Quantized], text: TextFeatures) -> Losses:
        """The alignment losses of a batch."""
        raise TypeError(f"{type(self).__name__} must define forward")

    def embed_images(self, levels: Mapping[int, Quantized]) -> Float[Tensor, "b e"]:
        """Unit vectors whose dot product with `embed_text` ranks pictures against texts."""
        raise TypeError(f"{type(self).__name__} must define embed_images")

    def embed_text(self, text: TextFeatures) -> Float[Tensor, "b e"]:
        """Unit vectors of texts in the space of `embed_images`."""
        raise TypeError(f"{type(self).__name__} must define embed_text")

    def embed_entries(self, entries: Float[Tensor, "k d"], granularity: str) -> Float[Tensor, "k t"] | None:
        """Each entry in the text encoder's space at one granularity; None where the aligner has no such map."""
        raise TypeError(f"{type(self).__name__} must define embed_entries")


@runtime_checkable
class TextSource(Protocol):
    """Where the loader finds the encoded text of a picture (text/store is the one that ships)."""

    width: int

    def __contains__(self, key: str) -> bool: ...

    def vectors(self, key: str) -> Mapping[str, Any]:
        """Arrays [m, t] by granularity for the picture `key`; m may be 0."""
        ...


codebooks: Registry[type[Codebook]] = Registry("codebook", "tavq.codebooks")
quantizers: Registry[type[Quantizer]] = Registry("quantizer", "tavq.quantizers")
aligners: Registry[type[Aligner]] = Registry("aligner", "tavq.align")


def total(losses: Mapping[str, Loss]) -> Float[Tensor, ""]:
    """The weighted sum of `losses`, of which there must be one or more."""
    return torch.stack([loss.weight * loss.value for loss in losses.values()]).sum()


def as_grid(vectors: Float[Tensor, "n d"], shape: Sequence[int]) -> Float[Tensor, "b d h w"]:
    """Rows in raster order as a grid; `shape` is (b, h, w)."""
    b, h, w = shape
    return vectors.view(b, h, w, vectors.shape[1]).permute(0, 3, 1, 2)


def as_rows(grid: Float[Tensor, "b d h w"]) -> Float[Tensor, "n d"]:
    """A grid as rows in raster order, batch first: the inverse of `as_grid`."""
    return grid.permute(0, 2, 3, 1).reshape(-1, grid.shape[1])
