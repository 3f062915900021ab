"""Small twins of the tokenizers that other projects publish: the names of their tensors, and what they compute.

Written from the layouts, for tests; none of their code is here. Weights are random, and so are those of norms.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 32
WIDTHS = (32, 32, 64)


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights with which features neither vanish nor explode, and norms that are not the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if value.ndim == 1 and name.endswith("weight"):
                value.copy_(1 + 0.3 * noise)
            else:
                value.copy_(noise * (0.2 if value.ndim == 1 else value[0].numel() ** -0.5))
    return model.eval()


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


class Block(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(channels), nn.Conv2d(channels, out, 3, 1, 1)
        self.norm2, self.conv2 = norm(out), nn.Conv2d(out, out, 3, 1, 1)
        if channels != out:
            self.nin_shortcut = nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(swish(self.norm2(self.conv1(swish(self.norm1(x))))))
        return y + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (part(y).flatten(2) for part in (self.q, self.k, self.v))
        weights = torch.softmax(torch.einsum("bcq,bck->bqk", q, k) * x.shape[1] ** -0.5, dim=-1)
        return x + self.proj_out(torch.einsum("bqk,bck->bcq", weights, v).view_as(x))


class Resample(nn.Module):
    def __init__(self, channels: int, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(channels, channels, 3, 1 if up else 2, 1 if up else 0)

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            return self.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3))
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Stage(nn.Module):
    """A stage whose blocks are called `block` (taming) or `res` (LlamaGen)."""

    def __init__(self, blocks: str, channels: int, out: int, count: int, attention: bool) -> None:
        super().__init__()
        self.blocks = blocks
        self.add_module(blocks, nn.ModuleList(Block(channels if i == 0 else out, out) for i in range(count)))
        self.attn = nn.ModuleList(Attention(out) for _ in range(count if attention else 0))

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(getattr(self, self.blocks)):
            x = block(x)
            x = self.attn[i](x) if len(self.attn) else x
        for name in ("downsample", "upsample"):
            x = getattr(self, name)(x) if hasattr(self, name) else x
        return x


class TamingMiddle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1, self.attn_1, self.block_2 = (
            Block(channels, channels),
            Attention(channels),
            Block(channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


def middle(channels: int, llamagen: bool) -> nn.Module:
    if not llamagen:
        return TamingMiddle(channels)
    return nn.Sequential(Block(channels, channels), Attention(channels), Block(channels, channels))


class Encoder(nn.Module):
    def __init__(self, latent: int, attention: bool, llamagen: bool, blocks: int) -> None:
        super().__init__()
        last = len(WIDTHS) - 1
        self.conv_in = nn.Conv2d(3, WIDTHS[0], 3, 1, 1)
        name = "res" if llamagen else "block"
        stages = nn.ModuleList(
            Stage(name, WIDTHS[max(i - 1, 0)], WIDTHS[i], blocks, attention and i == last) for i in range(last + 1)
        )
        for i in range(last):
            stages[i].downsample = Resample(WIDTHS[i], up=False)
        self.llamagen = llamagen
        self.add_module("conv_blocks" if llamagen else "down", stages)
        self.mid = middle(WIDTHS[-1], llamagen)
        self.norm_out, self.conv_out = norm(WIDTHS[-1]), nn.Conv2d(WIDTHS[-1], latent, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for stage in self.conv_blocks if self.llamagen else self.down:
            x = stage(x)
        return self.conv_out(swish(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    def __init__(self, latent: int, attention: bool, llamagen: bool, blocks: int) -> None:
        super().__init__()
        last = len(WIDTHS) - 1
        self.conv_in = nn.Conv2d(latent, WIDTHS[-1], 3, 1, 1)
        name = "res" if llamagen else "block"
        coarse_first = []
        for i in reversed(range(last + 1)):
            stage = Stage(name, WIDTHS[min(i + 1, last)], WIDTHS[i], blocks + 1, attention and i == last)
            if i > 0:
                stage.upsample = Resample(WIDTHS[i], up=True)
            coarse_first.append(stage)
        self.llamagen = llamagen
        if llamagen:
            self.conv_blocks = nn.ModuleList(coarse_first)
        else:
            self.up = nn.ModuleList(coarse_first[::-1])
        self.mid = middle(WIDTHS[-1], llamagen)
        self.norm_out, self.conv_out = norm(WIDTHS[0]), nn.Conv2d(WIDTHS[0], 3, 3, 1, 1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(z))
        for stage in self.conv_blocks if self.llamagen else reversed(self.up):
            x = stage(x)
        return self.conv_out(swish(self.norm_out(x)))


class Twin(nn.Module):
    """A published tokenizer.

    Args:
        kind: taming, gumbel, ibq or llamagen.
        entries, width: of the codebook.
        latent: channels of the latent.
        attention: in the deepest stage too.
        blocks: residual blocks a stage.
    """

    def __init__(
        self, kind: str, entries: int = 24, width: int = 6, latent: int = 6, attention: bool = True, blocks: int = 2
    ) -> None:
        super().__init__()
        self.kind = kind
        self.encoder = Encoder(latent, attention, kind == "llamagen", blocks)
        self.decoder = Decoder(latent, attention, kind == "llamagen", blocks)
        self.quant_conv, self.post_quant_conv = nn.Conv2d(latent, width, 1), nn.Conv2d(width, latent, 1)
        self.quantize = nn.Module()
        table = nn.Embedding(entries, width)
        if kind == "gumbel":
            self.quantize.proj, self.quantize.embed = nn.Conv2d(width, entries, 1), table
        else:
            self.quantize.embedding = table
        if kind == "llamagen":
            self.quantize.register_buffer("codebook_used", torch.zeros(11))
        randomize(self)

    @property
    def table(self) -> Tensor:
        table = self.quantize.embed if self.kind == "gumbel" else self.quantize.embedding
        return F.normalize(table.weight, dim=1) if self.kind == "llamagen" else table.weight

    def features(self, images: Tensor) -> Tensor:
        """Before they are normalized, where they are."""
        return self.quant_conv(self.encoder(images))

    def scores(self, images: Tensor) -> Tensor:
        """Of each entry at each position, the lowest for the entry that is chosen: [b k h w]."""
        z = self.features(images)
        if self.kind == "gumbel":
            return -self.quantize.proj(z)
        if self.kind == "ibq":
            return -torch.einsum("bdhw,kd->bkhw", z, self.table)
        z = F.normalize(z, dim=1) if self.kind == "llamagen" else z
        return (z[:, None] - self.table[None, :, :, None, None]).square().sum(2)

    def decode(self, indices: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(self.table[indices].permute(0, 3, 1, 2)))
