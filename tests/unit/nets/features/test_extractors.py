"""Feature networks: architecture against plain layers, preprocessing, files, and the perceptual distance."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from tavq.core.errors import FileError, UsageError
from tavq.core.files import sha256, write_tensors
from tavq.nets.features.extractors import (
    FeatureNetwork,
    ScenesNetwork,
    SqueezeNet,
    perceptual_distance,
    scenes_layers,
    unit_stages,
)
from tavq.nets.features.loading import load_feature_network


@pytest.fixture(scope="module")
def squeezenet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights under the names and shapes of the Caffe release."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}

    def convolution(name: str, outputs: int, inputs: int, side: int) -> None:
        scale = (2 / (inputs * side * side)) ** 0.5
        arrays[f"{name}.weight"] = (rng.standard_normal((outputs, inputs, side, side)) * scale).astype(np.float16)
        arrays[f"{name}.bias"] = (rng.standard_normal(outputs) * 0.1).astype(np.float16)

    convolution("conv1", 64, 3, 3)
    inputs = 64
    for number, (squeezed, expanded) in enumerate(
        [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)], 2
    ):
        convolution(f"fire{number}/squeeze1x1", squeezed, inputs, 1)
        convolution(f"fire{number}/expand1x1", expanded, squeezed, 1)
        convolution(f"fire{number}/expand3x3", expanded, squeezed, 3)
        inputs = 2 * expanded
    convolution("conv10", 1000, 512, 1)
    path = tmp_path_factory.mktemp("weights") / "squeezenet.npz"
    np.savez(path, **arrays)
    return path


def by_plain_layers(arrays: dict[str, np.ndarray], images: Tensor) -> list[Tensor]:
    """SqueezeNet 1.1 written out layer by layer on Caffe's input."""
    weights = {name: torch.from_numpy(array).float() for name, array in arrays.items()}

    def convolution(name: str, features: Tensor, **options: int) -> Tensor:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return torch.conv2d(features, weight, bias, **options).clamp(min=0)

    def fire(number: int, features: Tensor) -> Tensor:
        squeezed = convolution(f"fire{number}/squeeze1x1", features)
        left = convolution(f"fire{number}/expand1x1", squeezed)
        return torch.cat([left, convolution(f"fire{number}/expand3x3", squeezed, padding=1)], 1)

    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    red, green, blue = ((images + 1) * 127.5).unbind(1)
    caffe = torch.stack([blue - 103.9, green - 116.8, red - 123.7], 1)
    conv1 = convolution("conv1", caffe, stride=2)
    fire3 = fire(3, fire(2, pool(conv1)))
    fire5 = fire(5, fire(4, pool(fire3)))
    fire9 = fire(9, fire(8, fire(7, fire(6, pool(fire5)))))
    return [conv1, fire3, fire5, fire9]


def random_images(count: int, size: int, seed: int = 0) -> Tensor:
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return interpolate(coarse, (size, size), mode="bilinear")


