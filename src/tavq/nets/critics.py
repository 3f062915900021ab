"""The patch discriminator of VQ-GAN and its hinge losses."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import skip_init

from tavq.core.config import Config
from tavq.core.errors import UsageError

WIDEST = 8  # channels double layer by layer up to this multiple of the first
GROUPS = 32
SLOPE = 0.2


class CriticConfig(Config):
    """Settings of the patch discriminator.

    `norm` "batch" is the papers' choice; with "group" or "none" a picture's scores do not depend on the rest of its
    batch, which accumulated and distributed steps need to equal one large step.
    """

    channels: int = Field(64, ge=1, le=1024)
    layers: int = Field(3, ge=1, le=6)
    norm: Literal["batch", "group", "none"] = "batch"

    @property
    def smallest(self) -> int:
        """Pixels of the shortest side that leaves the last layer something to score."""
        return int(3 * 2**self.layers)


class PatchCritic(nn.Module):
    """Scores overlapping patches of a picture, high for real and low for made.

    `layers` convolutions of stride 2, then two of stride 1. A score sees 70 × 70 pixels at the default of 3 layers,
    34 at 2 and 16 at 1; the smallest picture is 3 · 2^layers pixels wide and high. 2.8 M parameters at the default.
    Weights are drawn from N(0, 0.02) by `seed`, the norms' from N(1, 0.02); biases are 0.

    Source: Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks", appendix 6.1.2, as
    used by VQ-GAN (Esser et al. 2021).
    """

    Config = CriticConfig

    def __init__(self, config: CriticConfig, image_channels: int = 3, seed: int = 0) -> None:
        super().__init__()
        self.smallest = config.smallest
        width = config.channels
        parts = [_conv(image_channels, width, stride=2), nn.LeakyReLU(SLOPE)]
        for layer in range(1, config.layers + 1):
            wider = config.channels * min(2**layer, WIDEST)
            stride = 2 if layer < config.layers else 1
            # A norm that follows has a bias of its own.
            parts.append(_conv(width, wider, stride, bias=config.norm == "none"))
            if config.norm != "none":
                parts.append(nn.BatchNorm2d(wider) if config.norm == "batch" else _group_norm(wider))
            parts.append(nn.LeakyReLU(SLOPE))
            width = wider
        self.main = nn.Sequential(*parts, _conv(width, 1, stride=1))
        self._initialise(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        for part in self.main:
            if isinstance(part, nn.Conv2d | nn.BatchNorm2d | nn.GroupNorm):
                part.weight.normal_(0.0 if isinstance(part, nn.Conv2d) else 1.0, 0.02, generator=generator)
                if part.bias is not None:
                    part.bias.zero_()

    def forward(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b 1 h w"]:
        """One score (logit) a patch."""
        height, width = images.shape[2:]
        if min(height, width) < self.smallest:
            raise UsageError(
                f"The discriminator got pictures of {width} × {height} pixels; with its number of layers it accepts "
                f"{self.smallest} × {self.smallest} or more. Choose fewer layers."
            )
        return self.main(images)


def _conv(inputs: int, outputs: int, stride: int, bias: bool = True) -> nn.Module:
    # skip_init leaves the global random state alone; the weights are drawn from the critic's own seed.
    return skip_init(nn.Conv2d, inputs, outputs, kernel_size=4, stride=stride, padding=1, bias=bias)


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels)


def discriminator_hinge(
    real_logits: Float[Tensor, "b 1 h w"], fake_logits: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, ""]:
    """The discriminator's loss, 0 once real patches score above 1 and made ones below -1.

    Source: Esser et al. 2021 (VQ-GAN), in the hinge form of Lim & Ye 2017, with the factor 1/2 of VQ-GAN's code.
    """
    return (functional.relu(1 - real_logits).mean() + functional.relu(1 + fake_logits).mean()) / 2


def generator_loss(fake_logits: Float[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
    """The generator's adversarial loss: minus the mean score of what it made."""
    return -fake_logits.mean()
