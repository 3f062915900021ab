"""The equations of VQGAN+ by hand, on a few numbers: LeCam, the blurred halving, the distance of logits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tavq.nets.discriminators import Blur, DiscriminatorConfig, LeCam, PatchDiscriminator
from tavq.nets.features.extractors import FeatureNetwork, SqueezeNet, logits_distance


def grid(*values: float) -> Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


# --- LeCam ------------------------------------------------------------------------------------------------------


def test_lecam_by_hand() -> None:
    lecam = LeCam()
    # the first step: both means are 0; real scores 3 and 1, made scores -3 and -2
    loss = lecam(grid(3.0, 1.0), grid(-3.0, -2.0))
    assert loss.item() == pytest.approx(2.0**2 + 2.5**2)
    assert lecam.real.item() == pytest.approx(0.001 * 2.0)
    assert lecam.made.item() == pytest.approx(0.001 * -2.5)
    # the second: distances to the means before it
    loss = lecam(grid(1.0), grid(0.0))
    assert loss.item() == pytest.approx((1.0 + 0.0025) ** 2 + (0.002 - 0.0) ** 2)
    assert lecam.real.item() == pytest.approx(0.999 * 0.002 + 0.001)
    assert lecam.made.item() == pytest.approx(0.999 * -0.0025)


def test_lecam_does_not_pull_scores_that_stand_wrong_way_round() -> None:
    lecam = LeCam()
    lecam.real.fill_(-1.0)
    lecam.made.fill_(1.0)
    assert lecam(grid(0.5), grid(0.0)).item() == 0.0


def test_lecam_pulls_scores_towards_the_other_sides_mean() -> None:
    lecam = LeCam()
    lecam.real.fill_(1.0)
    lecam.made.fill_(-1.0)
    real, made = grid(2.0, 0.0).requires_grad_(), grid(-3.0, -1.0).requires_grad_()
    lecam(real, made).backward()
    assert real.grad is not None
    assert made.grad is not None
    # 2 (mean - a) over two scores
    assert real.grad.flatten().tolist() == pytest.approx([2.0, 2.0])
    assert made.grad.flatten().tolist() == pytest.approx([-3.0, -3.0])
    assert not lecam.real.requires_grad


def test_lecam_over_processes_is_that_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two halves of a batch, each told the mean of both: the mean of their gradients is the whole batch's."""
    real, made = grid(2.0, 0.5, -0.4, 1.1), grid(-0.3, 0.2, -1.0, -0.5)
    whole, halves = LeCam(), (LeCam(), LeCam())
    for lecam in (whole, *halves):
        lecam.real.fill_(0.4)
        lecam.made.fill_(-0.1)
    slopes = []
    for lecam, places in ((whole, slice(0, 4)), (halves[0], slice(0, 2)), (halves[1], slice(2, 4))):
        if lecam is not whole:
            means = iter([real.mean(), made.mean()])
            monkeypatch.setattr("tavq.ops.collective.all_reduce_mean", lambda score, means=means: next(means))
        scores = [scored[..., places].clone().requires_grad_() for scored in (real, made)]
        lecam(*scores).backward()
        slopes.append([score.grad for score in scores])
        assert lecam.real.item() == pytest.approx(0.999 * 0.4 + 0.001 * 0.8)
    for one, left, right in zip(*slopes, strict=True):
        torch.testing.assert_close(torch.cat([left, right], 3) / 2, one)


# --- the discriminator ------------------------------------------------------------------------------------------


def test_the_blur_by_hand() -> None:
    """One bright pixel: the four taps of each axis that see it, (1, 3, 3, 1) / 8."""
    image = torch.zeros(1, 1, 6, 6)
    image[0, 0, 2, 3] = 64.0
    # rows 2i-1..2i+2 are seen by output row i: row 2 by i=0 (tap 3, weight 1) and i=1 (tap 1, weight 3);
    # column 3 by j=1 (tap 2, weight 3) and j=2 (tap 0, weight 1)
    expected = torch.zeros(3, 3)
    expected[0, 1], expected[0, 2], expected[1, 1], expected[1, 2] = 3.0, 1.0, 9.0, 3.0
    torch.testing.assert_close(Blur(1)(image)[0, 0], expected)


def test_the_blur_against_torchs_convolution() -> None:
    images = torch.randn(2, 3, 10, 14, generator=torch.Generator().manual_seed(0))
    row = torch.tensor([0.125, 0.375, 0.375, 0.125])
    for channel in range(3):
        plain = nn.Conv2d(1, 1, 4, stride=2, padding=1, bias=False)
        with torch.no_grad():
            plain.weight.copy_((row[:, None] * row[None, :]).view(1, 1, 4, 4))
            expected = plain(images[:, channel : channel + 1])
        torch.testing.assert_close(Blur(3)(images)[:, channel : channel + 1], expected)


def test_the_blur_keeps_what_is_even_and_removes_the_finest_pattern() -> None:
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))  # zeros stand around the maps
    assert Blur(2)(torch.ones(1, 2, 12, 12))[inside].flatten().tolist() == pytest.approx([1.0] * 32)
    board = (torch.arange(12)[:, None] + torch.arange(12)[None, :]) % 2 * 2.0 - 1
    assert Blur(1)(board.view(1, 1, 12, 12))[inside].abs().max().item() == pytest.approx(0.0, abs=1e-6)


