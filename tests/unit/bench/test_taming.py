"""The reference computes what ours computes: with the same weights, the same features, images and tokens."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tavq.bench import taming
from tavq.bench.taming_gpt import TamingGPT
from tavq.nets.convnet import AttentionBlock, ConvNetConfig, Decoder, Encoder

WIDTH = 8
CONFIG = ConvNetConfig(channels=32, multipliers=(1, 2, 2), blocks=2, groups=32)


def in_order(*parts: nn.Module) -> Iterator[Tensor]:
    """All weights in the order of the forward pass, a joint projection as three."""
    for part in parts:
        for module in part.modules():
            own = list(module.parameters(recurse=False))
            if (
                isinstance(module, nn.Conv2d)
                and module.out_channels == 3 * module.in_channels
                and module.kernel_size == (1, 1)
            ):
                weights, biases = (value.chunk(3) for value in own)
                yield from (value for pair in zip(weights, biases, strict=True) for value in pair)
            else:
                yield from own


def between(stages: nn.ModuleList, changes: nn.ModuleList) -> list[nn.Module]:
    """Stages and what changes the sides between them."""
    found = []
    for i, stage in enumerate(stages):
        found += [stage, *changes[i : i + 1]]
    return found


@torch.no_grad()
def copy_weights(reference: nn.Module, parts: list[nn.Module]) -> None:
    own, theirs = list(in_order(*parts)), list(reference.parameters())
    assert [value.shape for value in own] == [value.shape for value in theirs]
    for value, other in zip(own, theirs, strict=True):
        other.copy_(value)


def randomize(module: nn.Module) -> None:
    torch.manual_seed(0)
    for value in module.parameters():
        nn.init.normal_(value, std=0.1)


@torch.no_grad()
def test_the_encoder_is_the_same_function() -> None:
    ours = Encoder(CONFIG, WIDTH)
    randomize(ours)
    reference = taming.make_encoder(32, CONFIG.multipliers, CONFIG.blocks, WIDTH)
    stages = between(ours.stages, ours.downsamples)
    copy_weights(reference, [ours.conv_in, *stages, ours.middle, ours.norm_out, ours.conv_out, ours.project])
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(reference(images), ours(images)[1], atol=1e-4, rtol=1e-4)
    assert any(isinstance(part, AttentionBlock) for part in ours.modules())


@torch.no_grad()
def test_the_decoder_is_the_same_function() -> None:
    ours = Decoder(CONFIG, WIDTH)
    randomize(ours)
    reference = taming.make_decoder(32, CONFIG.multipliers, CONFIG.blocks, WIDTH)
    stages = between(ours.stages, ours.upsamples)
    copy_weights(reference, [ours.project, ours.conv_in, ours.middle, *stages, ours.norm_out, ours.conv_out])
    codes = torch.randn(2, WIDTH, 4, 4)
    torch.testing.assert_close(reference(codes), ours(codes), atol=1e-4, rtol=1e-4)


def test_a_step_trains_both_networks() -> None:
    torch.manual_seed(0)
    generator = taming.Generator(32, (1, 2), 1, 16, WIDTH)
    discriminator = taming.make_discriminator(8, 2)
    step = taming.Step(generator, discriminator, taming.Perceptual((4, 8), (1, 1)))
    before = [[value.clone() for value in part.parameters()] for part in (generator, discriminator)]
    step.run(torch.rand(2, 3, 32, 32) * 2 - 1)
    for part, old in zip((generator, discriminator), before, strict=True):
        changed = [not torch.equal(value, was) for value, was in zip(part.parameters(), old, strict=True)]
        assert sum(changed) > 0.9 * len(changed)


@torch.no_grad()
def test_the_cache_changes_no_state() -> None:
    torch.manual_seed(0)
    model = TamingGPT(2, 16, 2, 6, 10).eval()
    x = torch.randn(1, 6, 16)
    whole = x
    for block in model.blocks:
        whole, _ = block(whole)
    past = [None, None]
    for position in range(6):
        step = x[:, position : position + 1]
        for i, block in enumerate(model.blocks):
            step, past[i] = block(step, past[i])
        torch.testing.assert_close(step, whole[:, position : position + 1], atol=1e-5, rtol=1e-4)
    assert model.sample_with_past(3).shape == (3, 6)
