"""Data sets as people have them: a run inside the images, and a text store without the texts of a split."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Tavq = Callable[..., Any]


@pytest.mark.parametrize("place", ["run", "deep/run", "."])
def test_a_run_inside_the_images_is_resumed(
    tavq: Tavq, image_folder: Path, tmp_path: Path, small: list[str], place: str
) -> None:
    data = tmp_path / "data"
    shutil.copytree(image_folder / "images", data)
    call = ("train", "vqgan-tiny", "--data", data, "--out", data / place, *small, "--train.sample_every", 1)
    done = tavq(*call)
    assert done.code == 0, done.err
    weights = (data / place / "model/model.safetensors").read_bytes()
    shutil.rmtree(max((data / place / "checkpoints").iterdir()))
    done = tavq(*call, "--resume")
    assert done.code == 0, done.err
    assert (data / place / "model/model.safetensors").read_bytes() == weights
    provenance = json.loads((data / place / "provenance.json").read_text())
    assert provenance["images"] == len(list((image_folder / "images").iterdir()))


def without_texts_of_test(tavq: Tavq, home: Path, data: Path) -> Path:
    """The data of `home` with a store of the texts of train and val alone."""
    shutil.copytree(home / "data", data, ignore=shutil.ignore_patterns("text"))
    lines = [json.loads(line) for line in (data / "metadata.jsonl").read_text().splitlines()]
    kept = [line for line in lines if line["split"] != "test"]
    whole = (data / "metadata.jsonl").read_bytes()
    (data / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    assert tavq("text", data).code == 0
    (data / "metadata.jsonl").write_bytes(whole)
    return data


@pytest.mark.parametrize("run", ["plain", "aligned"])
def test_a_store_without_texts_of_the_split_bars_nothing(tavq: Tavq, home: Path, tmp_path: Path, run: str) -> None:
    data, place = without_texts_of_test(tavq, home, tmp_path / "data"), tmp_path / "e.json"
    done = tavq("evaluate", home / run, "--data", data, "--empty-features", "--json", place)
    assert done.code == 0, done.err
    said = " ".join(done.err.split())
    assert "contains none of the 3 images of the split 'test', so nothing about text is measured" in said
    found = json.loads(place.read_text())
    assert (found["images"], found["images_with_text"]) == (3, 0)
    assert found["metrics"]["psnr"]["value"] > 0
    plain = tmp_path / "plain.json"
    shutil.rmtree(data / "text")
    assert tavq("evaluate", home / run, "--data", data, "--empty-features", "--json", plain).code == 0
    assert json.loads(plain.read_text())["metrics"] == found["metrics"]


def test_an_alignment_that_is_not_measured_is_said(tavq: Tavq, home: Path, tmp_path: Path) -> None:
    """Also where a folder `text` is not ours."""
    data = tmp_path / "data"
    shutil.copytree(home / "data", data, ignore=shutil.ignore_patterns("text"))
    (data / "text").mkdir()
    (data / "text/000.txt").write_text("a caption")
    for run in ("aligned", "plain"):
        done = tavq("evaluate", home / run, "--data", data, "--empty-features")
        assert done.code == 0, done.err
        assert ("so the alignment is not measured" in " ".join(done.err.split())) == (run == "aligned")


def test_an_index_of_images_without_texts(tavq: Tavq, home: Path, tmp_path: Path) -> None:
    data, index = without_texts_of_test(tavq, home, tmp_path / "data"), tmp_path / "ix"
    done = tavq("search", "index", home / "aligned", "--data", data, "--split", "test", "--out", index)
    assert done.code == 0, done.err
    done = tavq("search", index, "--image", data / "images/0.png")
    assert done.code == 0, done.err
