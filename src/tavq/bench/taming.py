"""The arrangement of taming-transformers in plain PyTorch, as the reference that our speed is compared with.

The networks of VQ-GAN with f = 16, their quantizer and their training step, written for this comparison after Esser et
al. 2021 and the description of that code's costs: all distances in one matrix; channels first; swish as a product with
a sigmoid; a second forward pass of the generator, and of the perceptual network, in the step of the discriminator.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COMMITMENT = 0.25


def find_nearest(features: Tensor, entries: Tensor) -> Tensor:
    """The full matrix of distances, then argmin."""
    squares = features.square().sum(1, keepdim=True) + entries.square().sum(1)
    return (squares - 2 * (features @ entries.T)).argmin(1)


def quantize(grid: Tensor, entries: Tensor) -> tuple[Tensor, Tensor]:
    """Codes with a straight-through gradient, and the sum of codebook and commitment term."""
    last = grid.permute(0, 2, 3, 1).contiguous()
    features = last.view(-1, last.shape[3])
    chosen = F.embedding(find_nearest(features, entries), entries).view(last.shape)
    loss = (chosen.detach() - last).square().mean() + COMMITMENT * (chosen - last.detach()).square().mean()
    return (last + (chosen - last).detach()).permute(0, 3, 1, 2).contiguous(), loss


def quantizer_pass(grid: Tensor, slope: Tensor, entries: Tensor) -> None:
    """Forward and backward of the quantizer alone."""
    codes, loss = quantize(grid.detach().requires_grad_(), entries.detach().requires_grad_())
    torch.autograd.backward([codes, loss], [slope, None])


def norm(channels: int) -> nn.Module:
    """Group norm of 32 groups, fewer in toy networks."""
    return nn.GroupNorm(min(32, channels), channels, eps=1e-6)


def swish(x: Tensor) -> Tensor:
    """x σ(x), in two operations."""
    return x * torch.sigmoid(x)


class Residual(nn.Module):
    """Two normalised convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = norm(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Of the same sides."""
        h = self.conv2(swish(self.norm2(self.conv1(swish(self.norm1(x))))))
        return self.shortcut(x) + h


class Attention(nn.Module):
    """Self-attention of all positions by the full matrix of weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.query, self.key, self.value, self.out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Of the same shape."""
        normed = self.norm(x)
        q, k, v = (part(normed).flatten(2) for part in (self.query, self.key, self.value))
        weights = (torch.bmm(q.permute(0, 2, 1), k) * x.shape[1] ** -0.5).softmax(2)
        return x + self.out(torch.bmm(v, weights.permute(0, 2, 1)).view(x.shape))


class Down(nn.Module):
    """Half the sides: a convolution padded right and below."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Half as high and wide."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Up(nn.Module):
    """Twice the sides: nearest neighbour and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Twice as high and wide."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _middle(channels: int) -> list[nn.Module]:
    return [Residual(channels, channels), Attention(channels), Residual(channels, channels)]


def make_encoder(channels: int, multipliers: Sequence[int], blocks: int, width: int) -> nn.Sequential:
    """From images to features, with the 1 x 1 convolution before the quantizer."""
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1)]
    last = channels
    for stage, multiplier in enumerate(multipliers):
        deepest = stage == len(multipliers) - 1
        for _ in range(blocks):
            layers += [Residual(last, channels * multiplier)]
            last = channels * multiplier
            layers += [Attention(last)] if deepest else []
        layers += [] if deepest else [Down(last)]
    head = [norm(last), Swish(), nn.Conv2d(last, width, 3, padding=1), nn.Conv2d(width, width, 1)]
    return nn.Sequential(*layers, *_middle(last), *head)


def make_decoder(channels: int, multipliers: Sequence[int], blocks: int, width: int) -> nn.Sequential:
    """From codes to images; the last layer is the one of the adaptive weight."""
    last = channels * multipliers[-1]
    layers: list[nn.Module] = [nn.Conv2d(width, width, 1), nn.Conv2d(width, last, 3, padding=1), *_middle(last)]
    for stage, multiplier in reversed(list(enumerate(multipliers))):
        for _ in range(blocks + 1):
            layers += [Residual(last, channels * multiplier)]
            last = channels * multiplier
            layers += [Attention(last)] if stage == len(multipliers) - 1 else []
        layers += [Up(last)] if stage else []
    return nn.Sequential(*layers, norm(last), Swish(), nn.Conv2d(last, 3, 3, padding=1))


class Swish(nn.Module):
    """`swish` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Of the same shape."""
        return swish(x)


class Generator(nn.Module):
    """Encoder, quantizer and decoder."""

    def __init__(self, channels: int, multipliers: Sequence[int], blocks: int, entries: int, width: int) -> None:
        super().__init__()
        self.encoder = make_encoder(channels, multipliers, blocks, width)
        self.decoder = make_decoder(channels, multipliers, blocks, width)
        self.entries = nn.Parameter(torch.empty(entries, width).uniform_(-1 / entries, 1 / entries))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstructions and the loss of the codebook."""
        codes, loss = quantize(self.encoder(images), self.entries)
        return self.decoder(codes), loss

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Indices, as its `encode` gives them: after all that its quantizer computes."""
        grid = self.encoder(images)
        quantize(grid, self.entries)
        return find_nearest(grid.permute(0, 2, 3, 1).flatten(0, 2), self.entries)


def make_discriminator(channels: int, layers: int) -> nn.Sequential:
    """Patches judged by strided convolutions with batch norm."""
    parts: list[nn.Module] = [nn.Conv2d(3, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
    width = channels
    for layer in range(1, layers + 1):
        wider = channels * min(2**layer, 8)
        stride = 2 if layer < layers else 1
        parts += [nn.Conv2d(width, wider, 4, stride, 1, bias=False), nn.BatchNorm2d(wider), nn.LeakyReLU(0.2)]
        width = wider
    return nn.Sequential(*parts, nn.Conv2d(width, 1, 4, 1, 1))


class Perceptual(nn.Module):
    """Squared differences of normalised features of VGG-16 at five depths; random weights cost what learned ones do."""

    def __init__(
        self, widths: Sequence[int] = (64, 128, 256, 512, 512), depths: Sequence[int] = (2, 2, 3, 3, 3)
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        last = 3
        for width, depth in zip(widths, depths, strict=True):
            convolutions = [nn.Conv2d(last if i == 0 else width, width, 3, padding=1) for i in range(depth)]
            self.stages.append(nn.Sequential(*(part for conv in convolutions for part in (conv, nn.ReLU()))))
            last = width
        self.eval().requires_grad_(False)

    def _features(self, x: Tensor) -> list[Tensor]:
        found = []
        for i, stage in enumerate(self.stages):
            x = stage(F.max_pool2d(x, 2) if i else x)
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        """The mean distance of the batch."""
        pairs = zip(self._features(images), self._features(reference), strict=True)
        return torch.stack([(one - other).square().mean((2, 3)).sum(1).mean() for one, other in pairs]).sum()


class Step:
    """Both updates of a training step: of the generator, then of the discriminator, each with its own forward pass."""

    def __init__(self, generator: Generator, discriminator: nn.Module, perceptual: Callable[..., Tensor]) -> None:
        self.generator, self.discriminator, self.perceptual = generator, discriminator, perceptual
        betas = (0.5, 0.9)
        self.optimizers = [torch.optim.Adam(part.parameters(), 4.5e-6, betas) for part in (generator, discriminator)]

    def run(self, images: Tensor) -> None:
        """One step on a batch."""
        self._toggle(generator=True)
        fake, codebook_loss = self.generator(images)
        reconstruction = (images - fake).abs().mean() + self.perceptual(fake, images)
        adversarial = -self.discriminator(fake).mean()
        last: Any = self.generator.decoder[-1]
        slopes = [
            torch.autograd.grad(loss, last.weight, retain_graph=True)[0] for loss in (reconstruction, adversarial)
        ]
        weight = (slopes[0].norm() / (slopes[1].norm() + 1e-4)).clamp(0, 1e4).detach() * 0.8
        self._update(0, reconstruction + weight * adversarial + codebook_loss)
        self._toggle(generator=False)
        fake, _ = self.generator(images)
        self.perceptual(fake, images)  # its loss computes this before it looks which part is trained
        real, judged = self.discriminator(images), self.discriminator(fake.detach())
        self._update(1, (F.relu(1 - real).mean() + F.relu(1 + judged).mean()) / 2)

    def _toggle(self, generator: bool) -> None:
        self.generator.requires_grad_(generator)
        self.discriminator.requires_grad_(not generator)

    def _update(self, which: int, loss: Tensor) -> None:
        self.optimizers[which].zero_grad()
        loss.backward()
        self.optimizers[which].step()
