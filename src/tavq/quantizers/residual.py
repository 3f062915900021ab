"""The quantizer of residual quantisation: each part of the codebook takes what the parts before it left over."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tavq.core.config import NamedConfig
from tavq.interfaces import Codebook, Quantized, Quantizer, quantizers, split_parts
from tavq.ops.gradients import ESTIMATORS
from tavq.ops.grids import flatten_grid
from tavq.quantizers.nearest import NearestQuantizer
from tavq.quantizers.parts import PartSettings, joined, mean_losses, means, separated


@quantizers.register("residual")
class ResidualQuantizer(Quantizer):
    """Part i takes the entry nearest to the feature minus the entries of the parts before; codes are the sums.

    The gradient passes once, from the sum to the features. Losses are means over the parts, each between what the part
    was given and what it chose. The codebook is shown what each part was given.

    Source: RQ-VAE (Lee et al., 2022), §3.2.
    Differs from the paper: each part has entries of its own (as in SoundStream), where RQ-VAE shares one table; entries
    learn by the codebook loss or by the codebook's own rule.
    """

    class Config(NamedConfig):
        """Settings of the choice in each part."""

        name: Literal["residual"] = "residual"
        of: NearestQuantizer.Config = NearestQuantizer.Config()

    multi_part = True
    idempotent = False
    compatible_codebook: ClassVar[Mapping[str, Any]] = {"name": "learned", "parts": 3}

    def __init__(self, config: Config, codebook: Any) -> None:
        super().__init__(config, codebook)
        self.nearest = NearestQuantizer(config.of, PartSettings(int(codebook.width)))
        self.straight_through = self.nearest.straight_through

    def indices(self, features: Float[Tensor, "b d h w"], codebook: Codebook) -> Int[Tensor, "b h w *c"]:
        left, chosen = features.detach().float(), []
        for part in split_parts(codebook):
            chosen.append(self.nearest.indices(left, part))
            left = left - self.nearest.lookup(chosen[-1], part).detach()
        return joined(chosen)

    def lookup(self, indices: Int[Tensor, "b h w *c"], codebook: Codebook) -> Float[Tensor, "b d h w"]:
        pairs = zip(separated(indices, len(codebook.sizes)), split_parts(codebook), strict=True)
        return _total([self.nearest.lookup(chosen, part) for chosen, part in pairs])

    def lookup_entries(self, codebook: Codebook) -> Float[Tensor, "k d"]:
        means_of_parts = torch.stack(means(codebook))
        sizes = torch.tensor(codebook.sizes, device=means_of_parts.device)
        return codebook() + (means_of_parts.sum(0) - means_of_parts).repeat_interleave(sizes, 0)

    def forward(self, features: Float[Tensor, "b d h w"], codebook: Codebook, update: bool = False) -> Quantized:
        left = features = features.float()
        made = []
        for number in range(len(codebook.sizes)):
            if update:
                codebook.init_from_features(flatten_grid(left.detach()), number)
            made.append(self.nearest.quantize(left, split_parts(codebook)[number], update))
            left = left - made[-1].entries.detach()
        entries = _total([part.entries for part in made])
        codes = ESTIMATORS[self.config.of.gradient].apply(features, entries.detach())
        indices = joined([part.indices for part in made])
        return Quantized(codes, entries, indices, mean_losses([part.losses for part in made]))


def _total(entries: list[Tensor]) -> Tensor:
    """The sum over parts, always from the first to the last: equal indices give equal codes to the bit."""
    whole = entries[0]
    for part in entries[1:]:
        whole = whole + part
    return whole
