"""Small twins of published tokenizers whose blocks have no biases: MaskGIT-VQ and Open-MAGVIT2.

Written from the layouts, for tests; none of their code is here.
"""

import torch
import torch.nn.functional as F
from published_tokenizers import norm, randomize, swish
from torch import Tensor, nn

WIDTHS = (32, 64, 64)


class Block(nn.Module):
    """A residual block; MaskGIT's shortcut reads what its last convolution gives."""

    def __init__(self, channels: int, out: int, maskgit: bool) -> None:
        super().__init__()
        self.maskgit = maskgit
        self.norm1, self.conv1 = norm(channels), nn.Conv2d(channels, out, 3, 1, 1, bias=False)
        self.norm2, self.conv2 = norm(out), nn.Conv2d(out, out, 3, 1, 1, bias=False)
        if channels != out:
            self.nin_shortcut = nn.Conv2d(out if maskgit else channels, out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(swish(self.norm2(self.conv1(swish(self.norm1(x))))))
        if not hasattr(self, "nin_shortcut"):
            return x + y
        return y + self.nin_shortcut(y if self.maskgit else x)


class AdaptiveNorm(nn.Module):
    def __init__(self, code: int, channels: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Linear(code, channels), nn.Linear(code, channels)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        count = z[0, 0].numel()
        mean = z.mean((2, 3))
        variance = (z - mean[:, :, None, None]).square().sum((2, 3)) / (count - 1)
        groups = x.unflatten(1, (32, -1))
        centred = groups - groups.mean((2, 3, 4), keepdim=True)
        normed = (centred / (centred.square().mean((2, 3, 4), keepdim=True) + 1e-6).sqrt()).flatten(1, 2)
        scale, shift = self.gamma((variance + 1e-6).sqrt()), self.beta(mean)
        return normed * scale[:, :, None, None] + shift[:, :, None, None]


def blocks(channels: int, out: int, count: int, maskgit: bool) -> nn.ModuleList:
    return nn.ModuleList(Block(channels if i == 0 else out, out, maskgit) for i in range(count))


class Encoder(nn.Module):
    def __init__(self, latent: int, count: int, maskgit: bool) -> None:
        super().__init__()
        self.maskgit = maskgit
        self.conv_in = nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False)
        self.down = nn.ModuleList()
        for i, width in enumerate(WIDTHS):
            stage = nn.Module()
            stage.block = blocks(WIDTHS[max(i - 1, 0)], width, count, maskgit)
            if not maskgit and i < len(WIDTHS) - 1:
                stage.downsample = nn.Conv2d(width, width, 3, 2, 1)
            self.down.append(stage)
        self.add_module("mid" if maskgit else "mid_block", blocks(WIDTHS[-1], WIDTHS[-1], count, maskgit))
        self.norm_out, self.conv_out = norm(WIDTHS[-1]), nn.Conv2d(WIDTHS[-1], latent, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for i, stage in enumerate(self.down):
            for block in stage.block:
                x = block(x)
            if i < len(WIDTHS) - 1:
                x = x.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5)) if self.maskgit else stage.downsample(x)
        for block in self.mid if self.maskgit else self.mid_block:
            x = block(x)
        return self.conv_out(swish(self.norm_out(x)))


class Decoder(nn.Module):
    def __init__(self, latent: int, count: int, maskgit: bool) -> None:
        super().__init__()
        self.maskgit = maskgit
        last = len(WIDTHS) - 1
        self.conv_in = nn.Conv2d(latent, WIDTHS[-1], 3, 1, 1)
        self.add_module("mid" if maskgit else "mid_block", blocks(WIDTHS[-1], WIDTHS[-1], count, maskgit))
        self.up = nn.ModuleList()
        for i, width in enumerate(WIDTHS):
            stage = nn.Module()
            stage.block = blocks(WIDTHS[min(i + 1, last)], width, count, maskgit)
            if i > 0 and maskgit:
                stage.upsample_conv = nn.Conv2d(width, width, 3, 1, 1)
            elif i > 0:
                stage.upsample = nn.Module()
                stage.upsample.conv1 = nn.Conv2d(width, 4 * width, 3, 1, 1)
            self.up.append(stage)
        if not maskgit:
            self.adaptive = nn.ModuleList(AdaptiveNorm(latent, WIDTHS[min(i + 1, last)]) for i in range(last + 1))
        self.norm_out, self.conv_out = norm(WIDTHS[0]), nn.Conv2d(WIDTHS[0], 3, 3, 1, 1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.conv_in(z)
        for block in self.mid if self.maskgit else self.mid_block:
            x = block(x)
        for i in reversed(range(len(WIDTHS))):
            x = x if self.maskgit else self.adaptive[i](x, z)
            for block in self.up[i].block:
                x = block(x)
            if i > 0 and self.maskgit:
                x = self.up[i].upsample_conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3))
            elif i > 0:
                x = spread(self.up[i].upsample.conv1(x))
        return self.conv_out(swish(self.norm_out(x)))


def spread(x: Tensor) -> Tensor:
    """The first quarter of the channels goes to the top left of 2 x 2 positions, then top right, bottom left, right."""
    quarters = x.chunk(4, dim=1)
    rows = [torch.stack(pair, dim=4).flatten(3) for pair in (quarters[:2], quarters[2:])]
    return torch.stack(rows, dim=3).flatten(2, 3)


class MaskGITTwin(nn.Module):
    """MaskGIT-VQ: pixels in [0, 1]."""

    def __init__(self, entries: int = 24, width: int = 6) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(width, 2, True), Decoder(width, 2, True)
        self.quantize = nn.Module()
        self.quantize.embedding = nn.Embedding(entries, width)
        randomize(self)

    def features(self, images: Tensor) -> Tensor:
        return self.encoder(images / 2 + 0.5)

    def scores(self, images: Tensor) -> Tensor:
        table = self.quantize.embedding.weight[None, :, :, None, None]
        return (self.features(images)[:, None] - table).square().sum(2)

    def decode(self, indices: Tensor) -> Tensor:
        return self.decoder(F.embedding(indices, self.quantize.embedding.weight).permute(0, 3, 1, 2)) * 2 - 1


class MAGVIT2Twin(nn.Module):
    """Open-MAGVIT2: an index is a binary number of the signs of the channels, the first channel its lowest digit."""

    def __init__(self, bits: int = 5) -> None:
        super().__init__()
        self.bits = bits
        self.encoder, self.decoder = Encoder(bits, 3, False), Decoder(bits, 3, False)
        randomize(self)

    def features(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def corners(self) -> Tensor:
        return torch.tensor(
            [[1.0 if index >> bit & 1 else -1.0 for bit in range(self.bits)] for index in range(2**self.bits)]
        )

    def scores(self, images: Tensor) -> Tensor:
        return (self.features(images)[:, None] - self.corners()[None, :, :, None, None]).square().sum(2)

    def decode(self, indices: Tensor) -> Tensor:
        return self.decoder(self.corners()[indices].permute(0, 3, 1, 2))
