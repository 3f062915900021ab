"""Grids as lists of vectors and back, and the indices of several parts as rows of one table."""

from collections.abc import Sequence
from itertools import accumulate

from jaxtyping import Float, Int
from torch import Tensor

from tavq.ops.waiting import constant


def flatten_grid(grid: Float[Tensor, "b d h w"]) -> Float[Tensor, "n d"]:
    """Flatten a grid to vectors in raster order, image after image."""
    return grid.permute(0, 2, 3, 1).reshape(-1, grid.shape[1])


def unflatten_grid(vectors: Float[Tensor, "n d"], shape: Sequence[int]) -> Float[Tensor, "b d h w"]:
    """Arrange vectors as a grid, the inverse of `flatten_grid`; `shape` is (b, h, w)."""
    b, h, w = shape
    return vectors.view(b, h, w, vectors.shape[1]).permute(0, 3, 1, 2)


def offset_indices(indices: Int[Tensor, "b h w *c"], sizes: Sequence[int]) -> Int[Tensor, "b h w *c"]:
    """Turn indices within each part into rows of the whole table; unchanged for a codebook of one part."""
    if len(sizes) == 1:
        return indices
    return indices + constant(tuple(accumulate(sizes[:-1], initial=0)), indices.device)
