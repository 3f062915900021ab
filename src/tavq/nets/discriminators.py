"""The patch discriminators of VQ-GAN and VQGAN+, and their losses."""

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
from tavq.ops.collective import all_reduce_mean_value

MAX_MULTIPLE = 8  # channels double layer by layer up to this multiple of the first
GROUPS = 32
SLOPE, BLUR_SLOPE = 0.2, 0.1
BINOMIAL = (1.0, 3.0, 3.0, 1.0)


class DiscriminatorConfig(Config):
    """Settings of the patch discriminator.

    `norm` "batch" is the papers' choice; with "group" or "none" an image's scores do not depend on the rest of its
    batch, so that accumulated and distributed steps equal one large step. `downsample` "stride" is PatchGAN,
    the papers' choice; "blur" is the discriminator of VQGAN+ (there 128 channels, 4 layers and "group").
    """

    channels: int = Field(64, ge=1, le=1024)
    layers: int = Field(3, ge=1, le=6)
    norm: Literal["batch", "group", "none"] = "batch"
    downsample: Literal["stride", "blur"] = "stride"

    @property
    def smallest(self) -> int:
        """Smallest side of an image, in pixels, for which the last layer has an output."""
        return int((3 if self.downsample == "stride" else 2) * 2**self.layers)


class PatchDiscriminator(nn.Module):
    """Scores overlapping patches of an image, high for real and low for generated ones.

    With "stride": `layers` convolutions of stride 2, then two of stride 1. The receptive field is 70 × 70 pixels at the
    default of 3 layers, 34 at 2 and 16 at 1; the smallest image is 3 · 2^layers pixels wide and high. 2.8 M parameters
    at the default. Weights are drawn from N(0, 0.02) by `seed`, the norms' from N(1, 0.02); biases are 0.

    With "blur": `layers` pairs of a 3 × 3 convolution and a `Blur` that halves the sides, between two 5 × 5
    convolutions; the smallest image is 2 · 2^layers pixels wide and high. 7.4 M parameters at 128 channels and 4
    layers. Weights and biases are drawn uniformly from ± 1 / √(fan-in) by `seed`.

    Source: Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks", appendix 6.1.2, as
    used by VQ-GAN (Esser et al. 2021); "blur" Weber et al. 2024, "MaskBit", §3 and public code.
    Differs from the paper: with "blur", score maps larger than 16 × 16 are not pooled to that size; at 256 pixels
    and 4 layers they are 16 × 16.
    """

    Config = DiscriminatorConfig

    def __init__(self, config: DiscriminatorConfig, image_channels: int = 3, seed: int = 0) -> None:
        super().__init__()
        self.smallest, self.downsample = config.smallest, config.downsample
        layers = _strided_layers if config.downsample == "stride" else _blurred_layers
        self.main = nn.Sequential(*layers(config, image_channels))
        self._init_weights(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _init_weights(self, generator: torch.Generator) -> None:
        for part in self.main:
            if self.downsample == "blur":
                if isinstance(part, nn.Conv2d):
                    bound = part.weight[0].numel() ** -0.5
                    for values in part.parameters():
                        values.uniform_(-bound, bound, generator=generator)
            elif isinstance(part, nn.Conv2d | nn.BatchNorm2d | nn.GroupNorm):
                part.weight.normal_(0.0 if isinstance(part, nn.Conv2d) else 1.0, 0.02, generator=generator)
                if part.bias is not None:
                    part.bias.zero_()

    def forward(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b 1 h w"]:
        """One logit for each patch."""
        height, width = images.shape[2:]
        if min(height, width) < self.smallest:
            raise UsageError(
                f"The discriminator got images of {width} × {height} pixels; with its number of layers it needs "
                f"{self.smallest} × {self.smallest} or more. Choose fewer layers."
            )
        return self.main(images)


class Blur(nn.Module):
    """Smooths feature maps before it halves their sides, so that fine patterns do not alias.

    Source: Zhang 2019, "Making Convolutional Networks Shift-Invariant Again", with the filter (1, 3, 3, 1) / 8 along
    each axis; padded with zeros, as in MaskBit's public code.
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor(BINOMIAL) / sum(BINOMIAL)
        kernel = torch.outer(row, row).expand(channels, 1, 4, 4)
        self.register_buffer("kernel", kernel.contiguous(), persistent=False)

    def forward(self, features: Float[Tensor, "b f h w"]) -> Float[Tensor, "b f h2 w2"]:
        """Feature maps of half the height and width, rounded down."""
        return functional.conv2d(features, self.kernel.to(features.dtype), stride=2, padding=1, groups=len(self.kernel))


def _strided_layers(config: DiscriminatorConfig, image_channels: int) -> list[nn.Module]:
    width = config.channels
    parts = [_conv(image_channels, width, 4, stride=2), nn.LeakyReLU(SLOPE, inplace=True)]
    for layer in range(1, config.layers + 1):
        wider = config.channels * min(2**layer, MAX_MULTIPLE)
        stride = 2 if layer < config.layers else 1
        # A norm has a bias of its own, so the convolution before it needs none.
        parts.append(_conv(width, wider, 4, stride, bias=config.norm == "none"))
        parts += [*_norm(config, wider), nn.LeakyReLU(SLOPE, inplace=True)]
        width = wider
    return [*parts, _conv(width, 1, 4)]


def _blurred_layers(config: DiscriminatorConfig, image_channels: int) -> list[nn.Module]:
    width = config.channels
    parts = [_conv(image_channels, width, 5, padding=2), nn.LeakyReLU(BLUR_SLOPE, inplace=True)]
    for layer in range(config.layers):
        wider = config.channels * min(2**layer, MAX_MULTIPLE)
        parts += [_conv(width, wider, 3), Blur(wider), *_norm(config, wider), nn.LeakyReLU(BLUR_SLOPE, inplace=True)]
        width = wider
    parts += [_conv(width, width, 1, padding=0), nn.LeakyReLU(BLUR_SLOPE, inplace=True)]
    return [*parts, _conv(width, 1, 5, padding=2)]


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 1, bias: bool = True) -> nn.Module:
    # skip_init does not advance the global random state; the weights are drawn from the discriminator's own seed.
    return skip_init(nn.Conv2d, inputs, outputs, kernel_size=kernel, stride=stride, padding=padding, bias=bias)


def _norm(config: DiscriminatorConfig, channels: int) -> list[nn.Module]:
    if config.norm == "none":
        return []
    return [nn.BatchNorm2d(channels) if config.norm == "batch" else _group_norm(channels)]


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels)


def discriminator_hinge(
    real_logits: Float[Tensor, "b 1 h w"], fake_logits: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, ""]:
    """The discriminator's loss, 0 once real patches score above 1 and generated ones below -1.

    Source: Esser et al. 2021 (VQ-GAN), in the hinge form of Lim & Ye 2017, with the factor 1/2 of VQ-GAN's code.
    """
    return (functional.relu(1 - real_logits).mean() + functional.relu(1 + fake_logits).mean()) / 2


def generator_loss(fake_logits: Float[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
    """The generator's adversarial loss: minus the mean score of its images."""
    return -fake_logits.mean()


class LeCam(nn.Module):
    """A regularizer that keeps the scores of real images near the running mean of generated ones, and vice versa.

    relu(mean D(x) - a_made)² + relu(a_real - mean D(x̃))², with the running means a before this step's update. The
    means start at 0 and are training state: every checkpoint saves them.

    Source: Tseng et al. 2021, "Regularizing Generative Adversarial Networks under Limited Data", R_LC.
    Differs from the paper: relu before the square, as in its public code; the distance of a batch's mean score instead
    of the mean distance of each score, as in the public code of MaskBit, whose weight of 0.001 belongs to it.
    """

    DECAY = 0.999
    real: Tensor
    made: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("real", torch.zeros(()))
        self.register_buffer("made", torch.zeros(()))

    def forward(
        self, real_logits: Float[Tensor, "b 1 h w"], fake_logits: Float[Tensor, "b 1 h w"]
    ) -> Float[Tensor, ""]:
        """The loss for the scores of all processes; then the running means are updated with them.

        The mean over processes of its gradients is the gradient of one process with the whole batch.
        """
        real, made = (all_reduce_mean_value(logits.mean()) for logits in (real_logits, fake_logits))
        loss = functional.relu(real - self.made).square() + functional.relu(self.real - made).square()
        with torch.no_grad():
            for mean, score in ((self.real, real), (self.made, made)):
                mean.lerp_(score, 1 - self.DECAY)
        return loss