def test_the_blurred_discriminator_has_the_published_size() -> None:
    critic = PatchDiscriminator(DiscriminatorConfig(channels=128, layers=4, norm="group", downsample="blur"))
    # 5x5 3→128; 3x3 128→128→256→512→1024; 1x1; 5x5 →1; biases everywhere; two numbers a channel in four norms
    weights = 25 * 3 * 128 + 9 * (128 * 128 + 128 * 256 + 256 * 512 + 512 * 1024) + 1024 * 1024 + 25 * 1024
    biases = 128 + (128 + 256 + 512 + 1024) + 1024 + 1
    assert sum(part.numel() for part in critic.parameters()) == weights + biases + 2 * (128 + 256 + 512 + 1024)
    assert sum(part.numel() for part in critic.parameters()) == 7_431_297


def test_the_blurred_discriminator_scores_a_grid() -> None:
    critic = PatchDiscriminator(DiscriminatorConfig(channels=8, layers=3, norm="group", downsample="blur"), seed=1)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    scores = critic(images)
    assert scores.shape == (2, 1, 4, 4)
    torch.testing.assert_close(critic(images[:1]), scores[:1])  # group norm: the batch does not matter
    again = PatchDiscriminator(DiscriminatorConfig(channels=8, layers=3, norm="group", downsample="blur"), seed=1)
    assert torch.equal(again(images), scores)
    widest = [part for part in critic.main if isinstance(part, nn.Conv2d)][3].weight
    assert widest.abs().max().item() == pytest.approx((9 * 16) ** -0.5, rel=0.01)
    assert widest.mean().item() == pytest.approx(0.0, abs=0.005)
    assert critic.smallest == 16
    assert critic(images[:, :, :16, :16]).shape == (2, 1, 2, 2)


# --- the distance of logits -------------------------------------------------------------------------------------


class Brightness(FeatureNetwork):
    """Two logits: the mean of the first channel and three times that of the second."""

    name = "brightness"
    has_classifier = True

    def stages(self, images: Tensor) -> list[Tensor]:
        return [images]

    def logits(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))[:, :2] * torch.tensor([1.0, 3.0])


def test_the_distance_of_logits_by_hand() -> None:
    one = torch.zeros(2, 3, 4, 4, requires_grad=True)
    other = torch.zeros(2, 3, 4, 4)
    other[0, 0], other[1, 1] = 1.0, 0.5
    # differences (1, 0) and (0, 1.5)
    distance = logits_distance(Brightness(), one, other)
    assert distance.item() == pytest.approx((1.0 + 2.25) / 4)
    distance.backward()
    assert one.grad is not None
    # 2 (0 - 1) / 4 over 16 pixels; 2 (0 - 1.5) / 4 times 3
    assert one.grad[0, 0].flatten().tolist() == pytest.approx([-0.5 / 16] * 16)
    assert one.grad[1, 1].flatten().tolist() == pytest.approx([-2.25 / 16] * 16)
    assert one.grad[0, 1].abs().max().item() == 0.0


def test_the_logits_of_squeezenet_are_its_last_layer(tmp_path: Path) -> None:
    """relu(conv10) averaged over positions; images resized to 227 x 227."""
    rng = np.random.default_rng(1)
    plain = SqueezeNet.__new__(SqueezeNet)
    shapes = {"conv1": (64, 3, 3), "conv10": (1000, 512, 1)}
    for number, (inputs, squeezed, expanded) in enumerate(plain.FIRES, 2):
        shapes[f"fire{number}/squeeze1x1"] = (squeezed, inputs, 1)
        shapes[f"fire{number}/expand1x1"] = (expanded, squeezed, 1)
        shapes[f"fire{number}/expand3x3"] = (expanded, squeezed, 3)
    arrays = {}
    for name, (outputs, inputs, side) in shapes.items():
        scale = (2 / (inputs * side * side)) ** 0.5
        arrays[f"{name}.weight"] = rng.standard_normal((outputs, inputs, side, side)) * scale
        arrays[f"{name}.bias"] = rng.standard_normal(outputs) * 0.1
    np.savez(tmp_path / "weights.npz", **{name: array.astype(np.float16) for name, array in arrays.items()})
    network = SqueezeNet(tmp_path / "weights.npz", classifier=True)
    images = torch.rand(2, 3, 227, 227, generator=torch.Generator().manual_seed(2)) * 2 - 1
    deepest = network.stages(images)[-1]
    weight = torch.from_numpy(arrays["conv10.weight"].astype(np.float16)).float()[:, :, 0, 0]
    bias = torch.from_numpy(arrays["conv10.bias"].astype(np.float16)).float()
    scores = torch.einsum("of,bfhw->bohw", weight, deepest) + bias.view(1, -1, 1, 1)
    torch.testing.assert_close(network.logits(images), scores.clamp(min=0).mean(dim=(2, 3)), rtol=1e-4, atol=1e-2)
    # another size gives the logits of the image resized
    small = images[:, :, :64, :64]
    resized = nn.functional.interpolate(small, (227, 227), mode="bilinear", antialias=True)
    torch.testing.assert_close(network.logits(small), network.logits(resized))
    assert logits_distance(network, small, small).item() == 0.0
