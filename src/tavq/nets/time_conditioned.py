"""A transformer for diffusion: the timestep sets the scale and shift of its norms (AdaLN)."""

from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tavq.nets.transformer import Attention


class AdaptiveNorm(nn.Module):
    """A layer norm whose scale and shift are a linear map of the timestep's embedding.

    Source: VQ-Diffusion (arXiv 2111.14822), section 4.2: AdaLN(h, t) = a_t LayerNorm(h) + b_t.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2 * width)

    def forward(self, x: Float[Tensor, "b n c"], embedding: Float[Tensor, "b c"]) -> Float[Tensor, "b n c"]:
        scale, shift = self.linear(embedding)[:, None].chunk(2, dim=2)
        return F.layer_norm(x, x.shape[2:]) * (1 + scale) + shift


class TimeConditionedBlock(nn.Module):
    """Self-attention, cross-attention if `cross` is set, and an MLP; the norms of the attentions are adaptive."""

    RENAMED_TENSORS: ClassVar = {
        "attend": "self_attn",
        "read": "cross_attn",
        "norm_last": "norm_mlp",
        "perceptron": "mlp",
    }

    def __init__(self, width: int, heads: int, cross: bool) -> None:
        super().__init__()
        self.norm_self, self.self_attn = AdaptiveNorm(width), Attention(width, heads)
        self.norm_cross = AdaptiveNorm(width) if cross else None
        self.cross_attn = Attention(width, heads) if cross else None
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        embedding: Float[Tensor, "b c"],
        context: Float[Tensor, "b m c"] | None,
        mask: Bool[Tensor, "b m"] | None,
    ) -> Float[Tensor, "b n c"]:
        normed = self.norm_self(x, embedding)
        x = x + self.self_attn(normed, normed)
        if self.cross_attn is not None and self.norm_cross is not None:
            assert context is not None, "a block with cross-attention needs a context"
            x = x + self.cross_attn(self.norm_cross(x, embedding), context, mask)
        return x + self.mlp(self.norm_mlp(x))


class TimeConditionedTransformer(nn.Module):
    """A stack of time-conditioned blocks and a final norm.

    Args:
        width: c, of the hidden states; a multiple of `heads`.
        layers: number of blocks.
        heads: attention heads.
        steps: number of timesteps.
        cross: adds cross-attention to every block.

    Source: VQ-Diffusion (arXiv 2111.14822), section 4.2.
    Differs from the paper: all norms share one table of timestep embeddings, where the paper has one for each norm.
    """

    RENAMED_TENSORS: ClassVar = {"steps": "step_embedding"}

    def __init__(self, width: int, layers: int, heads: int, steps: int, cross: bool) -> None:
        super().__init__()
        self.step_embedding = nn.Embedding(steps, width)
        self.blocks = nn.ModuleList(TimeConditionedBlock(width, heads, cross) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        step: Int[Tensor, " b"],
        context: Float[Tensor, "b m c"] | None = None,
        mask: Bool[Tensor, "b m"] | None = None,
    ) -> Float[Tensor, "b n c"]:
        """The hidden states after the last block.

        Args:
            x: embedded tokens.
            step: timestep of each image, from 0.
            context: what cross-attention reads.
            mask: False at the padding of `context`.
        """
        embedding = F.silu(self.step_embedding(step))
        for block in self.blocks:
            x = block(x, embedding, context, mask)
        return self.norm(x)


def init_weights(module: nn.Module) -> None:
    """Draws every matrix and embedding of a module from N(0, 0.02²); biases become 0.

    Source: Radford et al. (2019), which VQ-Diffusion's code follows.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
