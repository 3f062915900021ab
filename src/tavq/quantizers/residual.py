"""The residual quantizer: each part of the codebook quantizes what the parts before it left over."""

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
from tavq.quantizers.parts import PartSettings, average_losses, join_parts, mean_entries, separate_parts


@quantizers.register("residual")
class ResidualQuantizer(Quantizer):
    """Part i takes the entry nearest to the feature minus the entries of the parts before; the entries add up.

    The gradient passes once, from the sum to the features. Losses, averaged over the parts, are between the residual of
    a part and its entry; the codebook's hooks get that residual.

    Source: RQ-VAE (Lee et al., 2022), §3.2.
    Differs from the paper: each part has its own entries (as in SoundStream), where RQ-VAE shares one table; entries
    are trained by the codebook loss or by the codebook's own rule.
    """

    class Config(NamedConfig):
        """Settings of the nearest-entry quantizer in each part."""

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
        residual, chosen = features.detach().float(), []
        for part in split_parts(codebook):
            chosen.append(self.nearest.indices(residual, part))
            residual = residual - self.nearest.lookup(chosen[-1], part).detach()
        return join_parts(chosen)

    def lookup(self, indices: Int[Tensor, "b h w *c"], codebook: Codebook) -> Float[Tensor, "b d h w"]:
        pairs = zip(separate_parts(indices, len(codebook.sizes)), split_parts(codebook), strict=True)
        return _add_parts([self.nearest.lookup(chosen, part) for chosen, part in pairs])

    def lookup_entries(self, codebook: Codebook) -> Float[Tensor, "k d"]:
        means = torch.stack(mean_entries(codebook))
        sizes = torch.tensor(codebook.sizes, device=means.device)
        return codebook() + (means.sum(0) - means).repeat_interleave(sizes, 0)

    def forward(self, features: Float[Tensor, "b d h w"], codebook: Codebook, update: bool = False) -> Quantized:
        residual = features = features.float()
        results = []
        for part in range(len(codebook.sizes)):
            if update:
                codebook.init_from_features(flatten_grid(residual.detach()), part)
            # split again for each part: the hook above may have replaced its entries
            results.append(self.nearest.quantize(residual, split_parts(codebook)[part], update))
            residual = residual - results[-1].entries.detach()
        entries = _add_parts([result.entries for result in results])
        quantized = ESTIMATORS[self.config.of.gradient].apply(features, entries.detach())
        indices = join_parts([result.indices for result in results])
        return Quantized(quantized, entries, indices, average_losses([result.losses for result in results]))


def _add_parts(entries: list[Tensor]) -> Tensor:
    """The sum over parts, always in the same order, so that equal indices give equal grids bit for bit."""
    total = entries[0]
    for part in entries[1:]:
        total = total + part
    return total
