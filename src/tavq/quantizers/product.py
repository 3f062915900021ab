"""The product quantizer: groups of channels, each with its own part of the codebook."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tavq.core.config import NamedConfig
from tavq.interfaces import Codebook, Quantized, Quantizer, quantizers, split_parts
from tavq.ops.grids import flatten_grid
from tavq.quantizers.nearest import NearestQuantizer
from tavq.quantizers.parts import PartSettings, add_losses, average_losses, join_parts, mean_entries, separate_parts


@quantizers.register("product")
class ProductQuantizer(Quantizer):
    """Splits the channels into one group a part of the codebook; group i takes the nearest entry of part i.

    The grid is width × parts wide. Losses are averaged or added over the groups. Parts may have different sizes.

    Source: product quantization (Jégou et al., 2011), §II.B; with two parts of adjectives and of nouns VQCT
    (Zhang et al., 2024), its step 3.
    Differs from the paper: VQCT's public code averages the two nearest adjectives; here one entry is taken, so that
    indices alone give the quantized grid. That code adds the losses of both halves: `reduce: sum`.
    """

    class Config(NamedConfig):
        """Settings of the nearest-entry quantizer in each group, and how the losses of the groups become one."""

        name: Literal["product"] = "product"
        of: NearestQuantizer.Config = NearestQuantizer.Config()
        reduce: Literal["mean", "sum"] = "mean"
        """The mean of the groups' losses weighs as much as the loss of one part; their sum, as in VQCT's public code,
        weighs as much as all of them."""

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
        return join_parts([self.nearest.indices(group, part) for group, part in pairs])

    def lookup(self, indices: Int[Tensor, "b h w *c"], codebook: Codebook) -> Float[Tensor, "b d h w"]:
        pairs = zip(separate_parts(indices, len(codebook.sizes)), split_parts(codebook), strict=True)
        return torch.cat([self.nearest.lookup(chosen, part) for chosen, part in pairs], 1)

    def lookup_entries(self, codebook: Codebook) -> Float[Tensor, "k d"]:
        vectors = torch.cat(mean_entries(codebook)).repeat(codebook.size, 1)
        entries, width, first = codebook(), codebook.width, 0
        for part, size in enumerate(codebook.sizes):
            rows = slice(first, first + size)
            vectors[rows, part * width : (part + 1) * width] = entries[rows]
            first += size
        return vectors

    def forward(self, features: Float[Tensor, "b d h w"], codebook: Codebook, update: bool = False) -> Quantized:
        results = []
        for part, group in enumerate(features.split(codebook.width, 1)):
            if update:
                codebook.init_from_features(flatten_grid(group.detach().float()), part)
            # split again for each part: the hook above may have replaced its entries
            results.append(self.nearest.quantize(group, split_parts(codebook)[part], update))
        quantized = torch.cat([result.quantized for result in results], 1)
        entries = torch.cat([result.entries for result in results], 1)
        indices = join_parts([result.indices for result in results])
        reduce_losses = add_losses if self.config.reduce == "sum" else average_losses
        return Quantized(quantized, entries, indices, reduce_losses([result.losses for result in results]))
