"""A transformer that knows how noisy what it reads is: the step shifts and scales its norms."""

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tavq.nets.transformer import Attention


class AdaptiveNorm(nn.Module):
    """A layer norm whose scale and shift are a linear map of the state of its image.

    Source: VQ-Diffusion (arXiv 2111.14822), section 4.2: AdaLN(h, t) = a_t LayerNorm(h) + b_t.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2 * width)

    def forward(self, rows: Float[Tensor, "b n c"], state: Float[Tensor, "b c"]) -> Float[Tensor, "b n c"]:
        scale, shift = self.linear(state)[:, None].chunk(2, dim=2)
        return F.layer_norm(rows, rows.shape[2:]) * (1 + scale) + shift


class TimedBlock(nn.Module):
    """Self-attention, cross-attention where `cross` says so, and a perceptron; adaptive norms before the first two."""

    def __init__(self, width: int, heads: int, cross: bool) -> None:
        super().__init__()
        self.norm_self, self.attend = AdaptiveNorm(width), Attention(width, heads)
        self.norm_cross = AdaptiveNorm(width) if cross else None
        self.read = Attention(width, heads) if cross else None
        self.norm_last = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(
        self,
        rows: Float[Tensor, "b n c"],
        state: Float[Tensor, "b c"],
        source: Float[Tensor, "b m c"] | None,
        mask: Bool[Tensor, "b m"] | None,
    ) -> Float[Tensor, "b n c"]:
        normed = self.norm_self(rows, state)
        rows = rows + self.attend(normed, normed)
        if self.read is not None and self.norm_cross is not None:
            assert source is not None, "a block with cross-attention needs something to read"
            rows = rows + self.read(self.norm_cross(rows, state), source, mask)
        return rows + self.perceptron(self.norm_last(rows))


class TimedTransformer(nn.Module):
    """Blocks one after the other and a last norm; drawn weights as small as in GPT-2.

    Args:
        width: c, of a row; a multiple of `heads`.
        steps: how many there are.
        cross: every block reads `source` too.

    Source: VQ-Diffusion (arXiv 2111.14822), section 4.2.
    Differs from the paper: all norms read one table of steps, and not each its own.
    """

    def __init__(self, width: int, layers: int, heads: int, steps: int, cross: bool) -> None:
        super().__init__()
        self.steps = nn.Embedding(steps, width)
        self.blocks = nn.ModuleList(TimedBlock(width, heads, cross) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        rows: Float[Tensor, "b n c"],
        step: Int[Tensor, " b"],
        source: Float[Tensor, "b m c"] | None = None,
        mask: Bool[Tensor, "b m"] | None = None,
    ) -> Float[Tensor, "b n c"]:
        """The rows after all blocks; `step` counts from 0, `mask` is False where `source` must not be read."""
        state = F.silu(self.steps(step))
        for block in self.blocks:
            rows = block(rows, state, source, mask)
        return self.norm(rows)


def draw_small(module: nn.Module) -> None:
    """Draws every matrix and table in a module from a normal distribution of deviation 0.02; biases become 0.

    Source: Radford et al. (2019), which VQ-Diffusion's code follows.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
