"""Encoder and decoder: their geometry, and what of it is refused."""

import hashlib
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tavq.core.config import build
from tavq.core.errors import UsageError
from tavq.nets.convnet import (
    AttentionBlock,
    ConvNetConfig,
    Decoder,
    Downsample,
    Encoder,
    Norm,
    ResidualBlock,
    Upsample,
    count_parameters,
)


@pytest.mark.parametrize(
    ("multipliers", "factor", "shape"), [((1,), 1, (16, 24)), ((1, 2), 2, (8, 12)), ((1, 2, 2, 1), 8, (2, 3))]
)
@pytest.mark.parametrize("attention", ["none", "deepest", "middle", "both"])
def test_the_grid_is_a_factor_of_the_image(
    multipliers: tuple[int, ...], factor: int, shape: tuple[int, int], attention: Any
) -> None:
    config = ConvNetConfig(channels=8, multipliers=multipliers, blocks=1, attention=attention)
    stages, grid = Encoder(config, 6)(torch.zeros(2, 3, 16, 24))
    assert config.factor == factor
    assert grid.shape == (2, 6, *shape)
    assert [stage.shape[1] for stage in stages] == [8 * multiplier for multiplier in multipliers[:-1]]
    assert Decoder(config, 6)(grid).shape == (2, 3, 16, 24)


@pytest.mark.parametrize("channels", range(8, 200))
def test_every_width_has_a_norm(channels: int) -> None:
    norm = Norm(channels)
    assert channels % norm.num_groups == 0
    assert channels // norm.num_groups >= min(4, channels)


@pytest.mark.parametrize(("channels", "groups"), [(128, 32), (512, 32), (256, 32), (64, 16), (16, 4), (24, 2), (18, 2)])
def test_the_groups_of_a_norm(channels: int, groups: int) -> None:
    assert Norm(channels).num_groups == groups


@pytest.mark.parametrize("channels", [8, 9, 18, 31])
def test_odd_widths_can_be_built(channels: int) -> None:
    config = ConvNetConfig(channels=channels, multipliers=(1, 3), blocks=1)
    assert Decoder(config, 2)(Encoder(config, 2)(torch.zeros(1, 3, 4, 4))[1]).shape == (1, 3, 4, 4)


@pytest.mark.parametrize(
    "settings",
    [
        {"channels": 4},
        {"channels": 2048},
        {"channels": 10**12},
        {"multipliers": []},
        {"multipliers": [1] * 9},
        {"multipliers": [0, 1]},
        {"multipliers": [1, -1]},
        {"multipliers": [1.5]},
        {"blocks": 0},
        {"blocks": 9},
        {"attention": "deep"},
        {"attention": None},
        {"latent_width": 0},
        {"groups": 0},
        {"channels": 12, "groups": 8},
        {"project": False, "latent_width": 8},
        {"out_kernel": 2},
        {"middle_blocks": 0},
        {"decoder_extra": -1},
        {"downsample": "max"},
        {"value_range": "[0, 255]"},
    ],
)
def test_geometry_that_is_refused(settings: Any) -> None:
    with pytest.raises(UsageError, match=r"(is|are) not accepted"):
        build(ConvNetConfig, settings, "test")


def test_more_blocks_in_the_decoder_than_in_the_encoder() -> None:
    config = ConvNetConfig(channels=8, multipliers=(1, 2), blocks=2)
    for part, blocks in ((Encoder(config, 4), 2), (Decoder(config, 4), 3)):
        for stage in part.stages:
            assert sum(isinstance(layer, ResidualBlock) for layer in stage) == blocks


@pytest.mark.parametrize(
    ("attention", "places"),
    [("none", set()), ("deepest", {"deepest"}), ("middle", {"middle"}), ("both", {"deepest", "middle"})],
)
def test_where_attention_is(attention: Any, places: set[str]) -> None:
    config = ConvNetConfig(channels=8, multipliers=(1, 2), blocks=1, attention=attention)
    for part, deepest in ((Encoder(config, 4), 1), (Decoder(config, 4), 0)):
        found = [name for name, module in part.named_modules() if isinstance(module, AttentionBlock)]
        names = {"deepest": f"stages.{deepest}", "middle": "middle"}
        assert {name.rsplit(".", 1)[0] for name in found} == {names[place] for place in places}


