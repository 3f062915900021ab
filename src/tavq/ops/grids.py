"""Grids of codes as rows, and indices of several parts as rows of one table."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def unflatten_grid(vectors: Float[Tensor, "n d"], shape: Sequence[int]) -> Float[Tensor, "b d h w"]:
    """Rows in raster order as a grid; `shape` is (b, h, w)."""
    b, h, w = shape
    return vectors.view(b, h, w, vectors.shape[1]).permute(0, 3, 1, 2)


def flatten_grid(grid: Float[Tensor, "b d h w"]) -> Float[Tensor, "n d"]:
    """A grid as rows in raster order, batch first: the inverse of `unflatten_grid`."""
    return grid.permute(0, 2, 3, 1).reshape(-1, grid.shape[1])


def offset_indices(indices: Int[Tensor, "b h w *c"], sizes: Sequence[int]) -> Int[Tensor, "b h w *c"]:
    """Indices counted through all parts of a codebook, as its rows are; equal to `indices` where it has one part."""
    if len(sizes) == 1:
        return indices
    offsets = torch.tensor([0, *sizes[:-1]], device=indices.device).cumsum(0)
    return indices + offsets
