"""Train, evaluate, encode, decode, report and compare, as a person calls them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tavq.core import files
from tavq.core.mmap_tensors import MappedTensors
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.loader import EvaluationLoader
from tavq.data.transforms import to_uint8
from tavq.tokenizer import Tokenizer

Tavq = Callable[..., Any]
RUNS = ("plain", "aligned")


@pytest.fixture
def encoded(tavq: Tavq, home: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tokens.safetensors"
    done = tavq("encode", home / "aligned", home / "data", "--out", path)
    assert done.code == 0, done.err
    return path


@pytest.mark.parametrize("run", RUNS)
def test_evaluating_gives_the_same_metrics_everywhere(tavq: Tavq, home: Path, tmp_path: Path, run: str) -> None:
    place = tmp_path / "evaluation.json"
    done = tavq("evaluate", home / run, "--data", home / "data", "--empty-features", "--json", place)
    assert done.code == 0, done.err
    found = json.loads(place.read_text())
    assert found == json.loads((home / run / "evaluation.json").read_text())
    assert (found["images"], found["size"], found["split"], found["images_with_text"]) == (
        3,
        [32, 32],
        "test",
        3,
    )
    metrics = found["metrics"]
    assert 0 < metrics["psnr"]["value"] < 30
    assert 1 <= metrics["perplexity_deep"]["value"] <= 16
    low, high = metrics["psnr"]["interval"]
    assert low < metrics["psnr"]["value"] < high
    line = next(line for line in done.out.splitlines() if "psnr" in line)
    assert f"{metrics['psnr']['value']:.2f} dB" in line
    assert f"{low:.2f} dB – {high:.2f} dB" in line
    assert (metrics["code_text_cosine"]["value"] is None) == (run == "plain")
    assert "3 images, 3 with text" in " ".join(done.out.split())


def test_the_protocol_says_what_was_measured_and_how(tavq: Tavq, home: Path, tmp_path: Path) -> None:
    place = tmp_path / "evaluation.json"
    assert tavq("evaluate", home / "aligned", "--data", home / "data", "--json", place).code == 0
    protocol = json.loads(place.read_text())["protocol"]
    assert protocol["model"]["sha256"] == files.sha256(home / "aligned/model/model.safetensors")
    assert protocol["model"]["dtypes"] == ["float32"]
    data = protocol["data"]
    assert data["sha256"] == files.sha256(home / "data/metadata.jsonl")
    assert (data["split"], data["images_in_split"], data["first"], data["files"]) == ("test", 3, None, {"png": 3})
    # made again from the files alone
    lines = []
    for number in (13, 14, 15):
        pixels = np.asarray(Image.open(home / f"data/images/{number}.png")).transpose(2, 0, 1)
        lines.append(f"{files.sha256_bytes(pixels.tobytes())}  images/{number}.png\n")
    assert protocol["images"]["sha256"] == files.sha256_bytes("".join(lines).encode())
    assert (protocol["images"]["count"], protocol["images"]["size"]) == (3, [32, 32])
    assert protocol["text"]["sha256"] == files.sha256(home / "data/text/store.safetensors")
    assert protocol["feature_weights"].keys() == {"scenes"}
    assert {"tavq", "torch", "pillow", "numpy", "python"} <= protocol["versions"].keys()
    assert protocol["machine"]["processes"] == 1


def test_limits_and_splits(tavq: Tavq, home: Path, tmp_path: Path) -> None:
    place = tmp_path / "evaluation.json"
    common = ("--data", home / "data", "--empty-features", "--json", place)
    assert tavq("evaluate", home / "plain/model", *common, "--split", "train", "--limit", 4, "--size", 64).code == 0
    found = json.loads(place.read_text())
    assert (found["images"], found["size"], found["split"]) == (4, [64, 64], "train")


def test_encoding_gives_every_image_in_order(home: Path, encoded: Path) -> None:
    indices = files.read_tensors(encoded)["indices"]
    assert indices.shape == (16, 8, 8)
    assert indices.dtype == torch.int32
    assert 0 <= int(indices.min()) <= int(indices.max()) < 16
    metadata = MappedTensors(encoded).metadata
    assert json.loads(metadata["keys"]) == [record.file_name for record in FolderDataset(home / "data")]
    assert metadata["entries"] == "16"


def test_decoding_gives_the_models_own_reconstructions(tavq: Tavq, home: Path, encoded: Path, tmp_path: Path) -> None:
    out = tmp_path / "images"
    done = tavq("decode", home / "aligned", encoded, "--out", out)
    assert done.code == 0, done.err
    batch = next(iter(EvaluationLoader(FolderDataset(home / "data"), DataConfig(size=32), 32)))
    expected = to_uint8(Tokenizer.from_pretrained(home / "aligned").prepare()(batch.images).images)
    for key, image in zip(batch.keys, expected, strict=True):
        found = np.asarray(Image.open((out / key).with_suffix(".png")))
        assert np.array_equal(found, image.permute(1, 2, 0).numpy()), key
    assert len(list(out.rglob("*.png"))) == 16


def test_encoding_one_image_a_folder_and_a_split(tavq: Tavq, home: Path, encoded: Path, tmp_path: Path) -> None:
    whole = files.read_tensors(encoded)["indices"]
    for source, options, rows in (
        (home / "data/images/3.png", [], [3]),
        (home / "data/images", [], [0, 1, 10, 11, 12, 13, 14, 15, 2, 3, 4, 5, 6, 7, 8, 9]),  # by name
        (home / "data", ["--split", "val"], [10, 11, 12]),
    ):
        path = tmp_path / "some.safetensors"
        assert tavq("encode", home / "aligned", source, "--out", path, *options).code == 0
        assert torch.equal(files.read_tensors(path)["indices"], whole[rows])


def test_a_photograph_alone_gives_the_tokens_that_it_gives_in_a_folder(tavq: Tavq, home: Path, tmp_path: Path) -> None:
    folder, own = tmp_path / "in", tmp_path / "own.safetensors"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 300, 500, 3), dtype=np.uint8)
    for number, image in enumerate(map(Image.fromarray, pixels)):
        kind = ("JPEG", "MPO")[number % 2]
        image.save(folder / f"{number}.jpg", kind)
    assert tavq("encode", home / "plain", folder, "--out", own).code == 0
    together = files.read_tensors(own)["indices"]
    for number, expected in enumerate(together):
        assert tavq("encode", home / "plain", folder / f"{number}.jpg", "--out", own).code == 0
        assert torch.equal(files.read_tensors(own)["indices"][0], expected)


def test_images_of_one_name_do_not_overwrite_each_other(tavq: Tavq, home: Path, tmp_path: Path) -> None:
    for name in ("cat.png", "cat.bmp"):
        Image.open(home / "data/images/3.png").save(tmp_path / name)
    tokens = tmp_path / "tokens.safetensors"
    assert tavq("encode", home / "plain", tmp_path, "--out", tokens).code == 0
    assert tavq("decode", home / "plain", tokens, "--out", tmp_path / "back").code == 0
    assert sorted(path.name for path in (tmp_path / "back").glob("*.png")) == ["cat.bmp.png", "cat.png.png"]


def test_unreadable_images_are_skipped_and_named(tavq: Tavq, home: Path, image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "images/4.png").write_bytes(b"no image")
    path = tmp_path / "tokens.safetensors"
    done = tavq("encode", home / "plain", image_folder, "--out", path)
    assert done.code == 0
    assert "Skipped images/4.png" in done.err
    assert len(files.read_tensors(path)["indices"]) == 15


def test_report_and_comparison_are_pages_that_load_nothing(tavq: Tavq, home: Path, tmp_path: Path) -> None:
    report = tavq("report", home / "aligned")
    assert report.code == 0, report.err
    compare = tavq("compare", home / "plain", home / "aligned", "--out", tmp_path / "both.html")
    assert compare.code == 0, compare.err
    for done, place in ((report, home / "aligned/report.html"), (compare, tmp_path / "both.html")):
        page = place.read_text()
        assert str(place) in done.err
        assert page.lower().startswith("<!doctype html>")
        assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
        assert not re.search(r"@import|url\((?!['\"]?data:)", page)
    assert "aligned" in page
    assert "plain" in page


def test_recipes_are_listed_and_shown(tavq: Tavq, tmp_path: Path) -> None:
    listing = tavq("recipes", "--json", tmp_path / "recipes.json")
    assert listing.code == 0
    rows = {row["name"]: row for row in json.loads((tmp_path / "recipes.json").read_text())["recipes"]}
    assert all(name in listing.out for name in rows)
    paper = rows["ta-cvq-cub200"]
    assert (paper["generator"], paper["discriminator"], paper["alignment"]) == (72_141_699, 2_765_633, 3_284_224)
    assert paper["published"] == [{"metric": "fid", "value": 4.03, "source": "TA-VQ Table 1"}]
    assert "3.63 / 5.31 / 5.51" in next(line for line in listing.out.splitlines() if " vqgan-cub200 " in line)
    for name in ("vqgan-tiny", "ta-vqgan-tiny", "vqgan-flickr8k", "ta-vqgan-flickr8k"):
        assert name in listing.out
    shown = tavq("recipes", "show", "ta-vqgan-tiny")
    assert shown.code == 0
    assert "batch: 16" in shown.out  # from the recipe it extends
    assert "iterations: 50" in shown.out  # a default


def test_a_shown_recipe_is_a_recipe(tavq: Tavq, tmp_path: Path) -> None:
    shown = tavq("recipes", "show", "ta-vqgan-tiny").out
    (tmp_path / "mine.yaml").write_text(shown)
    assert tavq("recipes", "show", tmp_path / "mine.yaml").out == shown


def test_training_writes_every_resolved_setting(home: Path) -> None:
    recipe = (home / "aligned/recipe.yaml").read_text()
    assert "text_width: 384" in recipe
    assert "entries: 16" in recipe
    steps = [json.loads(line)["step"] for line in (home / "aligned/log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3]


def test_importing_counts(tavq: Tavq, tmp_path: Path) -> None:
    source = tmp_path / "published"
    (source / "Images").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "stray.jpg"):
        Image.new("RGB", (20, 16), (9, 99, 9)).save(source / "Images" / name)
    (source / "Flickr8k.token.txt").write_text("a.jpg#0\tA dog .\na.jpg#1\tA cat .\nb.jpg#0\tA cow .\n")
    for split, names in (("train", "a.jpg\n"), ("dev", "b.jpg\n"), ("test", "gone.jpg\n")):
        (source / f"Flickr_8k.{split}Images.txt").write_text(names)
    done = tavq("data", "import", "flickr8k", source, tmp_path / "out", "--json", tmp_path / "counts.json")
    assert done.code == 0, done.err
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert counts["images"] == {"train": 1, "val": 1}
    assert counts["captions"] == 3
    rows = {" ".join(cells[:-1]): cells[-1] for line in done.out.splitlines() if (cells := line.strip(" │").split())}
    assert rows["images in train │"] == "1"
    assert rows["captions │"] == "3"
    assert rows["left out: images that belong to no split │"] == "1"
    assert "2 images are in" in done.err
    assert tavq("data", "check", tmp_path / "out").code == 0
