"""Shared by quantizers of lattices: the check of the codebook, the map to its axes, and lookup by digits."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tavq.core.errors import UsageError
from tavq.interfaces import Codebook, Lattice, codebooks
from tavq.ops.gradients import StraightThrough
from tavq.ops.grids import flatten_grid, unflatten_grid


def check_lattice(codebook: Any, quantizer: str) -> None:
    """Raise UsageError unless the codebook is a lattice."""
    if not issubclass(codebooks[codebook.name], Lattice):
        known = [name for name in codebooks if issubclass(codebooks[name], Lattice)]
        raise UsageError(
            f"The quantizer {quantizer!r} rounds to the points of a lattice, but the codebook is {codebook.name!r}; "
            f"set model.codebook.name to: {', '.join(known)}."
        )


class ProjectIn(nn.Module):
    """Maps features to one value an axis: by a linear layer, or unchanged where the widths already agree."""

    def __init__(self, codebook: Any) -> None:
        super().__init__()
        width, axes = int(codebook.width), len(codebook.levels)
        self.down = nn.Linear(width, axes) if width != axes else None

    def forward(self, features: Float[Tensor, "b d h w"]) -> Float[Tensor, "n l"]:
        with torch.autocast(features.device.type, enabled=False):
            vectors = flatten_grid(features.float())
            if self.down is None:
                return vectors
            return F.linear(vectors, self.down.weight.float(), self.down.bias.float())


def quantize_digits(
    values: Float[Tensor, "n l"], digits: Int[Tensor, "n l"], codebook: Codebook, shape: Sequence[int]
) -> tuple[Float[Tensor, "b d h w"], Float[Tensor, "b d h w"], Int[Tensor, "b h w"]]:
    """The fields `quantized` (with the gradient of `values`), `entries` and `indices` of `Quantized`.

    Args:
        values: the value of each feature on each axis, in the unit of the lattice.
        digits: the level it was rounded to.
        codebook: the lattice.
        shape: (b, h, w) of the grid.
    """
    assert isinstance(codebook, Lattice)
    points = codebook.to_points(digits)
    quantized = codebook.project_out(StraightThrough.apply(values, points))
    entries = codebook.project_out(points)
    indices = index_grid(digits, codebook, shape)
    return unflatten_grid(quantized, shape), unflatten_grid(entries, shape), indices


def lookup_digits(indices: Int[Tensor, "b h w"], codebook: Codebook) -> Float[Tensor, "b d h w"]:
    """The grid of entries of indices, computed from their digits without the table of all entries."""
    assert isinstance(codebook, Lattice)
    points = codebook.to_points(codebook.to_digits(indices.flatten()))
    return unflatten_grid(codebook.project_out(points), indices.shape)


def index_grid(digits: Int[Tensor, "n l"], codebook: Codebook, shape: Sequence[int]) -> Int[Tensor, "b h w"]:
    """The grid of indices that digits stand for."""
    assert isinstance(codebook, Lattice)
    return codebook.to_indices(digits).view(*shape)