@pytest.mark.parametrize(("switch", "place"), [(True, "both"), (False, "none")])
def test_attention_as_earlier_versions_wrote_it(switch: bool, place: str) -> None:
    assert build(ConvNetConfig, {"attention": switch}, "test") == ConvNetConfig(attention=place)  # type: ignore[arg-type]


DEFAULT_WEIGHTS = {
    "both": "1fb3a35b3f3b18bf8ce4daedf0a7dfcab99b9c39f03e758d791ce57ba7c3b70b",
    "none": "bb6aa7a325aafce78a73cd73dff45be6e08778140f6cab079a7ef557e4db7b94",
}
"""SHA-256 of the names and values of a network with seed 0, before it had the settings that the others have here."""


@pytest.mark.parametrize("attention", DEFAULT_WEIGHTS)
def test_new_settings_leave_names_and_weights_of_earlier_networks(attention: Any) -> None:
    torch.manual_seed(0)
    config = ConvNetConfig(channels=16, multipliers=(1, 2, 2), blocks=2, attention=attention)
    digest = hashlib.sha256()
    for part in (Encoder(config, 6), Decoder(config, 6)):
        for name, value in part.state_dict().items():
            digest.update(name.encode() + value.numpy().tobytes())
    assert digest.hexdigest() == DEFAULT_WEIGHTS[attention]


def test_a_latent_of_another_width_than_the_code() -> None:
    config = ConvNetConfig(channels=8, multipliers=(1, 2), blocks=1, latent_width=12)
    encoder, decoder = Encoder(config, 3), Decoder(config, 3)
    shapes = [tuple(part.weight.shape[:2]) for part in (encoder.conv_out, encoder.project)]
    assert shapes == [(12, 16), (3, 12)]
    shapes = [tuple(part.weight.shape[:2]) for part in (decoder.project, decoder.conv_in)]
    assert shapes == [(12, 3), (16, 12)]
    assert decoder(encoder(torch.zeros(1, 3, 4, 6))[1]).shape == (1, 3, 4, 6)


@pytest.mark.parametrize(
    "settings",
    [
        {"downsample": "symmetric"}, {"downsample": "average"}, {"upsample": "depth-to-space"}, {"adaptive_norm": True},
        {"bias": False, "shortcut": "output"}, {"project": False, "out_kernel": 1}, {"value_range": "[0, 1]"},
        {"middle_blocks": 1, "decoder_extra": 0}, {"middle_blocks": 3, "attention": "none", "decoder_extra": 2},
    ],
)  # fmt: skip
def test_every_switch_changes_the_network_and_not_its_shapes(settings: dict[str, Any]) -> None:
    images = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    results = []
    for switches in ({}, settings):
        torch.manual_seed(0)
        config = ConvNetConfig(channels=8, multipliers=(1, 2, 2), blocks=1, **switches)
        encoder, decoder = Encoder(config, 6), Decoder(config, 6)
        results.append(decoder(encoder(images)[1]))
    assert results[0].shape == results[1].shape == (2, 3, 8, 12)
    assert not torch.allclose(*results)
    results[1].sum().backward()
    for part in (encoder, decoder):
        assert all(value.grad is not None for value in part.parameters())


def test_pixels_of_another_range() -> None:
    """Black is 0 for the encoder, and a decoder's 1 is white."""
    config = ConvNetConfig(channels=8, multipliers=(1, 2), blocks=1, value_range="[0, 1]", bias=False)
    encoder, decoder = Encoder(config, 4), Decoder(config, 4)
    seen: list[torch.Tensor] = []
    encoder.conv_in.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder(torch.tensor([-1.0, 0.0, 1.0, -0.5]).view(1, 1, 2, 2).expand(1, 3, 2, 2))
    assert seen[0][0, 0].flatten().tolist() == [0.0, 0.5, 1.0, 0.25]
    with torch.no_grad():
        for value in decoder.conv_out.parameters():
            value.fill_(0)
        decoder.conv_out.bias.fill_(1)
    assert decoder(torch.zeros(1, 4, 2, 2)).eq(1).all()


