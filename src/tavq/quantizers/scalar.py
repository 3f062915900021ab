"""The quantizer of FSQ: each of a few channels is bounded and rounded on its own."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tavq.core.config import NamedConfig
from tavq.core.errors import UsageError
from tavq.interfaces import Codebook, Quantized, Quantizer, quantizers
from tavq.quantizers.lattices import Axes, check_lattice, codes_of, lookup, numbered

EDGE = 1e-3
"""Room beyond the outer levels, which tanh would otherwise reach at infinity only."""


@quantizers.register("scalar")
class ScalarQuantizer(Quantizer):
    """A linear map to as many channels as the lattice has axes, tanh to the range of each axis, and rounding.

    There are no losses: all entries lie within reach, and rounding passes on the gradient of the bounded values. The
    map up to the decoder is the codebook's and learns from the decoder.

    Source: FSQ (Mentzer et al., 2023), §3.1, and the code of its appendix.
    """

    class Config(NamedConfig):
        """Nothing to set: the levels are the codebook's."""

        name: Literal["scalar"] = "scalar"

    compatible_codebook: ClassVar[Mapping[str, Any]] = {"name": "lattice", "levels": (5, 4, 3)}
    straight_through = False
    idempotent = False
    order_sensitive = True

    def __init__(self, config: Config, codebook: Any) -> None:
        super().__init__(config, codebook)
        check_lattice(codebook, self.name)
        if codebook.sphere:
            raise UsageError("The quantizer 'scalar' needs model.codebook.sphere false; true is for 'binary' (bsq).")
        self.levels = tuple(codebook.levels)
        self.axes = Axes(codebook)

    def _bounded(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Values on each axis that round to -⌊L/2⌋ and up, and the levels."""
        values = self.axes(features)
        levels = torch.tensor(self.levels, device=values.device)
        half, offset = (levels - 1) * (1 + EDGE) / 2, (levels % 2 == 0) / 2
        return torch.tanh(values + torch.atanh(offset / half)) * half - offset, levels

    def indices(self, features: Float[Tensor, "b d h w"], codebook: Codebook) -> Int[Tensor, "b h w"]:
        b, _, h, w = features.shape
        bounded, levels = self._bounded(features.detach())
        return numbered(bounded.round().long() + levels // 2, codebook, (b, h, w))

    def lookup(self, indices: Int[Tensor, "b h w"], codebook: Codebook) -> Float[Tensor, "b d h w"]:
        return lookup(indices, codebook)

    def forward(self, features: Float[Tensor, "b d h w"], codebook: Codebook, update: bool = False) -> Quantized:
        b, _, h, w = features.shape
        bounded, levels = self._bounded(features)
        digits = bounded.detach().round().long() + levels // 2
        values = bounded / torch.where(levels > 2, levels // 2, 0.5)  # in the lattice's own unit
        return Quantized(*codes_of(values, digits, codebook, (b, h, w)), {})
