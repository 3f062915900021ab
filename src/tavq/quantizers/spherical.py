"""The quantizer of ViT-VQGAN: the nearest entry on the unit sphere, in few dimensions."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tavq.core.config import NamedConfig
from tavq.interfaces import Codebook, CodebookView, Quantized, Quantizer, quantizers
from tavq.ops.grids import flatten_grid
from tavq.quantizers.nearest import NearestQuantizer


@quantizers.register("spherical")
class SphericalQuantizer(Quantizer):
    """Normalises features and entries, then takes the nearest; quantized grids hold the normalised entries.

    The gradient reaches the features through their normalisation, and the codebook's hooks get normalised features.
    Use a width of about 8: on a sphere of many dimensions all distances are nearly the same.

    Source: ViT-VQGAN (Yu et al., 2022), §3.2; LlamaGen (Sun et al., 2024), §2.
    """

    class Config(NamedConfig):
        """Settings of the nearest-entry quantizer on the sphere."""

        name: Literal["spherical"] = "spherical"
        of: NearestQuantizer.Config = NearestQuantizer.Config()

    straight_through = False

    def __init__(self, config: Config, codebook: Any) -> None:
        super().__init__(config, codebook)
        self.nearest = NearestQuantizer(config.of, codebook)

    def indices(self, features: Float[Tensor, "b d h w"], codebook: Codebook) -> Int[Tensor, "b h w"]:
        return self.nearest.indices(_normalize(features), _on_sphere(codebook))

    def lookup(self, indices: Int[Tensor, "b h w"], codebook: Codebook) -> Float[Tensor, "b d h w"]:
        return self.nearest.lookup(indices, _on_sphere(codebook))

    def lookup_entries(self, codebook: Codebook) -> Float[Tensor, "k d"]:
        return _on_sphere(codebook)()

    def forward(self, features: Float[Tensor, "b d h w"], codebook: Codebook, update: bool = False) -> Quantized:
        unit_features = _normalize(features)
        if update:
            codebook.init_from_features(flatten_grid(unit_features.detach()))
        return self.nearest.quantize(unit_features, _on_sphere(codebook), update)


def _normalize(features: Tensor) -> Tensor:
    with torch.autocast(features.device.type, enabled=False):
        return F.normalize(features.float(), dim=1)


def _on_sphere(codebook: Codebook) -> CodebookView:
    """Normalised entries, from a copy: a codebook may update its table before the backward pass reads it."""
    with torch.autocast(codebook().device.type, enabled=False):
        return CodebookView(codebook, F.normalize(codebook().float().clone(), dim=1))
