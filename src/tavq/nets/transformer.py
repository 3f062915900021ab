"""A small pre-norm transformer: self-attention, cross-attention where it is given something to read, and positions.

Source: Vaswani et al. (2017), with the norm before each part (Xiong et al., 2020).
"""

from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

T = TypeVar("T")


def whole_heads(config: T) -> T:
    """Settings whose `width` can be shared by their `heads`, as they are; for a settings class's validator.

    Raises ValueError, which pydantic turns into its own.
    """
    width, heads = config.width, config.heads  # type: ignore[attr-defined]
    if width % heads:
        raise ValueError(f"width {width} is not a multiple of {heads} heads")
    return config


class Attention(nn.Module):
    """Each row of `rows` reads the rows of `source`. No biases but the output's: a key's bias would never matter."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(
        self, rows: Float[Tensor, "b n c"], source: Float[Tensor, "b m c"], mask: Bool[Tensor, "b m"] | None = None
    ) -> Float[Tensor, "b n c"]:
        b, n, c = rows.shape
        query = self.query(rows).view(b, n, self.heads, -1).transpose(1, 2)
        key, value = self.key_value(source).view(b, source.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        read = F.scaled_dot_product_attention(query, key, value, None if mask is None else mask[:, None, None])
        return self.out(read.transpose(1, 2).reshape(b, n, c))

    def shares(
        self, rows: Float[Tensor, "b n c"], source: Float[Tensor, "b m c"], mask: Bool[Tensor, "b m"] | None = None
    ) -> Float[Tensor, "b heads n m"]:
        """How much of what each row reads in each head comes from each row of `source`; 1 in sum."""
        query = self.query(rows).unflatten(2, (self.heads, -1)).transpose(1, 2)
        key = self.key_value(source).chunk(2, dim=2)[0].unflatten(2, (self.heads, -1)).transpose(1, 2)
        scores = query @ key.transpose(2, 3) / query.shape[3] ** 0.5
        return (scores if mask is None else scores.masked_fill(~mask[:, None, None], -torch.inf)).softmax(dim=3)


class Block(nn.Module):
    """Self-attention, cross-attention where `cross` says so, and a two-layer perceptron with GELU."""

    def __init__(self, width: int, heads: int, hidden: int, cross: bool, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm_self, self.attend = nn.LayerNorm(width), Attention(width, heads)
        self.norm_cross = nn.LayerNorm(width) if cross else None
        self.read = Attention(width, heads) if cross else None
        self.norm_last = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.drop = nn.Dropout(dropout)

    def forward(
        self,
        rows: Float[Tensor, "b n c"],
        mask: Bool[Tensor, "b n"] | None = None,
        source: Float[Tensor, "b m c"] | None = None,
    ) -> Float[Tensor, "b n c"]:
        normed = self.norm_self(rows)
        rows = rows + self.drop(self.attend(normed, normed, mask))
        if self.read is not None and self.norm_cross is not None:
            assert source is not None, "a block with cross-attention needs something to read"
            rows = rows + self.drop(self.read(self.norm_cross(rows), source))
        return rows + self.drop(self.perceptron(self.norm_last(rows)))

    def shares(
        self, rows: Float[Tensor, "b n c"], mask: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b heads n n"]:
        """How much each row reads of each other in the self-attention; the fused attention does not give it."""
        normed = self.norm_self(rows)
        return self.attend.shares(normed, normed, mask)


class Transformer(nn.Module):
    """Blocks one after the other and a last norm.

    Args:
        width: c, of a row; a multiple of `heads`.
        layers: how many blocks.
        hidden: the width inside a block's perceptron; by default 4 c.
        cross: every block reads `source` too.
        dropout: in training, of what each part of a block adds to the rows.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        hidden: int | None = None,
        cross: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        assert width % heads == 0, f"{heads} heads do not divide a width of {width}"
        self.blocks = nn.ModuleList(Block(width, heads, hidden or 4 * width, cross, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        rows: Float[Tensor, "b n c"],
        mask: Bool[Tensor, "b n"] | None = None,
        source: Float[Tensor, "b m c"] | None = None,
    ) -> Float[Tensor, "b n c"]:
        """The rows after all blocks.

        Args:
            mask: False where a row must not be read. An image whose rows are all False reads them all, so that
                nothing becomes NaN.
            source: what cross-attention reads, all of it.
        """
        mask = _some(mask)
        for block in self.blocks:
            rows = block(rows, mask, source)
        return self.norm(rows)

    def read(
        self, rows: Float[Tensor, "b n c"], mask: Bool[Tensor, "b n"] | None = None
    ) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b heads n n"]]:
        """`forward` of one without cross-attention, and how much each row reads of each other in the last block."""
        mask, last = _some(mask), self.blocks[-1]
        for block in self.blocks[:-1]:
            rows = block(rows, mask)
        assert isinstance(last, Block)
        return self.norm(last(rows, mask)), last.shares(rows, mask)


def _some(mask: Bool[Tensor, "b n"] | None) -> Bool[Tensor, "b n"] | None:
    """A row of nothing that may be read reads everything."""
    return None if mask is None else mask | ~mask.any(1, keepdim=True)


def grid_positions(h: int, w: int, width: int, device: torch.device) -> Float[Tensor, "n c"]:
    """Fixed positions of a grid of any size in raster order: sines and cosines, half the width for y, half for x.

    Source: the sinusoids of Vaswani et al. (2017), §3.5, on two axes.
    """
    quarter = -(-width // 4)
    frequencies = 10000.0 ** -(torch.arange(quarter, device=device) / quarter)
    y, x = (torch.arange(side, device=device)[:, None] * frequencies for side in (h, w))
    parts = [
        part.expand(h, w, quarter) for wave in (torch.sin, torch.cos) for part in (wave(y)[:, None], wave(x)[None])
    ]
    return torch.cat(parts, dim=2).reshape(h * w, -1)[:, :width]