def test_squeezenet_is_its_layers(squeezenet_file: Path) -> None:
    network = SqueezeNet(squeezenet_file)
    images = random_images(2, 67)
    expected = by_plain_layers(dict(np.load(squeezenet_file)), images)
    stages = network.stages(images)
    assert [tuple(stage.shape[1:]) for stage in stages] == [(64, 33, 33), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    for stage, plain in zip(stages, expected, strict=True):
        torch.testing.assert_close(stage, plain, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(network(images), expected[-1].mean(dim=(2, 3)), rtol=1e-4, atol=1e-3)
    assert network(images).shape == (2, network.width)
    assert network.sha256 == sha256(squeezenet_file)


def test_a_file_of_other_arrays_is_refused(squeezenet_file: Path, tmp_path: Path) -> None:
    arrays = dict(np.load(squeezenet_file))
    arrays.pop("fire5/expand3x3.bias")
    np.savez(tmp_path / "less.npz", **arrays)
    with pytest.raises(FileError, match=r"does not hold the weights of 'squeezenet': 'fire5.expand3x3.bias'"):
        SqueezeNet(tmp_path / "less.npz")
    with pytest.raises(FileError, match=r"Could not read|not a readable"):
        SqueezeNet(tmp_path / "none.npz")


def test_only_a_network_with_a_classifier_gives_logits(squeezenet_file: Path) -> None:
    assert load_feature_network("squeezenet", squeezenet_file, classifier=True).logits(random_images(1, 32)).shape == (
        1,
        1000,
    )
    assert not hasattr(load_feature_network("squeezenet", squeezenet_file), "conv10")
    with pytest.raises(UsageError, match="'scenes' has no classifier and so no logits; networks with one: squeezenet"):
        load_feature_network("scenes", classifier=True)


def test_a_file_without_the_classifier_serves_features_alone(squeezenet_file: Path, tmp_path: Path) -> None:
    arrays = {name: array for name, array in np.load(squeezenet_file).items() if not name.startswith("conv10")}
    np.savez(tmp_path / "headless.npz", **arrays)
    assert SqueezeNet(tmp_path / "headless.npz")(random_images(1, 32)).shape == (1, 512)
    with pytest.raises(FileError, match=r"does not hold the weights of 'squeezenet': 'conv10.bias'"):
        SqueezeNet(tmp_path / "headless.npz", classifier=True)


@pytest.fixture(scope="module")
def scenes_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the scenes network."""
    generator = torch.Generator().manual_seed(0)
    tensors = OrderedDict()
    for position, (inputs, outputs, _) in enumerate(scenes_layers()):
        scale = (2 / (9 * inputs)) ** 0.5
        tensors[f"convolutions.{position}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=generator) * scale
        tensors[f"convolutions.{position}.bias"] = torch.zeros(outputs)
    path = tmp_path_factory.mktemp("weights") / "scenes.safetensors"
    write_tensors(path, tensors)
    return path


@pytest.fixture(params=["scenes", "squeezenet"])
def network(request: pytest.FixtureRequest) -> nn.Module:
    return load_feature_network(request.param, request.getfixturevalue(f"{request.param}_file"))


@pytest.mark.parametrize(("y", "x"), [(32, 32), (33, 47), (64, 96)])
def test_any_size_from_32_has_finite_features(network: nn.Module, y: int, x: int) -> None:
    features = network(random_images(2, 96)[:, :, :y, :x])
    assert features.shape == (2, network.width)
    assert features.isfinite().all()


def test_smaller_images_are_refused(network: nn.Module) -> None:
    with pytest.raises(UsageError, match="at least 32 x 32; got 64 x 31"):
        network(torch.zeros(1, 3, 31, 64))


def test_networks_are_frozen_and_gradients_reach_random_images(network: nn.Module) -> None:
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    images = random_images(2, 64).requires_grad_()
    perceptual_distance(network, images, random_images(2, 64, seed=1)).backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert images.grad.isfinite().all()


def test_perceptual_distance_is_a_distance_and_takes_stages_made_before(network: nn.Module) -> None:
    a, b = random_images(2, 64), random_images(2, 64, seed=1)
    distance = perceptual_distance(network, a, b)
    assert 0 < distance < 2
    assert perceptual_distance(network, a, a) == 0
    torch.testing.assert_close(distance, perceptual_distance(network, b, a))
    torch.testing.assert_close(distance, perceptual_distance(network, a, unit_stages(network, b)))
    nearer = perceptual_distance(network, a, 0.9 * a + 0.1 * b)
    assert nearer < distance


def test_perceptual_distance_by_hand() -> None:
    class Two(FeatureNetwork):
        def stages(self, images: Tensor) -> list[Tensor]:
            return [images[:, :2], images[:, 1:]]

    one = torch.tensor([2.0, 0.0, 0.0]).view(1, 3, 1, 1)  # unit stages (1, 0) and (0, 0)
    other = torch.tensor([0.0, 3.0, 4.0]).view(1, 3, 1, 1)  # unit stages (0, 1) and (0.6, 0.8)
    two = Two()
    assert perceptual_distance(two, one, other).item() == pytest.approx((2 + 1) / 2)


def test_names() -> None:
    with pytest.raises(UsageError, match=r"Unknown feature network 'squeezenett'.*Did you mean 'squeezenet'"):
        load_feature_network("squeezenett")
    with pytest.raises(UsageError, match=r"needs the path of its \.npz file"):
        load_feature_network("squeezenet")


def test_the_shipped_scenes_network_is_small_and_alive() -> None:
    network = load_feature_network("scenes")
    assert isinstance(network, ScenesNetwork)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert 300_000 < count < 800_000
    features = network(random_images(8, 64))
    assert features.isfinite().all()
    assert features.std(dim=0).max() > 1e-3


def test_squeezenet_distinguishes_photographs(real_data: Path) -> None:
    import tarfile

    from PIL import Image

    archive = next((real_data / "flickr8k").glob("images_128.tar"))
    photographs = []
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and member.name.endswith(".jpg"):
                image = Image.open(tar.extractfile(member)).convert("RGB").resize((128, 128))
                photographs.append(torch.from_numpy(np.array(image)).permute(2, 0, 1) / 127.5 - 1)
            if len(photographs) == 16:
                break
    images = torch.stack(photographs)
    network = SqueezeNet(real_data / "perceptual" / "squeezenet1_1_caffe_fp16.npz")
    left, right = network(images[:, :, :112, :112]), network(images[:, :, 16:, 16:])
    distances = torch.cdist(left, right)
    assert (distances.argmin(dim=1) == torch.arange(16)).float().mean() >= 0.9
