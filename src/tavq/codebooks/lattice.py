"""The codebook without a table: the points of a fixed lattice, in order."""

import math
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from tavq.core.config import NamedConfig
from tavq.interfaces import Lattice, codebooks
from tavq.ops.waiting import constant

Level = Annotated[int, Field(ge=2, le=2**18)]


@codebooks.register("lattice")
class LatticeCodebook(Lattice):
    """All points of a grid in [-1, 1]^l; if `width` is not l, a linear map of them to that width.

    An axis of L > 2 levels has the values (i - ⌊L/2⌋) / ⌊L/2⌋ for i in 0..L-1, an axis of two levels -1 and 1.

    Source: FSQ (Mentzer et al., 2023), §3; for two levels LFQ (MAGVIT-2, Yu et al., 2024) and BSQ (Zhao et al., 2024).
    Differs from the paper: the map to the grid's width belongs to the codebook, so that its entries are what decoder
    and aligner read; with FSQ's formula two levels would be -1 and 0.
    """

    class Config(NamedConfig):
        """Levels of each axis, and the width of the entries."""

        name: Literal["lattice"] = "lattice"
        levels: tuple[Level, ...] = Field((8, 5, 5, 5), min_length=1, max_length=18)
        """Levels of each axis; their product, at most 2^18, is the number of entries."""
        width: int | None = Field(None, ge=1, le=4096)
        """Of the entries; null for the number of axes, so that entries are the points themselves."""
        sphere: bool = False
        """Divide the points by √l, which puts them on the unit sphere (BSQ); needs two levels on each axis."""

        @field_validator("width")
        @classmethod
        def _fill_width(cls, width: int | None, info: Any) -> int | None:
            return width or len(info.data.get("levels", ())) or None

        @model_validator(mode="after")
        def _check_levels(self) -> "LatticeCodebook.Config":
            if math.prod(self.levels) > 2**18:
                raise ValueError(f"levels give {math.prod(self.levels):,} entries; the most is {2**18:,}")
            if self.sphere and set(self.levels) != {2}:
                raise ValueError("sphere needs two levels on each axis")
            return self

        @property
        def parts(self) -> int:
            return 1

    middle: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        assert config.width is not None, "filled in by the settings"
        self.config, self.levels = config, config.levels
        self.sizes, self.width = (math.prod(config.levels),), config.width
        self.scale = 1 / math.sqrt(len(config.levels)) if config.sphere else 1.0
        self.register_buffer("middle", self._compute_middle())
        self.up = nn.Linear(len(config.levels), config.width) if config.width != len(config.levels) else None

    def _compute_middle(self) -> Float[Tensor, " l"]:
        """The digit of the centre of each axis."""
        return torch.tensor([level // 2 if level > 2 else 0.5 for level in self.levels], dtype=torch.float32)

    def fixed_tensors(self) -> dict[str, Tensor]:
        """What the weights of a model must hold because the settings say so: levels can be exchanged in a file."""
        return {"middle": self._compute_middle()}

    def forward(self) -> Float[Tensor, "k d"]:
        return self.project_out(self.to_points(self.to_digits(torch.arange(self.size, device=self.middle.device))))

    def to_points(self, digits: Int[Tensor, "n l"]) -> Float[Tensor, "n l"]:
        return (digits - self.middle) / self.middle * self.scale

    def project_out(self, points: Float[Tensor, "n l"]) -> Float[Tensor, "n d"]:
        if self.up is None:
            return points
        with torch.autocast(points.device.type, enabled=False):
            return F.linear(points.float(), self.up.weight.float(), self.up.bias.float())

    def to_digits(self, indices: Int[Tensor, " n"]) -> Int[Tensor, "n l"]:
        strides, levels = self._strides_and_levels(indices)
        return indices[:, None] // strides % levels

    def to_indices(self, digits: Int[Tensor, "n l"]) -> Int[Tensor, " n"]:
        return (digits * self._strides_and_levels(digits)[0]).sum(1)

    def _strides_and_levels(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """By how much one level of each axis changes the index, and the number of levels; on the device of `like`."""
        strides = tuple(math.prod(self.levels[:axis]) for axis in range(len(self.levels)))
        return constant(strides, like.device), constant(self.levels, like.device)