def test_one_position_has_codes_without_spread() -> None:
    config = ConvNetConfig(channels=8, multipliers=(1, 2), blocks=1, adaptive_norm=True)
    assert Decoder(config, 4)(torch.randn(1, 4, 1, 1)).isfinite().all()


def test_groups_of_every_norm() -> None:
    config = ConvNetConfig(channels=8, multipliers=(1, 2), blocks=1, groups=8)
    for part in (Encoder(config, 4), Decoder(config, 4)):
        assert {module.num_groups for module in part.modules() if isinstance(module, Norm)} == {8}


def test_the_padding_of_a_downsample_is_right_and_below() -> None:
    """With a kernel that takes its first tap, output (i, j) is input (2i, 2j)."""
    layer = Downsample(1)
    with torch.no_grad():
        layer.conv.weight.zero_()
        layer.conv.weight[0, 0, 0, 0] = 1
        layer.conv.bias.zero_()  # type: ignore[union-attr]
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert layer(x)[0, 0].tolist() == [[0.0, 2.0], [8.0, 10.0]]


def test_an_upsample_repeats() -> None:
    layer = Upsample(1)
    with torch.no_grad():
        layer.conv.weight.zero_()
        layer.conv.weight[0, 0, 1, 1] = 1
        layer.conv.bias.zero_()  # type: ignore[union-attr]
    assert layer(torch.tensor([[[[1.0, 2.0]]]]))[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]


def test_attention_is_softmax_of_scaled_products() -> None:
    torch.manual_seed(0)
    block = AttentionBlock(4).double()
    x = torch.randn(1, 4, 2, 3, dtype=torch.float64)
    rows = block.norm(x)[0].flatten(1).T  # six positions of four channels
    weight, bias = block.query_key_value.weight[:, :, 0, 0], block.query_key_value.bias
    query, key, value = (rows @ weight.T + bias).split(4, dim=1)
    mixed = torch.softmax(query @ key.T / 2, dim=1) @ value
    out = mixed @ block.out.weight[:, :, 0, 0].T + block.out.bias
    torch.testing.assert_close(block(x), x + out.T.view(1, 4, 2, 3))


def test_a_residual_block_of_zeros_is_its_shortcut() -> None:
    block = ResidualBlock(8, 8, ConvNetConfig())
    torch.nn.init.zeros_(block.conv2.weight)
    torch.nn.init.zeros_(block.conv2.bias)  # type: ignore[arg-type]
    x = torch.randn(1, 8, 3, 3)
    assert torch.equal(block(x), x)
    wider = ResidualBlock(8, 16, ConvNetConfig())
    assert isinstance(wider.shortcut, torch.nn.Conv2d)


def test_frozen_parameters_are_counted_too() -> None:
    layer = torch.nn.Linear(3, 2)
    assert count_parameters(layer) == 8
    layer.bias.requires_grad_(False)
    assert count_parameters(layer) == 8


def test_the_last_weight_is_that_of_the_images() -> None:
    decoder = Decoder(ConvNetConfig(channels=8, multipliers=(1, 2), blocks=1), 4)
    images = decoder(torch.randn(1, 4, 2, 2))
    assert decoder.last_weight.shape == (3, 8, 3, 3)
    assert torch.autograd.grad(images.sum(), decoder.last_weight)[0].ne(0).any()


class _Largest(TorchDispatchMode):
    """Remembers the most numbers that one operation gave."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        sizes = [value.numel() for value in tree_leaves(out) if isinstance(value, torch.Tensor)]
        self.numbers = max([self.numbers, *sizes])
        return out


@pytest.mark.parametrize("trained", [False, True])
def test_attention_holds_no_number_for_each_pair_of_positions(trained: bool) -> None:
    block, x = AttentionBlock(8), torch.randn(2, 8, 24, 24, requires_grad=trained)
    with _Largest() as largest, torch.set_grad_enabled(trained):
        y = block(x)
        if trained:
            y.sum().backward()
    assert largest.numbers == 3 * x.numel() < 24**4  # queries, keys and values
    query, key, value = block.query_key_value(block.norm(x)).flatten(2).chunk(3, dim=1)
    weights = (query.mT @ key / 8**0.5).softmax(2)
    torch.testing.assert_close(y, x + block.out((value @ weights.mT).view(x.shape)))
