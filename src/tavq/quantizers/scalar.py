"""The quantizer of FSQ: a few channels, each bounded and rounded by itself."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tavq.core.config import NamedConfig
from tavq.core.errors import UsageError
from tavq.interfaces import Codebook, Quantized, Quantizer, quantizers
from tavq.ops.waiting import constant
from tavq.quantizers.lattices import ProjectIn, check_lattice, index_grid, lookup_digits, quantize_digits

EDGE = 1e-3
"""Margin beyond the outer levels, which tanh would otherwise reach only at infinity."""


@quantizers.register("scalar")
class ScalarQuantizer(Quantizer):
    """Maps features to the axes of the lattice by a linear layer, bounds each axis by tanh, and rounds.

    It needs no losses: all entries are within reach, and rounding is straight-through for the bounded values. The
    linear map to the decoder belongs to the codebook and is trained by the decoder's loss.

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
        self.axes = ProjectIn(codebook)

    def _bounded(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Bounded values on each axis, which round to -⌊L/2⌋ and up, and the levels of each axis."""
        values = self.axes(features)
        levels = constant(self.levels, values.device)
        half, offset = (levels - 1) * (1 + EDGE) / 2, (levels % 2 == 0) / 2
        return torch.tanh(values + torch.atanh(offset / half)) * half - offset, levels

    def indices(self, features: Float[Tensor, "b d h w"], codebook: Codebook) -> Int[Tensor, "b h w"]:
        b, _, h, w = features.shape
        bounded, levels = self._bounded(features.detach())
        return index_grid(bounded.round().long() + levels // 2, codebook, (b, h, w))

    def lookup(self, indices: Int[Tensor, "b h w"], codebook: Codebook) -> Float[Tensor, "b d h w"]:
        return lookup_digits(indices, codebook)

    def forward(self, features: Float[Tensor, "b d h w"], codebook: Codebook, update: bool = False) -> Quantized:
        b, _, h, w = features.shape
        bounded, levels = self._bounded(features)
        digits = bounded.detach().round().long() + levels // 2
        values = bounded / torch.where(levels > 2, levels // 2, 0.5)  # in the unit of the lattice
        return Quantized(*quantize_digits(values, digits, codebook, (b, h, w)), {})
