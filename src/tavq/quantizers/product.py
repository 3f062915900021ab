"""The quantizer of product quantisation: groups of channels, each with a part of the codebook to itself."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tavq.core.config import NamedConfig
from tavq.interfaces import Codebook, Quantized, Quantizer, quantizers, split_parts
from tavq.ops.grids import flatten_grid
from tavq.quantizers.nearest import NearestQuantizer
from tavq.quantizers.parts import PartSettings, joined, mean_losses, means, separated


@quantizers.register("product")
class ProductQuantizer(Quantizer):
    """The grid's channels in as many groups as the codebook has parts; group i takes the nearest entry of part i.

    The grid is width × parts wide. Losses are means over the groups. Parts may have different sizes.

    Source: product quantisation (Jégou et al., 2011), §II.B; with two parts of adjectives and of nouns VQCT
    (Zhang et al., 2024), its step 3.
    Differs from the paper: VQCT's public code averages the two nearest entries of a part; here each code is an entry,
    so that indices alone give it back.
    """

    class Config(NamedConfig):
        """Settings of the choice in each group."""

        name: Literal["product"] = "product"
        of: NearestQuantizer.Config = NearestQuantizer.Config()

    multi_part = True
    compatible_codebook: ClassVar[Mapping[str, Any]] = {"name": "learned", "parts": 3}

    def __init__(self, config: Config, codebook: Any) -> None:
        super().__init__(config, codebook)
        self.nearest = NearestQuantizer(config.of, PartSettings(int(codebook.width)))
        self.straight_through = self.nearest.straight_through

    @classmethod
    def grid_width(cls, codebook: Any) -> int:
        return int(codebook.width * codebook.parts)

    def indices(self, features: Float[Tensor, "b d h w"], codebook: Codebook) -> Int[Tensor, "b h w *c"]:
        pairs = zip(features.split(codebook.width, 1), split_parts(codebook), strict=True)
        return joined([self.nearest.indices(group, part) for group, part in pairs])

    def lookup(self, indices: Int[Tensor, "b h w *c"], codebook: Codebook) -> Float[Tensor, "b d h w"]:
        pairs = zip(separated(indices, len(codebook.sizes)), split_parts(codebook), strict=True)
        return torch.cat([self.nearest.lookup(chosen, part) for chosen, part in pairs], 1)

    def lookup_entries(self, codebook: Codebook) -> Float[Tensor, "k d"]:
        rows = torch.cat(means(codebook)).repeat(codebook.size, 1)
        entries, width, place = codebook(), codebook.width, 0
        for number, size in enumerate(codebook.sizes):
            own = slice(place, place + size)
            rows[own, number * width : (number + 1) * width] = entries[own]
            place += size
        return rows

    def forward(self, features: Float[Tensor, "b d h w"], codebook: Codebook, update: bool = False) -> Quantized:
        made = []
        for number, group in enumerate(features.split(codebook.width, 1)):
            if update:
                codebook.init_from_features(flatten_grid(group.detach().float()), number)
            made.append(self.nearest.quantize(group, split_parts(codebook)[number], update))
        return Quantized(
            torch.cat([group.quantized for group in made], 1),
            torch.cat([group.entries for group in made], 1),
            joined([group.indices for group in made]),
            mean_losses([group.losses for group in made]),
        )
