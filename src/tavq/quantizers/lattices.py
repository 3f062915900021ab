"""What the quantizers of lattices share: the check of the codebook, the map down to its axes, codes of digits."""

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
    """Refuses the settings of a codebook that is no lattice."""
    if not issubclass(codebooks[codebook.name], Lattice):
        known = [name for name in codebooks if issubclass(codebooks[name], Lattice)]
        raise UsageError(
            f"The quantizer {quantizer!r} rounds to the points of a lattice and the codebook is {codebook.name!r}; "
            f"set model.codebook.name to: {', '.join(known)}."
        )


class Axes(nn.Module):
    """Features as rows of one number an axis: by a linear map, or as they are where the widths agree already."""

    def __init__(self, codebook: Any) -> None:
        super().__init__()
        width, axes = int(codebook.width), len(codebook.levels)
        self.down = nn.Linear(width, axes) if width != axes else None

    def forward(self, features: Float[Tensor, "b d h w"]) -> Float[Tensor, "n l"]:
        with torch.autocast(features.device.type, enabled=False):
            rows = flatten_grid(features.float())
            return rows if self.down is None else F.linear(rows, self.down.weight.float(), self.down.bias.float())


def codes_of(
    values: Float[Tensor, "n l"], digits: Int[Tensor, "n l"], codebook: Codebook, shape: Sequence[int]
) -> tuple[Float[Tensor, "b d h w"], Float[Tensor, "b d h w"], Int[Tensor, "b h w"]]:
    """The grids of codes, with the gradient of `values`, and of entries, with that of the codebook; the indices."""
    assert isinstance(codebook, Lattice)
    points = codebook.to_points(digits)
    codes = codebook.project_out(StraightThrough.apply(values, points))
    return (
        unflatten_grid(codes, shape),
        unflatten_grid(codebook.project_out(points), shape),
        numbered(digits, codebook, shape),
    )


def lookup(indices: Int[Tensor, "b h w"], codebook: Codebook) -> Float[Tensor, "b d h w"]:
    """The grid of entries, computed from the digits: the table of all entries is not made."""
    assert isinstance(codebook, Lattice)
    return unflatten_grid(
        codebook.project_out(codebook.to_points(codebook.to_digits(indices.flatten()))), indices.shape
    )


def numbered(digits: Int[Tensor, "n l"], codebook: Codebook, shape: Sequence[int]) -> Int[Tensor, "b h w"]:
    """The grid of indices that rows of digits stand for."""
    assert isinstance(codebook, Lattice)
    return codebook.to_indices(digits).view(*shape)
