"""The two upper grids of TA-VQ's hierarchical encoder, used in training only."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

LEVELS = ("low", "middle", "deep")
"""Names of the three grids, fine to coarse; the decoder only reads the deep one."""


class Hierarchy(nn.Module):
    """Projects the features of the two stages above the deepest to the width of a code.

    Source: TA-VQ (arXiv 2503.01261), §4 step 3, Z_f1 and Z_f2.
    Differs from the paper: it does not say where the features come from. Here they are those after the residual
    blocks of the stages at 4 and 2 times the deepest resolution, each projected by a 1 x 1 convolution.

    Args:
        widths: channels of the encoder's stages, fine to coarse; three or more.
        width: d, the width of a code.
        levels: which grids to build: 0 (low) and 1 (middle).
    """

    def __init__(self, widths: Sequence[int], width: int, levels: Sequence[int]) -> None:
        super().__init__()
        self.projections = nn.ModuleDict(
            {LEVELS[level]: nn.Conv2d(widths[level - 3], width, 1) for level in sorted(levels)}
        )

    def forward(self, stages: Sequence[Float[Tensor, "b _ _ _"]]) -> dict[int, Float[Tensor, "b d _ _"]]:
        """The grids by level, from the features of the encoder's stages without the deepest."""
        return {
            LEVELS.index(name): projection(stages[LEVELS.index(name) - 2])
            for name, projection in self.projections.items()
        }
