"""A causal transformer (GPT-2) with a key-value cache.

Source: Radford et al. (2019), GPT-2: pre-norm blocks, weights of residual outputs drawn 1 / sqrt(2 layers) as wide.
Differs from the paper: no dropout of attention weights, which torch's fused attention for CPUs does not support.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

INIT_STD = 0.02
"""Standard deviation of initial weights."""


@dataclass
class Cache:
    """Keys and values of the tokens so far, of every block; allocated once.

    The first `length` positions are filled. `weights` are the parameters of each block, in the order of their use.
    """

    keys_values: Float[Tensor, "layers 2 b heads n e"]
    weights: list[tuple[Tensor, ...]]
    length: int = 0


class Affine(nn.Module):
    """x @ weight + bias, with the weight stored [inputs outputs].

    Decoding multiplies one token at a time, and this layout is a quarter faster there than nn.Linear's.
    """

    def __init__(self, inputs: int, outputs: int, std: float = INIT_STD) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.weight, std=std)

    def forward(self, x: Float[Tensor, "r i"]) -> Float[Tensor, "r o"]:
        return torch.addmm(self.bias, x, self.weight)


class CausalAttention(nn.Module):
    """Causal self-attention. The tokens of b sequences are flattened into r = b n rows, which `Affine` needs.

    `std` is that of the output's initial weights.
    """

    RENAMED_TENSORS: ClassVar = {"out": "out_proj"}

    def __init__(self, width: int, heads: int, std: float) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = Affine(width, 3 * width)
        self.out_proj = Affine(width, width, std)

    def forward(
        self, x: Float[Tensor, "r c"], b: int, cached: Float[Tensor, "2 b heads m e"] | None, length: int
    ) -> Float[Tensor, "r c"]:
        """The attended values.

        Args:
            x: hidden states of the new tokens.
            b: number of sequences.
            cached: keys and values of this block, to which the new ones are written; None without a cache.
            length: tokens that are in the cache.
        """
        n = len(x) // b
        projected = self.query_key_value(x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = projected.unbind(0)
        if cached is not None:
            cached[:, :, :, length : length + n] = projected[1:]
            key, value = cached[:, :, :, : length + n].unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=n > 1)
        return self.out_proj(attended.transpose(1, 2).reshape(x.shape))


class CausalBlock(nn.Module):
    """Self-attention and a two-layer MLP with GELU, each with a residual; `dropout` of each residual branch.

    `std` is that of the initial weights of the two layers whose outputs are added.
    """

    RENAMED_TENSORS: ClassVar = {"attend": "self_attn", "norm_last": "norm_mlp", "widen": "fc1", "narrow": "fc2"}

    def __init__(self, width: int, heads: int, std: float, dropout: float) -> None:
        super().__init__()
        # `CausalTransformer._step` unpacks the parameters in this order.
        self.norm_self, self.self_attn = nn.LayerNorm(width), CausalAttention(width, heads, std)
        self.norm_mlp = nn.LayerNorm(width)
        self.fc1, self.fc2 = Affine(width, 4 * width), Affine(4 * width, width, std)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "r c"], b: int, cached: Float[Tensor, "2 b heads m e"] | None, length: int
    ) -> Float[Tensor, "r c"]:
        x = x + self.dropout(self.self_attn(self.norm_self(x), b, cached, length))
        return x + self.dropout(self.fc2(F.gelu(self.fc1(self.norm_mlp(x)), approximate="tanh")))


class CausalTransformer(nn.Module):
    """A stack of causal blocks and a final norm.

    Args:
        width: c, of the hidden states; a multiple of `heads`.
        layers: number of blocks.
        heads: attention heads.
        dropout: of the embedded tokens and of each residual branch, in training.
    """

    def __init__(self, width: int, layers: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        assert width % heads == 0, f"{heads} heads do not divide a width of {width}"
        std = INIT_STD / (2 * layers) ** 0.5
        self.blocks = nn.ModuleList(CausalBlock(width, heads, std, dropout) for _ in range(layers))
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)
        self.width, self.heads = width, heads

    def make_cache(self, b: int, n: int) -> Cache:
        """An empty cache for b sequences of at most n tokens, in the dtype of the weights: 2 layers b n c numbers."""
        like = self.norm.weight
        shape = (len(self.blocks), 2, b, self.heads, n, self.width // self.heads)
        keys_values = torch.empty(shape, dtype=like.dtype, device=like.device)
        return Cache(keys_values, [tuple(block.parameters()) for block in self.blocks])

    def forward(self, x: Float[Tensor, "b n c"], cache: Cache | None = None) -> Float[Tensor, "b n c"]:
        """The hidden states after the last block.

        With a cache, the tokens continue those in it and are added to it: many at once into an empty one, then one
        at a time.
        """
        b, n, width = x.shape
        if cache is not None and n == 1 and not self.training:
            return self.norm(self._step(x[:, 0], cache))[:, None]
        length = 0
        if cache is not None:
            length = cache.length
            assert length == 0 or n == 1, "many tokens after cached ones would need a mask"
            cache.length += n
        flat = self.dropout(x).reshape(b * n, width)
        for index, block in enumerate(self.blocks):
            flat = block(flat, b, None if cache is None else cache.keys_values[index], length)
        return self.norm(flat).view(b, n, width)

    def _step(self, x: Float[Tensor, "b c"], cache: Cache) -> Float[Tensor, "b c"]:
        """The hidden states of one more token of each sequence, before the final norm.

        It repeats `CausalBlock.forward` without calling modules: for one sequence the calls take a tenth of the time.
        """
        shape, size, position = (len(x), 3, self.heads, 1, -1), (self.width,), cache.length
        cache.length += 1
        for index, weights in enumerate(cache.weights):
            scale, shift, project, project_bias, out, out_bias, *mlp = weights
            projected = torch.addmm(project_bias, F.layer_norm(x, size, scale, shift), project).view(shape)
            keys, values = cache.keys_values[index, 0], cache.keys_values[index, 1]
            keys[:, :, position : position + 1] = projected[:, 1]
            values[:, :, position : position + 1] = projected[:, 2]
            filled = keys[:, :, : position + 1], values[:, :, : position + 1]
            attended = F.scaled_dot_product_attention(projected[:, 0], *filled).view(x.shape)
            x = x + torch.addmm(out_bias, attended, out)
            scale, shift, fc1, fc1_bias, fc2, fc2_bias = mlp
            inner = torch.addmm(fc1_bias, F.layer_norm(x, size, scale, shift), fc1)
            x = x + torch.addmm(fc2_bias, F.gelu(inner, approximate="tanh"), fc2)
        return x
