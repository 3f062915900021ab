"""The quantizers of MAGVIT-2 (LFQ) and BSQ: the signs of a few channels, read as a binary number."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from tavq.core.config import NamedConfig
from tavq.core.errors import UsageError
from tavq.interfaces import Codebook, Loss, Losses, Quantized, Quantizer, quantizers
from tavq.ops.entropy import binary_entropy_gap
from tavq.quantizers.lattices import ProjectIn, check_lattice, index_grid, lookup_digits, quantize_digits


@quantizers.register("binary")
class BinaryQuantizer(Quantizer):
    """Takes the sign of each channel after a linear map to the lattice's axes; `bsq` normalises the channels first.

    Source: LFQ of MAGVIT-2 (Yu et al., 2024), §3.1; BSQ (Zhao et al., 2024), §3-4.
    Differs from the paper: LFQ's entropy of the mean assignment is factorised as in BSQ (MAGVIT-2 sums over all 2^l
    entries); in both the soft assignment is a softmax of -squared distance / temperature, which is twice BSQ's exponent
    at the same temperature.
    """

    class Config(NamedConfig):
        """Which of the two, and the weights of its losses."""

        name: Literal["binary"] = "binary"
        kind: Literal["lfq", "bsq"] = "lfq"
        """`bsq` goes with a codebook that has `sphere: true`."""
        commitment: float = Field(0.25, ge=0, le=100)
        """Weight of the term that pulls channels to their signs."""
        entropy: float = Field(0.1, ge=0, le=100)
        """Weight of the entropy loss, which is low for confident choices that use all entries; 0 is off."""
        entropy_temperature: float = Field(0.01, ge=1e-4, le=1e4)

    compatible_codebook: ClassVar[Mapping[str, Any]] = {"name": "lattice", "levels": (2, 2, 2, 2, 2)}
    order_sensitive = True

    def __init__(self, config: Config, codebook: Any) -> None:
        super().__init__(config, codebook)
        check_lattice(codebook, self.name)
        if set(codebook.levels) != {2}:
            raise UsageError(f"The quantizer 'binary' needs two levels an axis, got {list(codebook.levels)}.")
        if codebook.sphere != (config.kind == "bsq"):
            needed = "true" if config.kind == "bsq" else "false"
            raise UsageError(f"The quantizer 'binary' of kind {config.kind!r} needs model.codebook.sphere {needed}.")
        self.axes = ProjectIn(codebook)
        self.point = 1 / math.sqrt(len(codebook.levels)) if codebook.sphere else 1.0
        self.idempotent = self.axes.down is None
        self.straight_through = self.idempotent and config.kind == "lfq"

    def _values(self, features: Tensor) -> Tensor:
        values = self.axes(features)
        return F.normalize(values, dim=1) if self.config.kind == "bsq" else values

    def indices(self, features: Float[Tensor, "b d h w"], codebook: Codebook) -> Int[Tensor, "b h w"]:
        b, _, h, w = features.shape
        return index_grid((self._values(features.detach()) > 0).long(), codebook, (b, h, w))

    def lookup(self, indices: Int[Tensor, "b h w"], codebook: Codebook) -> Float[Tensor, "b d h w"]:
        return lookup_digits(indices, codebook)

    def forward(self, features: Float[Tensor, "b d h w"], codebook: Codebook, update: bool = False) -> Quantized:
        b, _, h, w = features.shape
        values = self._values(features)
        digits = (values > 0).long()
        points = (2 * digits - 1) * self.point
        losses: Losses = {"quantizer/commitment": Loss(F.mse_loss(values, points), self.config.commitment)}
        if self.config.entropy:
            gap = binary_entropy_gap(values, self.point, self.config.entropy_temperature)
            losses["quantizer/entropy"] = Loss(gap, self.config.entropy)
        return Quantized(*quantize_digits(values, digits, codebook, (b, h, w)), losses)
