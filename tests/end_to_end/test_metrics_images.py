"""`tavq metrics images` and `convert` on folders of images: metrics, what they are of, one line for what is wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from formula_weights import weight

from tavq.core.files import sha256
from tavq.data.images import load_image, save_png
from tavq.nets.features.inception import inception_shapes
from tavq.nets.features.lpips import PLANS

Tavq = Callable[..., Any]


def draw(folder: Path, count: int, y: int = 48, x: int = 40, noise: int = 0, names: str = "{}.png") -> Path:
    """Gratings; `noise` is how many grey levels they are off."""
    i, j = np.mgrid[:y, :x]
    for number in range(count):
        grating = 128 + 90 * np.sin(i / (3 + number % 5) + j / (4 + number))
        image = np.stack([grating, 255 - grating, grating / 2], 2)
        image += np.random.default_rng(number).integers(-noise, noise + 1, image.shape)
        save_png(folder / names.format(number), image.clip(0, 255).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    home = tmp_path_factory.mktemp("folders")
    return draw(home / "made", 6, noise=12), draw(home / "real", 6)


def test_pairs(tavq: Tavq, folders: tuple[Path, Path], tmp_path: Path) -> None:
    made, real = folders
    out = tmp_path / "out.json"
    done = tavq("metrics", "images", made, real, "--paired", "--json", out)
    assert done.code == 0, done.err
    found = json.loads(out.read_text())
    assert found["metrics"].keys() == {"psnr", "l1", "l2", "ssim", "ms_ssim", "fd_scenes", "kid_scenes"}
    assert found["metrics"]["ms_ssim"]["value"] is None
    pairs = [(load_image(made / f"{n}.png") / 255.0, load_image(real / f"{n}.png") / 255.0) for n in range(6)]
    expected = [-10 * np.log10(((a - b) ** 2).mean()) for a, b in pairs]
    assert found["metrics"]["psnr"]["value"] == pytest.approx(np.mean(expected), abs=1e-5)
    low, high = found["metrics"]["psnr"]["interval"]
    assert min(expected) <= low <= np.mean(expected) <= high <= max(expected)
    assert found["per_image"]["3.png"]["psnr"] == pytest.approx(expected[3], abs=1e-5)
    assert found["metrics"]["fd_scenes"]["value"] > 0
    assert found["metrics"]["kid_scenes"]["standard_error"] > 0
    assert found["metrics"]["fd_scenes"]["warning"].startswith("6 images for 160 features")
    assert (found["images"]["count"], found["images"]["size"], found["images"]["resize"]) == (6, [48, 40], "none")
    assert found["feature_weights"].keys() == {"scenes"}
    assert "MS-SSIM is left out: it needs images of 176 x 176, and these are 40 x 48" in done.err
    assert "6 images of 40 x 48 against 6 of real" in done.out
    assert found["feature_weights"]["scenes"] in done.err


def test_large_images_have_ms_ssim(tavq: Tavq, tmp_path: Path) -> None:
    made, real = draw(tmp_path / "made", 2, 180, 180, noise=9), draw(tmp_path / "real", 2, 180, 180, names="{}.bmp.png")
    for path in real.iterdir():
        path.rename(path.with_name(path.name.replace(".bmp", "")))
    done = tavq("metrics", "images", made, real, "--paired", "--json", tmp_path / "out")
    assert done.code == 0, done.err
    assert 0.5 < json.loads((tmp_path / "out").read_text())["metrics"]["ms_ssim"]["value"] < 1
    assert "MS-SSIM" not in done.err


def test_sets_of_different_numbers_at_a_size(tavq: Tavq, folders: tuple[Path, Path], tmp_path: Path) -> None:
    few = draw(tmp_path / "few", 4, 64, 70, noise=30)
    done = tavq("metrics", "images", few, folders[1], "--size", 32, "--json", tmp_path / "out")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "out").read_text())
    assert found["metrics"].keys() == {"fd_scenes", "kid_scenes"}
    assert found["images"]["size"] == found["reference"]["size"] == [32, 32]
    assert found["reference"]["resize"] == "centre square, Pillow bicubic with antialias"
    assert "The sets differ in their number of images" in done.err
    done = tavq("metrics", "images", few, few, "--size", 32)
    assert "Both sets consist of the same files" in done.err


def test_saved_statistics_give_the_folders_distance(tavq: Tavq, folders: tuple[Path, Path], tmp_path: Path) -> None:
    made, real = folders
    saved = tmp_path / "real.safetensors"
    done = tavq("metrics", "images", real, "--save-statistics", saved)
    assert done.code == 0, done.err
    assert f"The statistics of 6 images are in {saved}." in done.err
    for reference, name in (((real,), "folder"), (("--reference-statistics", saved), "saved")):
        done = tavq("metrics", "images", made, *reference, "--json", tmp_path / name)
        assert done.code == 0, done.err
    folder, statistics = (json.loads((tmp_path / name).read_text()) for name in ("folder", "saved"))
    assert statistics["metrics"]["fd_scenes"] == folder["metrics"]["fd_scenes"]
    assert "kid_scenes" not in statistics["metrics"]
    assert statistics["reference"]["count"] == 6
    assert statistics["reference"]["data_sha256"] == folder["reference"]["data_sha256"]
    done = tavq("metrics", "images", made, "--reference-statistics", saved, "--size", 48)
    assert done.code == 2
    assert "the size of its images is 40 x 48, and here it is 48 x 48" in done.err


def test_splits_of_data_sets(tavq: Tavq, shared_images: Path, tmp_path: Path) -> None:
    options = ("--split", "test", "--reference-split", "train", "--json", tmp_path / "out")
    done = tavq("metrics", "images", shared_images, shared_images, *options)
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "out").read_text())
    assert (found["images"]["count"], found["reference"]["count"]) == (3, 10)
    assert found["reference"]["data"].endswith("(train)")


def test_what_does_not_fit_is_one_line(tavq: Tavq, folders: tuple[Path, Path], tmp_path: Path) -> None:
    made, real = folders
    less = draw(tmp_path / "less", 4)
    other = draw(tmp_path / "other", 6, 32, 32)
    mixed = shutil.copytree(real, tmp_path / "mixed")
    save_png(mixed / "9.png", np.zeros((50, 50, 3), np.uint8))
    broken = shutil.copytree(real, tmp_path / "broken")
    (broken / "2.png").write_bytes((real / "2.png").read_bytes()[:200])
    (tmp_path / "empty").mkdir()
    twice = shutil.copytree(real, tmp_path / "twice")
    shutil.copy(real / "0.png", twice / "0.jpeg")
    cases: list[tuple[tuple[Any, ...], int, str]] = [
        ((less, real, "--paired"), 1, "less (4 images) lacks 2 of the 6 images of"),
        ((real, less, "--paired"), 1, "lacks 2 of the 6 images of"),
        ((twice, real, "--paired"), 1, "has both '0.jpeg' and '0.png'"),
        ((other, real, "--paired"), 1, "are 32 x 32 pixels and those of"),
        ((other, real), 1, "give --size to resize all images"),
        ((mixed, real), 1, "9.png has 50 x 50 pixels and those before it 40 x 48; give --size"),
        ((broken, real), 1, "2.png: it cannot be decoded"),
        ((tmp_path / "empty", real), 2, "holds no images"),
        ((real, tmp_path / "none"), 2, "There is no folder"),
        ((real,), 2, "There is nothing to compare with"),
        ((real, "--paired", "--save-statistics", "x"), 2, "--paired needs a second folder"),
        ((real, made, "--reference-statistics", "x"), 2, "not both"),
        ((real, "--reference-statistics", real / "0.png"), 1, "is not a complete safetensors file"),
        ((real, made, "--features", "fid"), 2, "Unknown feature network 'fid'"),
        ((real, made, "--features", "inception"), 2, "'inception' needs the path of the file that `tavq metrics conv"),
        ((real, made, "--features", "scenes", "--features", "scenes"), 2, "given twice"),
    ]
    for arguments, code, message in cases:
        done = tavq("metrics", "images", *arguments)
        assert done.code == code, (arguments, done.err)
        assert message in done.err, (arguments, done.err)
        assert len([line for line in done.err.splitlines() if line.startswith("tavq: ")]) == 1
        assert "Traceback" not in done.err


@pytest.fixture(scope="module")
def lpips_sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("lpips")
    tensors, heads = {}, {}
    for number, inputs, outputs, kernel, *_ in PLANS["alex"]:
        for name, shape in (("weight", (outputs, inputs, kernel, kernel)), ("bias", (outputs,))):
            tensors[f"features.{number}.{name}"] = weight(f"features.{number}.{name}", shape)
        heads[f"lin{len(heads)}.model.1.weight"] = torch.ones(1, outputs, 1, 1)
    torch.save(tensors, folder / "alexnet.pth")
    torch.save(heads, folder / "alex.pth")
    return folder / "alexnet.pth", folder / "alex.pth"


def test_converted_networks_measure_under_their_own_names(
    tavq: Tavq, folders: tuple[Path, Path], lpips_sources: tuple[Path, Path], tmp_path: Path
) -> None:
    backbone, heads = lpips_sources
    shapes = {name: shape for name, shape in inception_shapes().items() if not name.endswith("num_batches_tracked")}
    torch.save({name: weight(name, shape) for name, shape in shapes.items()}, tmp_path / "inception.pth")
    for arguments in (
        ("inception", tmp_path / "inception.pth", "--out", tmp_path / "inception"),
        ("lpips-alex", backbone, "--heads", heads, "--out", tmp_path / "lpips"),
    ):
        done = tavq("metrics", "convert", *arguments)
        assert done.code == 0, done.err
        assert "These are not the published weights" in done.err
    features = ("--features", f"inception={tmp_path / 'inception'}", "--features", f"lpips={tmp_path / 'lpips'}")
    out = tmp_path / "out"
    done = tavq("metrics", "images", *folders, "--paired", *features, "--json", out)
    assert done.code == 0, done.err
    found = json.loads(out.read_text())
    assert found["metrics"].keys() >= {"fd_inception", "kid_inception", "perceptual_alex"}
    assert not {"fid", "kid", "lpips_alex"} & found["metrics"].keys()
    assert found["feature_weights"]["inception"] == sha256(tmp_path / "inception")
    done = tavq("metrics", "images", *folders, *features)
    assert done.code == 2
    assert "LPIPS compares images in pairs; add --paired" in done.err


def test_convert_says_what_is_wrong(tavq: Tavq, lpips_sources: tuple[Path, Path], tmp_path: Path) -> None:
    backbone, heads = lpips_sources
    (tmp_path / "text").write_text("no checkpoint")
    cases: list[tuple[tuple[Any, ...], int, str]] = [
        (("inception", backbone), 1, "is not FID's Inception network"),
        (("inception", tmp_path / "text"), 1, "is not a checkpoint of tensors alone"),
        (("inception", tmp_path / "none"), 1, "There is no file"),
        (("inception", backbone, "--heads", heads), 2, "inception does not use --heads"),
        (("lpips-alex", backbone), 2, "lpips-alex needs --heads"),
        (("lpips-vgg", backbone, "--heads", heads), 1, "is not VGG-16"),
        (("lpips-alex", backbone, "--heads", backbone), 1, "is not LPIPS' heads for alex"),
        (("resnet", backbone), 2, "resnet"),
    ]
    for arguments, code, message in cases:
        done = tavq("metrics", "convert", *arguments, "--out", tmp_path / "out")
        assert (done.code, message in done.err) == (code, True), done.err
    assert not (tmp_path / "out").exists()


def test_lpips_as_a_recipes_loss_and_in_an_evaluation(
    tavq: Tavq, lpips_sources: tuple[Path, Path], shared_images: Path, small: list[str], tmp_path: Path
) -> None:
    backbone, heads = lpips_sources
    tavq("metrics", "convert", "lpips-alex", backbone, "--heads", heads, "--out", tmp_path / "lpips")
    loss = ("--train.perceptual.network", "lpips", "--train.perceptual.weights", tmp_path / "lpips")
    data = ("--data", shared_images)
    done = tavq("train", "vqgan-tiny", *data, "--out", tmp_path / "run", *small, *loss)
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert all(line["reconstruction/perceptual"] > 0 for line in lines if "reconstruction/perceptual" in line)
    assert any("reconstruction/perceptual" in line for line in lines)
    done = tavq("evaluate", tmp_path / "run", *data, "--features", f"lpips={tmp_path / 'lpips'}")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert found["metrics"]["perceptual_alex"]["value"] > 0
    assert len(found["metrics"]["perceptual_alex"]["interval"]) == 2
    done = tavq("train", "vqgan-tiny", *data, "--out", tmp_path / "other", *small, *loss[:2])
    assert done.code == 2
    assert "'lpips' needs the path of the file that `tavq metrics convert lpips-vgg`" in done.err
