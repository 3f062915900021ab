"""Windows of a model's own size in a larger grid. A corner is the row and column of a window's first position."""

from jaxtyping import Int
from torch import Tensor

from tavq.tasks.base import TokenLayout

Corner = tuple[int, int]


def window_around(y: int, x: int, layout: TokenLayout, own: TokenLayout) -> Corner:
    """The window with a position at its centre, moved inside near the border of `layout`."""
    top, left = y - own.height // 2, x - own.width // 2
    return min(max(top, 0), layout.height - own.height), min(max(left, 0), layout.width - own.width)


def overlapping_windows(layout: TokenLayout, own: TokenLayout) -> list[Corner]:
    """Windows in raster order that cover `layout`; neighbours overlap by half, the last of a row or column by more."""
    tops, lefts = _starts(layout.height, own.height), _starts(layout.width, own.width)
    return [(top, left) for top in tops for left in lefts]


def _starts(length: int, own: int) -> list[int]:
    return [*range(0, length - own, max(1, own // 2)), length - own]


def crop_window(
    tokens: Int[Tensor, "b m"], layout: TokenLayout, own: TokenLayout, corner: Corner
) -> Int[Tensor, "b n"]:
    """The tokens of a window.

    Args:
        tokens: of the whole grid.
        layout: of the whole grid.
        own: layout of the window.
        corner: of the window.
    """
    grid = tokens.view(len(tokens), layout.height, layout.width, -1)
    return _slice_window(grid, own, corner).flatten(1)


def paste_window(
    tokens: Int[Tensor, "b m"], layout: TokenLayout, window: Int[Tensor, "b n"], own: TokenLayout, corner: Corner
) -> Int[Tensor, "b m"]:
    """A copy of the tokens with a window replaced.

    Args:
        tokens: of the whole grid.
        layout: of the whole grid.
        window: tokens of the window.
        own: layout of the window.
        corner: of the window.
    """
    grid = tokens.clone().view(len(tokens), layout.height, layout.width, -1)
    _slice_window(grid, own, corner).copy_(window.view(len(tokens), own.height, own.width, -1))
    return grid.flatten(1)


def _slice_window(grid: Int[Tensor, "b h w p"], own: TokenLayout, corner: Corner) -> Int[Tensor, "b y x p"]:
    top, left = corner
    return grid[:, top : top + own.height, left : left + own.width]
