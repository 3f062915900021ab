"""LPIPS against its authors' package, and what may be called LPIPS."""

from pathlib import Path

import pytest
import torch
from formula_weights import random_images, weight

from tavq.core.errors import FileError
from tavq.core.files import sha256
from tavq.nets.features import lpips
from tavq.nets.features.extractors import perceptual_distance, perceptual_distances
from tavq.nets.features.lpips import PLANS, PUBLISHED, LpipsNetwork, convert_lpips

CHANNELS = {"vgg": (64, 128, 256, 512, 512), "alex": (64, 192, 384, 256, 256)}

# lpips 0.1.4 on torchvision's layers with `formula_weights.weight`; two images of 65 x 80 against themselves,
# mirrored and paled to 0.7, and against themselves paled to 0.95; heads by formula, then the published v0.1 heads.
GOLDEN = {
    "vgg": ([1.2695868015, 1.2635633945], [0.00166374654, 0.00148205378]),
    "alex": ([1.7572035790, 1.5466306210], [0.00024329241, 0.00015565981]),
}
WITH_HEADS = {
    "vgg": ([0.2484696507, 0.2468328178], [0.00030595454, 0.00027185597]),
    "alex": ([0.2450774312, 0.2110500932], [0.0000381680, 0.0000227895]),
}


def backbone(kind: str, folder: Path) -> Path:
    """A pickle as torchvision's, with a classifier that nothing here reads."""
    tensors = {"classifier.0.weight": torch.zeros(4, 4)}
    for number, inputs, outputs, kernel, *_ in PLANS[kind]:
        for name, shape in (("weight", (outputs, inputs, kernel, kernel)), ("bias", (outputs,))):
            tensors[f"features.{number}.{name}"] = weight(f"features.{number}.{name}", shape)
    torch.save(tensors, folder / f"{kind}-backbone.pth")
    return folder / f"{kind}-backbone.pth"


def formula_heads(kind: str, folder: Path) -> Path:
    names = {f"lin{place}.model.1.weight": (1, n, 1, 1) for place, n in enumerate(CHANNELS[kind])}
    torch.save({name: weight(name, shape) for name, shape in names.items()}, folder / f"{kind}-heads.pth")
    return folder / f"{kind}-heads.pth"


@pytest.fixture(scope="module", params=["vgg", "alex"])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path, Path]:
    """Kind, backbone, heads, converted."""
    folder = tmp_path_factory.mktemp("lpips")
    sources = backbone(request.param, folder), formula_heads(request.param, folder)
    convert_lpips(request.param, *sources, folder / "lpips.safetensors")
    return request.param, *sources, folder / "lpips.safetensors"


def check(network: LpipsNetwork, expected: tuple[list[float], list[float]]) -> None:
    images = random_images(65, 80)
    for other, values in zip((images.flip(3) * 0.7, images * 0.95), expected, strict=True):
        assert perceptual_distances(network, images, other).tolist() == pytest.approx(values, rel=2e-4)


def test_distances_are_the_authors(files: tuple[str, Path, Path, Path]) -> None:
    kind, _, _, converted = files
    network = LpipsNetwork(converted)
    check(network, GOLDEN[kind])
    assert [stage.shape[1] for stage in network.stages(random_images(32, 32))] == list(CHANNELS[kind])


def test_with_the_published_heads(files: tuple[str, Path, Path, Path], real_data: Path, tmp_path: Path) -> None:
    kind, backbone_file, _, _ = files
    heads = real_data / "perceptual" / "lpips_lin" / "v0.1" / f"{kind}.pth"
    assert sha256(heads) == PUBLISHED[kind]["heads"]
    convert_lpips(kind, backbone_file, heads, tmp_path / "out")
    check(LpipsNetwork(tmp_path / "out"), WITH_HEADS[kind])


def test_only_both_published_files_give_lpips(
    files: tuple[str, Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, backbone_file, heads, converted = files
    assert LpipsNetwork(converted).metric_name("distance") == f"perceptual_{kind}"
    both = {"backbone": sha256(backbone_file), "heads": sha256(heads)}
    for other in both:
        monkeypatch.setitem(lpips.PUBLISHED, kind, {**both, other: "0" * 64})
        assert LpipsNetwork(converted).metric_name("distance") == f"perceptual_{kind}"
    monkeypatch.setitem(lpips.PUBLISHED, kind, both)
    assert LpipsNetwork(converted).metric_name("distance") == f"lpips_{kind}"
    assert LpipsNetwork(converted).metric_name("fd") == f"fd_{kind}"


def test_as_a_loss_it_reaches_the_random_images(files: tuple[str, Path, Path, Path]) -> None:
    network = LpipsNetwork(files[3])
    flat = torch.zeros(1, 3, 32, 32, requires_grad=True)  # features of many places are nothing but biases
    perceptual_distance(network, flat, random_images(32, 32, 1)).backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()
    assert flat.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_wrong_files_are_refused(files: tuple[str, Path, Path, Path], tmp_path: Path) -> None:
    kind, backbone_file, heads, _ = files
    other = "alex" if kind == "vgg" else "vgg"
    with pytest.raises(FileError, match=r"backbone.pth is not (VGG-16|AlexNet): 'features\.\d+\.\w+' is missing"):
        convert_lpips(other, backbone_file, heads, tmp_path / "out")
    with pytest.raises(FileError, match=r"backbone.pth is not LPIPS' heads for"):
        convert_lpips(kind, backbone_file, backbone_file, tmp_path / "out")
