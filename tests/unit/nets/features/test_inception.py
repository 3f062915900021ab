"""FID's network against torch-fidelity's, and what may be called FID."""

import hashlib
from pathlib import Path

import pytest
import torch
from formula_weights import checksums, random_images, weight

from tavq.core.conversion import Origin, write_converted
from tavq.core.errors import FileError, UsageError
from tavq.core.files import sha256
from tavq.nets.features import inception
from tavq.nets.features.inception import InceptionNetwork, convert_inception, inception_shapes, resized
from tavq.nets.features.loading import load_feature_network

# torch-fidelity 0.4.0, FeatureExtractorInceptionV3 with `formula_weights.weight` and `formula_weights.images` as
# bytes: `checksums` of its features '64', '192', '768', '2048' for two images of the given size.
GOLDEN = {
    (37, 53): [
        [0.5466457, -0.004685258, 0.5587473, -0.005148739],
        [0.3430296, -0.003452089, 0.34264, -0.00355849],
        [0.09112822, 0.0008283797, 0.0908551, 0.0008236584],
        [0.1932824, -0.0006940967, 0.1933325, -0.0006973436],
    ],
    (320, 410): [
        [0.6512929, 0.006416008, 0.6474326, 0.007120555],
        [0.334387, -0.004631948, 0.3239348, -0.004363608],
        [0.09011954, 0.0008218191, 0.08994026, 0.0008309731],
        [0.1950443, -0.0007349649, 0.1944345, -0.0007208186],
    ],
}
# The SHA-256 of the sorted lines "NAME SHAPE" of that network's state.
NAMES = "760681d791cb624e1bf7a2e802a68933dd17aa5e3109fcf498d9dfa521bc10d7"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pickle as the published one is: without the counters that newer versions of torch save."""
    shapes = {name: shape for name, shape in inception_shapes().items() if not name.endswith("num_batches_tracked")}
    assert len(shapes) == 94 * 5 + 2
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save({name: weight(name, shape) for name, shape in shapes.items()}, path)
    return path


@pytest.fixture(scope="module")
def converted(checkpoint: Path) -> Path:
    path = checkpoint.with_suffix(".safetensors")
    assert convert_inception(checkpoint, path) == Origin("inception", {"weights": sha256(checkpoint)})
    return path


def test_names_and_shapes_are_the_published_ones() -> None:
    lines = sorted(f"{name} {shape}" for name, shape in inception_shapes().items())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == NAMES


@pytest.mark.parametrize(("y", "x"), GOLDEN)
def test_features_are_torch_fidelitys(converted: Path, y: int, x: int) -> None:
    network = InceptionNetwork(converted)
    with torch.no_grad():
        maps = network.stages(random_images(y, x))
    assert [tuple(stage.shape[1:]) for stage in maps] == [(64, 73, 73), (192, 35, 35), (768, 17, 17), (2048, 8, 8)]
    for stage, expected in zip(maps, GOLDEN[y, x], strict=True):
        assert checksums(stage.mean(dim=(2, 3))) == pytest.approx(expected, rel=2e-5)


def test_only_the_published_weights_give_an_fid(converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = load_feature_network("inception", converted)
    assert (network.metric_name("fd"), network.metric_name("kid")) == ("fd_inception", "kid_inception")
    assert network.sha256 == sha256(converted)
    source = sha256(converted.with_suffix(".pth"))
    monkeypatch.setattr(inception, "PUBLISHED", source)
    network = load_feature_network("inception", converted)
    assert (network.metric_name("fd"), network.metric_name("kid")) == ("fid", "kid")


def test_a_wrong_file_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    tensors = torch.load(checkpoint, weights_only=True)
    torch.save({name: t for name, t in tensors.items() if name != "fc.bias"}, tmp_path / "less.pth")
    with pytest.raises(FileError, match=r"less.pth is not FID's Inception network: 'fc.bias' is missing"):
        convert_inception(tmp_path / "less.pth", tmp_path / "out")
    torch.save({**tensors, "AuxLogits.fc.bias": torch.zeros(1000)}, tmp_path / "more.pth")
    with pytest.raises(FileError, match=r"'AuxLogits.fc.bias' is missing, unexpected or of another shape"):
        convert_inception(tmp_path / "more.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write_converted(tmp_path / "x", {"Conv2d_1a_3x3.conv.weight": torch.zeros(1)}, Origin("inception"))
    with pytest.raises(FileError, match="does not hold the weights of 'inception'"):
        InceptionNetwork(tmp_path / "x")
    with pytest.raises(
        UsageError, match=r"'inception' needs the path of the file that `tavq metrics convert inception"
    ):
        load_feature_network("inception")


def test_images_are_resized_as_tensorflow_1_does() -> None:
    row = torch.tensor([0.0, 10.0, 30.0]).view(1, 1, 1, 3).expand(1, 1, 3, 3)
    # Output i of 6 reads the input at i / 2; the last place has no right neighbour but itself.
    assert resized(row, 6)[0, 0, 0].tolist() == pytest.approx([0, 5, 10, 20, 30, 30])
    # Output i of 2 reads at 1.5 i, and nothing is averaged over what lies between.
    assert resized(row, 2)[0, 0, 0].tolist() == pytest.approx([0, 20])
    images = torch.rand(1, 3, 7, 9)
    torch.testing.assert_close(resized(images[:, :, :7, :7], 7), images[:, :, :7, :7])
