"""A small pre-norm transformer with self-attention, optional cross-attention, and fixed position embeddings.

Source: Vaswani et al. (2017), with the norm before each sublayer (Xiong et al., 2020).
"""

from typing import ClassVar, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

T = TypeVar("T")


def check_heads(config: T) -> T:
    """Settings whose `width` is a multiple of their `heads`, unchanged; for the validator of a settings class.

    Raises ValueError, which pydantic reports with the name of the setting.
    """
    width, heads = config.width, config.heads  # type: ignore[attr-defined]
    if width % heads:
        raise ValueError(f"width {width} is not a multiple of {heads} heads")
    return config


class Attention(nn.Module):
    """Multi-head attention from `x` to `context`.

    Only the output has a bias: a bias of the keys adds the same score to every key, and softmax cancels it.
    """

    RENAMED_TENSORS: ClassVar = {"out": "out_proj"}

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out_proj = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "b n c"], context: Float[Tensor, "b m c"], mask: Bool[Tensor, "b m"] | None = None
    ) -> Float[Tensor, "b n c"]:
        """The attended values; positions of `context` where `mask` is False are ignored."""
        b, n, c = x.shape
        query = self.query(x).view(b, n, self.heads, -1).transpose(1, 2)
        key, value = self.key_value(context).view(b, context.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, None if mask is None else mask[:, None, None])
        return self.out_proj(attended.transpose(1, 2).reshape(b, n, c))

    def attention_weights(
        self, x: Float[Tensor, "b n c"], context: Float[Tensor, "b m c"], mask: Bool[Tensor, "b m"] | None = None
    ) -> Float[Tensor, "b heads n m"]:
        """The softmax weights that `forward` applies; each row sums to 1."""
        query = self.query(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        key = self.key_value(context).chunk(2, dim=2)[0].unflatten(2, (self.heads, -1)).transpose(1, 2)
        scores = query @ key.transpose(2, 3) / query.shape[3] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
        return scores.softmax(dim=3)


class Block(nn.Module):
    """Self-attention, cross-attention if `cross` is set, and a two-layer MLP with GELU, each with a residual.

    Args:
        width: c, of the hidden states.
        heads: attention heads; they divide `width`.
        mlp_width: of the MLP's hidden layer.
        cross: adds cross-attention.
        dropout: of each residual branch, in training.
    """

    RENAMED_TENSORS: ClassVar = {
        "attend": "self_attn",
        "read": "cross_attn",
        "norm_last": "norm_mlp",
        "perceptron": "mlp",
    }

    def __init__(self, width: int, heads: int, mlp_width: int, cross: bool, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm_self, self.self_attn = nn.LayerNorm(width), Attention(width, heads)
        self.norm_cross = nn.LayerNorm(width) if cross else None
        self.cross_attn = Attention(width, heads) if cross else None
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_width), nn.GELU(), nn.Linear(mlp_width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        mask: Bool[Tensor, "b n"] | None = None,
        context: Float[Tensor, "b m c"] | None = None,
    ) -> Float[Tensor, "b n c"]:
        normed = self.norm_self(x)
        x = x + self.dropout(self.self_attn(normed, normed, mask))
        if self.cross_attn is not None and self.norm_cross is not None:
            assert context is not None, "a block with cross-attention needs a context"
            x = x + self.dropout(self.cross_attn(self.norm_cross(x), context))
        return x + self.dropout(self.mlp(self.norm_mlp(x)))

    def attention_weights(
        self, x: Float[Tensor, "b n c"], mask: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b heads n n"]:
        """The weights of the self-attention, which the fused kernel of `forward` does not return."""
        normed = self.norm_self(x)
        return self.self_attn.attention_weights(normed, normed, mask)


class Transformer(nn.Module):
    """A stack of blocks and a final norm.

    Args:
        width: c, of the hidden states; a multiple of `heads`.
        layers: number of blocks.
        heads: attention heads.
        mlp_width: of the MLPs' hidden layers; 4 c by default.
        cross: adds cross-attention to every block.
        dropout: of each residual branch, in training.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        mlp_width: int | None = None,
        cross: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        assert width % heads == 0, f"{heads} heads do not divide a width of {width}"
        self.blocks = nn.ModuleList(Block(width, heads, mlp_width or 4 * width, cross, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        mask: Bool[Tensor, "b n"] | None = None,
        context: Float[Tensor, "b m c"] | None = None,
    ) -> Float[Tensor, "b n c"]:
        """The hidden states after the last block.

        Args:
            x: embedded tokens.
            mask: False at padding. A sequence that is all padding attends to all of it, so that nothing becomes NaN.
            context: what cross-attention reads; it is never masked.
        """
        mask = _unmask_empty(mask)
        for block in self.blocks:
            x = block(x, mask, context)
        return self.norm(x)

    def forward_with_attention(
        self, x: Float[Tensor, "b n c"], mask: Bool[Tensor, "b n"] | None = None
    ) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b heads n n"]]:
        """`forward` without cross-attention, and the attention weights of the last block."""
        mask, last = _unmask_empty(mask), self.blocks[-1]
        for block in self.blocks[:-1]:
            x = block(x, mask)
        assert isinstance(last, Block)
        return self.norm(last(x, mask)), last.attention_weights(x, mask)


def _unmask_empty(mask: Bool[Tensor, "b n"] | None) -> Bool[Tensor, "b n"] | None:
    """The mask, with sequences that are all padding unmasked: softmax over nothing would be NaN."""
    return None if mask is None else mask | ~mask.any(1, keepdim=True)


def sinusoidal_positions(h: int, w: int, width: int, device: torch.device) -> Float[Tensor, "n c"]:
    """Fixed position embeddings of a grid in raster order: sines and cosines, half the width for y and half for x.

    Source: the sinusoids of Vaswani et al. (2017), §3.5, on two axes.
    """
    quarter = -(-width // 4)
    frequencies = 10000.0 ** -(torch.arange(quarter, device=device) / quarter)
    y, x = (torch.arange(side, device=device)[:, None] * frequencies for side in (h, w))
    parts = [
        part.expand(h, w, quarter) for wave in (torch.sin, torch.cos) for part in (wave(y)[:, None], wave(x)[None])
    ]
    return torch.cat(parts, dim=2).reshape(h * w, -1)[:, :width]
