"""A transformer of the GPT kind: each row reads itself and the rows before it, and what was computed can be kept.

Source: Radford et al. (2019), GPT-2: pre-norm blocks, residual outputs drawn 1 / sqrt(2 layers) as wide.
Differs from the paper: attention weights are never dropped, which torch's fused kernels for CPUs cannot do.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SPREAD = 0.02
"""Standard deviation of drawn weights."""


@dataclass
class Cache:
    """Keys and values of the rows so far, of every block; its memory is taken once.

    `filled` rows stand in it. `weights` are those of each block, in the order in which it uses them.
    """

    kept: Float[Tensor, "layers 2 b heads n e"]
    weights: list[tuple[Tensor, ...]]
    filled: int = 0


class Affine(nn.Module):
    """rows @ weight + bias, the weight laid out as it is read for one row: a quarter faster there than nn.Linear's."""

    def __init__(self, inputs: int, outputs: int, spread: float = SPREAD) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.weight, std=spread)

    def forward(self, rows: Float[Tensor, "r i"]) -> Float[Tensor, "r o"]:
        return torch.addmm(self.bias, rows, self.weight)


class CausalAttention(nn.Module):
    """Each row reads itself and those before it. The rows of b sequences lie one below the other."""

    def __init__(self, width: int, heads: int, spread: float) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = Affine(width, 3 * width)
        self.out = Affine(width, width, spread)

    def forward(
        self, rows: Float[Tensor, "r c"], b: int, kept: Float[Tensor, "2 b heads m e"] | None, filled: int
    ) -> Float[Tensor, "r c"]:
        n = len(rows) // b
        made = self.query_key_value(rows).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = made.unbind(0)
        if kept is not None:
            kept[:, :, :, filled : filled + n] = made[1:]
            key, value = kept[:, :, :, : filled + n].unbind(0)
        read = F.scaled_dot_product_attention(query, key, value, is_causal=n > 1)
        return self.out(read.transpose(1, 2).reshape(rows.shape))


class CausalBlock(nn.Module):
    """Attention and a two-layer perceptron with GELU, each added to its input; `dropout` of what is added.

    `spread` is that of the weights whose outputs are added.
    """

    def __init__(self, width: int, heads: int, spread: float, dropout: float) -> None:
        super().__init__()
        self.norm_self, self.attend = nn.LayerNorm(width), CausalAttention(width, heads, spread)
        self.norm_last = nn.LayerNorm(width)
        self.widen, self.narrow = Affine(width, 4 * width), Affine(4 * width, width, spread)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, rows: Float[Tensor, "r c"], b: int, kept: Float[Tensor, "2 b heads m e"] | None, filled: int
    ) -> Float[Tensor, "r c"]:
        rows = rows + self.dropout(self.attend(self.norm_self(rows), b, kept, filled))
        return rows + self.dropout(self.narrow(F.gelu(self.widen(self.norm_last(rows)), approximate="tanh")))


class CausalTransformer(nn.Module):
    """Blocks one after the other and a last norm.

    Args:
        width: c, of a row; a multiple of `heads`.
        layers: how many blocks.
        dropout: of the rows that come in and of what each part adds, in training.
    """

    def __init__(self, width: int, layers: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        assert width % heads == 0, f"{heads} heads do not divide a width of {width}"
        spread = SPREAD / (2 * layers) ** 0.5
        self.blocks = nn.ModuleList(CausalBlock(width, heads, spread, dropout) for _ in range(layers))
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)
        self.width, self.heads = width, heads

    def cache(self, b: int, n: int) -> Cache:
        """Room for n rows each of b sequences, as wide as the weights: 2 layers b n c numbers."""
        like = self.norm.weight
        shape = (len(self.blocks), 2, b, self.heads, n, self.width // self.heads)
        kept = torch.empty(shape, dtype=like.dtype, device=like.device)
        return Cache(kept, [tuple(block.parameters()) for block in self.blocks])

    def forward(self, rows: Float[Tensor, "b n c"], cache: Cache | None = None) -> Float[Tensor, "b n c"]:
        """The rows after all blocks.

        With a cache they follow the rows in it, and join them: many at once at the start, then one at a time.
        """
        b, n, width = rows.shape
        if cache is not None and n == 1 and not self.training:
            return self.norm(self._step(rows[:, 0], cache))[:, None]
        filled = 0
        if cache is not None:
            filled = cache.filled
            assert filled == 0 or n == 1, "many rows at once would need a mask"
            cache.filled += n
        flat = self.dropout(rows).reshape(b * n, width)
        for number, block in enumerate(self.blocks):
            flat = block(flat, b, None if cache is None else cache.kept[number], filled)
        return self.norm(flat).view(b, n, width)

    def _step(self, rows: Float[Tensor, "b c"], cache: Cache) -> Float[Tensor, "b c"]:
        """What the blocks make of one more row of each sequence.

        The lines of the blocks without calling a module: for one sequence the calls take a tenth of the whole time.
        """
        shape, size, place = (len(rows), 3, self.heads, 1, -1), (self.width,), cache.filled
        cache.filled += 1
        for number, weights in enumerate(cache.weights):
            scale, shift, project, project_bias, out, out_bias, *last = weights
            made = torch.addmm(project_bias, F.layer_norm(rows, size, scale, shift), project).view(shape)
            keys, values = cache.kept[number, 0], cache.kept[number, 1]
            keys[:, :, place : place + 1], values[:, :, place : place + 1] = made[:, 1], made[:, 2]
            known = keys[:, :, : place + 1], values[:, :, : place + 1]
            read = F.scaled_dot_product_attention(made[:, 0], *known).view(rows.shape)
            rows = rows + torch.addmm(out_bias, read, out)
            scale, shift, widen, widen_bias, narrow, narrow_bias = last
            wide = torch.addmm(widen_bias, F.layer_norm(rows, size, scale, shift), widen)
            rows = rows + torch.addmm(narrow_bias, F.gelu(wide, approximate="tanh"), narrow)
        return rows
