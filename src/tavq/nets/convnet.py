"""The convolutional encoder and decoder of VQ-GAN.

Source: Esser et al., "Taming Transformers for High-Resolution Image Synthesis" (2021), appendix; the geometry of
its f = 16 models is the default.
"""

import math
from typing import Any, Literal

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor, nn

from tavq.core.config import Config


class ConvNetConfig(Config):
    """Geometry of encoder and decoder; the defaults are the papers' f = 16 network (72 M parameters)."""

    channels: int = Field(128, ge=8, le=1024)
    """Width of the first stage."""
    multipliers: tuple[PositiveInt, ...] = Field((1, 1, 2, 2, 4), min_length=1, max_length=8)
    """Width of each stage as a multiple of `channels`; each stage but the last halves the sides."""
    blocks: int = Field(2, ge=1, le=8)
    """Residual blocks per stage; the decoder has one more, as in the public code."""
    attention: Literal["none", "deepest", "middle", "both"] = "both"
    """Where self-attention is: in the deepest stage (16 x 16 in the papers), in the middle between it and the code, or
    in both. Earlier versions wrote true and false, which are both and none."""
    latent_width: int | None = Field(None, ge=1, le=4096)
    """Channels between the encoder or decoder and the 1 x 1 convolution to or from the code; null: the code's width.
    LlamaGen's are 256, for codes of width 8."""
    groups: int | None = Field(None, ge=1, le=1024)
    """Groups of every normalization; null: 32, and fewer where a layer is narrower than 128 channels."""

    @field_validator("attention", mode="before")
    @classmethod
    def _accept_switch(cls, value: Any) -> Any:
        return {True: "both", False: "none"}[value] if isinstance(value, bool) else value

    @field_validator("groups")
    @classmethod
    def _check_groups(cls, groups: int | None, info: Any) -> int | None:
        channels, multipliers = info.data.get("channels", 0), info.data.get("multipliers", ())
        uneven = [channels * multiplier for multiplier in multipliers if channels * multiplier % (groups or 1)]
        if uneven:
            raise ValueError(f"{groups} groups do not divide the {uneven[0]} channels of a stage")
        return groups

    @property
    def deepest_attention(self) -> bool:
        """Whether the deepest stage has self-attention."""
        return self.attention in ("deepest", "both")

    @property
    def middle_attention(self) -> bool:
        """Whether the middle has self-attention."""
        return self.attention in ("middle", "both")

    @property
    def factor(self) -> int:
        """Downsampling factor: pixels per code along one side."""
        return int(2 ** (len(self.multipliers) - 1))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage, fine to coarse."""
        return tuple(self.channels * multiplier for multiplier in self.multipliers)


class Norm(nn.GroupNorm):
    """Group normalization with 32 groups as in the public code; narrow layers have fewer, of at least four channels."""

    def __init__(self, channels: int, groups: int | None = None) -> None:
        super().__init__(groups or math.gcd(32, max(channels // 4, 1), channels), channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), with a 1 x 1 convolution on x if the width changes."""

    def __init__(self, channels: int, out_channels: int, groups: int | None = None) -> None:
        super().__init__()
        self.norm1 = Norm(channels, groups)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm2 = Norm(out_channels, groups)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        y = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(y)))


class AttentionBlock(nn.Module):
    """x + single-head self-attention over all positions."""

    def __init__(self, channels: int, groups: int | None = None) -> None:
        super().__init__()
        self.norm = Norm(channels, groups)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        b, c, h, w = x.shape
        projected = self.query_key_value(self.norm(x)).flatten(2).transpose(1, 2)
        query, key, value = projected.chunk(3, dim=-1)
        y = F.scaled_dot_product_attention(query, key, value)
        return x + self.out(y.transpose(1, 2).reshape(b, c, h, w))


class Downsample(nn.Module):
    """Halves the sides; padded at the right and bottom only, as the public weights expect."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles the sides by nearest neighbour, then convolves."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _stage(channels: int, out_channels: int, blocks: int, attention: bool, groups: int | None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for block in range(blocks):
        layers.append(ResidualBlock(channels if block == 0 else out_channels, out_channels, groups))
        if attention:
            layers.append(AttentionBlock(out_channels, groups))
    return nn.Sequential(*layers)


def _middle(channels: int, attention: bool, groups: int | None) -> nn.Sequential:
    between = [AttentionBlock(channels, groups)] if attention else []
    return nn.Sequential(ResidualBlock(channels, channels, groups), *between, ResidualBlock(channels, channels, groups))


class Encoder(nn.Module):
    """Encodes images to a grid of features, smaller by `config.factor` along each side."""

    def __init__(self, config: ConvNetConfig, width: int) -> None:
        super().__init__()
        widths, latent = config.widths, config.latent_width or width
        attention = [False] * (len(widths) - 1) + [config.deepest_attention]
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.stages = nn.ModuleList(
            _stage(widths[max(i - 1, 0)], widths[i], config.blocks, attention[i], config.groups)
            for i in range(len(widths))
        )
        self.downsamples = nn.ModuleList(Downsample(channels) for channels in widths[:-1])
        self.middle = _middle(widths[-1], config.middle_attention, config.groups)
        self.norm_out = Norm(widths[-1], config.groups)
        self.conv_out = nn.Conv2d(widths[-1], latent, 3, padding=1)
        self.project = nn.Conv2d(latent, width, 1)

    def forward(self, images: Float[Tensor, "b 3 y x"]) -> tuple[list[Tensor], Float[Tensor, "b d h w"]]:
        """The features of each stage but the last, fine to coarse, and the projected deepest grid."""
        x = self.conv_in(images)
        stages: list[Tensor] = []
        for stage, downsample in zip(self.stages, self.downsamples, strict=False):
            x = stage(x)
            stages.append(x)
            x = downsample(x)
        x = self.middle(self.stages[-1](x))
        return stages, self.project(self.conv_out(F.silu(self.norm_out(x))))


class Decoder(nn.Module):
    """Decodes a grid of codes to images."""

    def __init__(self, config: ConvNetConfig, width: int) -> None:
        super().__init__()
        widths, latent = config.widths[::-1], config.latent_width or width
        attention = [config.deepest_attention] + [False] * (len(widths) - 1)
        self.project = nn.Conv2d(width, latent, 1)
        self.conv_in = nn.Conv2d(latent, widths[0], 3, padding=1)
        self.middle = _middle(widths[0], config.middle_attention, config.groups)
        self.stages = nn.ModuleList(
            _stage(widths[max(i - 1, 0)], widths[i], config.blocks + 1, attention[i], config.groups)
            for i in range(len(widths))
        )
        self.upsamples = nn.ModuleList(Upsample(channels) for channels in widths[:-1])
        self.norm_out = Norm(widths[-1], config.groups)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, codes: Float[Tensor, "b d h w"]) -> Float[Tensor, "b 3 y x"]:
        x = self.middle(self.conv_in(self.project(codes)))
        for stage, upsample in zip(self.stages, self.upsamples, strict=False):
            x = upsample(stage(x))
        x = self.stages[-1](x)
        return self.conv_out(F.silu(self.norm_out(x)))

    @property
    def last_weight(self) -> Tensor:
        """The weight of the last layer, at which the adaptive adversarial weight compares gradients."""
        return self.conv_out.weight


def count_parameters(module: nn.Module) -> int:
    """The number of parameters of a module, trained or frozen."""
    return sum(parameter.numel() for parameter in module.parameters())
