"""The two upper grids of TA-VQ's hierarchical encoder; they exist in training only."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

LEVELS = ("low", "middle", "deep")
"""Names of the three grids, fine to coarse; the decoder reads the deep one only."""


class Hierarchy(nn.Module):
    """Projects the features of the two stages above the deepest to the width of the codes.

    Source: TA-VQ (arXiv 2503.01261), §4 step 3, Z_f1 and Z_f2.
    Differs from the paper: it does not say where the features come from; here they are taken after the residual
    blocks of the stages at 4 and 2 times the deepest resolution, through one 1 x 1 convolution each.

    Args:
        widths: channels of the encoder's stages, fine to coarse, the deepest last; three or more.
        width: d, the width of a code.
        levels: which grids to build, of 0 (low) and 1 (middle).
    """

    def __init__(self, widths: Sequence[int], width: int, levels: Sequence[int]) -> None:
        super().__init__()
        self.projections = nn.ModuleDict(
            {LEVELS[level]: nn.Conv2d(widths[level - 3], width, 1) for level in sorted(levels)}
        )

    def forward(self, stages: Sequence[Float[Tensor, "b _ _ _"]]) -> dict[int, Float[Tensor, "b d _ _"]]:
        """The grids by level; `stages` are the encoder's, without the deepest."""
        return {
            LEVELS.index(name): projection(stages[LEVELS.index(name) - 2])
            for name, projection in self.projections.items()
        }
