"""The convolutional encoder and decoder of VQ-GAN.

Source: Esser et al., "Taming Transformers for High-Resolution Image Synthesis" (2021), appendix; the geometry of
its f = 16 models is the default.
"""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveInt, field_validator, model_validator
from torch import Tensor, nn

from tavq.core.config import Config
from tavq.ops.group_norm import group_norm_silu, may_overwrite


class ConvNetConfig(Config):
    """Geometry of encoder and decoder; the defaults are the papers' f = 16 network (72 M parameters)."""

    channels: int = Field(128, ge=8, le=1024)
    """Width of the first stage."""
    multipliers: tuple[PositiveInt, ...] = Field((1, 1, 2, 2, 4), min_length=1, max_length=8)
    """Width of each stage as a multiple of `channels`; each stage but the last halves the sides."""
    blocks: int = Field(2, ge=1, le=8)
    """Residual blocks per stage of the encoder."""
    decoder_extra: int = Field(1, ge=0, le=8)
    """How many more the decoder has per stage: 1 in the public code of VQ-GAN, 0 in MaskGIT's."""
    middle_blocks: int = Field(2, ge=1, le=16)
    """Residual blocks between the deepest stage and the code; self-attention, if any, follows the first."""
    attention: Literal["none", "deepest", "middle", "both"] = "both"
    """Where self-attention is: in the deepest stage (16 x 16 in the papers), in the middle between it and the code, or
    in both. Earlier versions wrote true and false, which are both and none."""
    latent_width: int | None = Field(None, ge=1, le=4096)
    """Channels between the encoder or decoder and the 1 x 1 convolution to or from the code; null: the code's width.
    LlamaGen's are 256, for codes of width 8."""
    groups: int | None = Field(None, ge=1, le=1024)
    """Groups of every normalization; null: 32, and fewer where a layer is narrower than 128 channels."""
    project: bool = True
    """Whether 1 x 1 convolutions lead to the code and back; false: the encoder's last convolution gives the code."""
    out_kernel: Literal[1, 3] = 3
    """Side of the encoder's last convolution."""
    bias: bool = True
    """Whether the encoder's first convolution and those of the residual blocks have biases."""
    shortcut: Literal["input", "output"] = "input"
    """What the 1 x 1 convolution of a residual block that changes the width reads: its input, or, as in MaskGIT-VQ,
    what the block's last convolution gives."""
    downsample: Literal["conv", "symmetric", "average"] = "conv"
    """How stages halve the sides: a convolution padded at the right and bottom only, one padded on all sides, or the
    average of 2 x 2 positions."""
    upsample: Literal["nearest", "depth-to-space"] = "nearest"
    """How stages double the sides: nearest neighbour and a convolution, or a convolution to four times the channels,
    which become 2 x 2 positions."""
    adaptive_norm: bool = False
    """Each stage of the decoder starts with a normalization whose scale and shift come from the spread and mean of the
    image's codes."""
    value_range: Literal["[-1, 1]", "[0, 1]"] = "[-1, 1]"
    """Of the pixels that the weights expect and give. Images are in [-1, 1] everywhere else."""

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

    @model_validator(mode="after")
    def _check_latent(self) -> "ConvNetConfig":
        if not self.project and self.latent_width is not None:
            raise ValueError("latent_width needs project, as only a convolution changes the width of the latent")
        return self

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

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """In the type of the input under autocast, as on a CPU: autocast of CUDA would convert it to float32 first.

        PyTorch's kernels sum in float32 either way.
        """
        kind = input.device.type
        if kind != "cuda" or not torch.is_autocast_enabled(kind):
            return super().forward(input)
        with torch.autocast(kind, enabled=False):
            weight, bias = self.weight.to(input.dtype), self.bias.to(input.dtype)
            return F.group_norm(input, self.num_groups, weight, bias, self.eps)

    def activate(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """silu(norm(input)) in less memory; on a GPU as two operations, of which only inference overwrites one."""
        if input.is_cuda:
            normalized = self(input)
            return F.silu(normalized, inplace=not normalized.requires_grad and may_overwrite(normalized))
        return group_norm_silu(input, self.num_groups, self.weight, self.bias, self.eps)


def _add(own: Tensor, other: Tensor) -> Tensor:
    """The sum, written over `own`, which a convolution gave and nothing else reads, where no gradient needs it."""
    matching = own.dtype == other.dtype and own.stride() == other.stride()
    if matching and not (own.requires_grad or other.requires_grad) and may_overwrite(own):
        return own.add_(other)
    return other + own


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), with a 1 x 1 convolution on x if the width changes."""

    def __init__(self, channels: int, out_channels: int, config: ConvNetConfig) -> None:
        super().__init__()
        groups, bias = config.groups, config.bias
        self.norm1 = Norm(channels, groups)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1, bias=bias)
        self.norm2 = Norm(out_channels, groups)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=bias)
        self.shortcut: nn.Module = nn.Identity()
        self.reads_output = channels != out_channels and config.shortcut == "output"
        if channels != out_channels:
            self.shortcut = nn.Conv2d(out_channels if self.reads_output else channels, out_channels, 1, bias=bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        y = self.conv1(self.norm1.activate(x))
        y = self.conv2(self.norm2.activate(y))
        return _add(y, self.shortcut(y if self.reads_output else x))


class AttentionBlock(nn.Module):
    """x + single-head self-attention over all positions."""

    def __init__(self, channels: int, groups: int | None = None) -> None:
        super().__init__()
        self.norm = Norm(channels, groups)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        b, c, h, w = x.shape
        projected = self.query_key_value(self.norm(x)).flatten(2).transpose(1, 2).contiguous()
        # PyTorch's attention in linear memory wants an axis of heads and adjacent channels, else it holds all pairs
        query, key, value = projected[:, None].chunk(3, dim=-1)
        y = F.scaled_dot_product_attention(query, key, value)[:, 0]
        return _add(self.out(y.transpose(1, 2).reshape(b, c, h, w)), x)


class Downsample(nn.Module):
    """Halves the sides; padded at the right and bottom only by default, as the public weights expect."""

    def __init__(self, channels: int, symmetric: bool = False) -> None:
        super().__init__()
        self.padding = (1, 1, 1, 1) if symmetric else (0, 1, 0, 1)
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        return self.conv(F.pad(x, self.padding))


class Upsample(nn.Module):
    """Doubles the sides by nearest neighbour, then convolves."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class DepthToSpace(nn.Module):
    """Convolves to 4 c channels and moves them to 2 x 2 positions: channel (2 i + j) c + k is k at row i, column j.

    Source: MAGVIT-2 (Yu et al., 2024), appendix A; order of the channels: Open-MAGVIT2's public code.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4 * channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        b, c, h, w = x.shape
        parts = self.conv(x).view(b, 2, 2, c, h, w)
        return parts.permute(0, 3, 4, 1, 5, 2).reshape(b, c, 2 * h, 2 * w)


class CodeNorm(nn.Module):
    """Group normalization whose scale and shift are linear in the standard deviation and mean of the image's codes.

    Source: MAGVIT-2 (Yu et al., 2024), §3.2; unbiased variance, as in Open-MAGVIT2's public code. Of a single position
    it is 0.
    """

    def __init__(self, width: int, channels: int, groups: int | None) -> None:
        super().__init__()
        self.groups = Norm(channels, groups).num_groups
        self.gamma, self.beta = nn.Linear(width, channels), nn.Linear(width, channels)

    def forward(self, x: Float[Tensor, "b c h w"], codes: Float[Tensor, "b d h2 w2"]) -> Float[Tensor, "b c h w"]:
        flat = codes.flatten(2)
        std = (flat.var(2, correction=min(1, flat.shape[2] - 1)) + 1e-6).sqrt()
        scale, shift = self.gamma(std), self.beta(flat.mean(2))
        return F.group_norm(x, self.groups, eps=1e-6) * scale[:, :, None, None] + shift[:, :, None, None]


def _stage(channels: int, out_channels: int, blocks: int, attention: bool, config: ConvNetConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    for block in range(blocks):
        layers.append(ResidualBlock(channels if block == 0 else out_channels, out_channels, config))
        if attention:
            layers.append(AttentionBlock(out_channels, config.groups))
    return nn.Sequential(*layers)


def _middle(channels: int, config: ConvNetConfig) -> nn.Sequential:
    between = [AttentionBlock(channels, config.groups)] if config.middle_attention else []  # first, as seeds expect
    blocks = [ResidualBlock(channels, channels, config) for _ in range(config.middle_blocks)]
    return nn.Sequential(blocks[0], *between, *blocks[1:])


def _downsample(channels: int, config: ConvNetConfig) -> nn.Module:
    return nn.AvgPool2d(2) if config.downsample == "average" else Downsample(channels, config.downsample == "symmetric")


class Encoder(nn.Module):
    """Encodes images to a grid of features, smaller by `config.factor` along each side."""

    def __init__(self, config: ConvNetConfig, width: int) -> None:
        super().__init__()
        widths, latent = config.widths, config.latent_width or width
        attention = [False] * (len(widths) - 1) + [config.deepest_attention]
        self.unit = config.value_range == "[0, 1]"
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1, bias=config.bias)
        self.stages = nn.ModuleList(
            _stage(widths[max(i - 1, 0)], widths[i], config.blocks, attention[i], config) for i in range(len(widths))
        )
        self.downsamples = nn.ModuleList(_downsample(channels, config) for channels in widths[:-1])
        self.middle = _middle(widths[-1], config)
        self.norm_out = Norm(widths[-1], config.groups)
        self.conv_out = nn.Conv2d(widths[-1], latent, config.out_kernel, padding=config.out_kernel // 2)
        self.project = nn.Conv2d(latent, width, 1) if config.project else nn.Identity()

    def forward(self, images: Float[Tensor, "b 3 y x"]) -> tuple[list[Tensor], Float[Tensor, "b d h w"]]:
        """The features of each stage but the last, fine to coarse, and the projected deepest grid."""
        x = self.conv_in((images + 1) / 2 if self.unit else images)
        stages: list[Tensor] = []
        for stage, downsample in zip(self.stages, self.downsamples, strict=False):
            x = stage(x)
            stages.append(x)
            x = downsample(x)
        x = self.middle(self.stages[-1](x))
        return stages, self.project(self.conv_out(self.norm_out.activate(x)))


class Decoder(nn.Module):
    """Decodes a grid of codes to images."""

    def __init__(self, config: ConvNetConfig, width: int) -> None:
        super().__init__()
        widths, latent = config.widths[::-1], config.latent_width or width
        attention = [config.deepest_attention] + [False] * (len(widths) - 1)
        before = [widths[max(i - 1, 0)] for i in range(len(widths))]
        blocks = config.blocks + config.decoder_extra
        upsample = DepthToSpace if config.upsample == "depth-to-space" else Upsample
        self.unit = config.value_range == "[0, 1]"
        self.project = nn.Conv2d(width, latent, 1) if config.project else nn.Identity()
        self.conv_in = nn.Conv2d(latent, widths[0], 3, padding=1)
        self.middle = _middle(widths[0], config)
        self.stages = nn.ModuleList(
            _stage(before[i], widths[i], blocks, attention[i], config) for i in range(len(widths))
        )
        self.upsamples = nn.ModuleList(upsample(channels) for channels in widths[:-1])
        adaptive = before if config.adaptive_norm else []
        self.adaptive = nn.ModuleList(CodeNorm(latent, channels, config.groups) for channels in adaptive)
        self.norm_out = Norm(widths[-1], config.groups)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, codes: Float[Tensor, "b d h w"]) -> Float[Tensor, "b 3 y x"]:
        images = self.conv_out(self.hidden(codes))
        return 2 * images - 1 if self.unit else images

    def hidden(self, codes: Float[Tensor, "b d h w"]) -> Float[Tensor, "b c y x"]:
        """What the last layer turns into images."""
        latent = self.project(codes)
        x = self.middle(self.conv_in(latent))
        for i, stage in enumerate(self.stages):
            x = stage(self.adaptive[i](x, latent) if self.adaptive else x)
            if i < len(self.upsamples):
                x = self.upsamples[i](x)
        return self.norm_out.activate(x)

    @property
    def last_weight(self) -> Tensor:
        """The weight of the last layer, at which the adaptive adversarial weight compares gradients."""
        return self.conv_out.weight


def count_parameters(module: nn.Module) -> int:
    """The number of parameters of a module, trained or frozen."""
    return sum(parameter.numel() for parameter in module.parameters())
