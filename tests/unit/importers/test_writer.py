"""What may enter a folder data set, and what is counted at the door."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from published import jpeg, png

from tavq.core.errors import DataError
from tavq.data.folder import FolderDataset, check_dataset
from tavq.data.images import load_segmentation
from tavq.data.records import NamedBox, Record
from tavq.importers.writer import create_dataset


def test_only_usable_data_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    boxes = (
        (0.0, 0.0, 16.0, 12.0), (-0.4, 0.0, 16.9, 5.0), (-5.0, 2.0, 10.0, 20.0), (20.0, 0.0, 3.0, 3.0),
        (0.0, 0.0, 0.0, 3.0),
    )  # fmt: skip
    objects = tuple(NamedBox(box, "dog") for box in boxes)
    with create_dataset(out) as writer:
        assert writer.add(Record("images/a.jpg", captions=("A dog", "bad\x00"), objects=objects), jpeg(1))
        assert not writer.add(Record("images/a.jpg"), jpeg(2))
        assert not writer.add(Record("images/cut.jpg"), jpeg(3)[:200])
        assert not writer.add(Record("images/not.jpg"), b"<html>")
        summary = writer.finish({0: "sky"})
    assert summary.images == {"train": 1}
    assert summary.captions == 2
    assert summary.left_out == {
        "images with a repeated name": 1,
        "images that cannot be read": 2,
        "fields that cannot be used": 1,  # the box without area
        "boxes outside their image": 1,
        "parts of boxes beyond the edge of their image": 1,
    }
    kept = FolderDataset(out)[0]
    assert kept.captions == ("A dog", "bad")
    assert [thing.box for thing in kept.objects] == [boxes[0], boxes[1], (0, 2, 5, 10)]
    assert (out / "images/a.jpg").read_bytes() == jpeg(1)
    assert [path.name for path in (out / "images").iterdir()] == ["a.jpg"]
    assert not (out / "segmentation_classes.json").exists()  # for no image has a segmentation
    assert check_dataset(out) == []


SEGMENTATIONS = {
    "fits": png(np.arange(192).reshape(12, 16)),
    "larger": png(np.arange(192).reshape(12, 16).repeat(2, 0).repeat(2, 1)),
    "one": png([[1]]),
    "turned": png([[1] * 12] * 16),
    "broken": b"x",
}


def test_segmentations_fit_their_images(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with create_dataset(out) as writer:
        for name, data in SEGMENTATIONS.items():
            place = f"segmentation/{name}.png"
            assert writer.write_segmentation(place, data)
            assert not writer.write_segmentation(place, b"another")
            writer.add(Record(f"{name}.jpg", segmentation=place), jpeg(1))
        assert writer.write_segmentation("segmentation/gone.png", SEGMENTATIONS["fits"])
        writer.add(Record("gone.jpg", segmentation="segmentation/gone.png"), b"no image")
        summary = writer.finish({0: "sky", 1: "sea"})
    assert summary.left_out == {"segmentations that cannot be used": 3, "images that cannot be read": 1}
    places = ["segmentation/fits.png", "segmentation/larger.png"]
    assert [record.segmentation for record in FolderDataset(out)] == [*places, None, None, None]
    assert [(load_segmentation(out / place) == np.arange(192).reshape(12, 16)).all() for place in places] == [True] * 2
    assert (out / places[0]).read_bytes() == SEGMENTATIONS["fits"]
    assert sorted(path.name for path in (out / "segmentation").iterdir()) == ["fits.png", "larger.png"]
    assert (out / "segmentation_classes.json").read_text() == '{\n  "0": "sky",\n  "1": "sea"\n}\n'
    assert check_dataset(out) == []


def test_more_classes_than_a_byte_counts(tmp_path: Path) -> None:
    classes = np.arange(0, 960, 5, np.uint16).reshape(12, 16)
    path = tmp_path / "large.png"
    Image.fromarray(classes.repeat(2, 0).repeat(2, 1)).save(path)
    with create_dataset(tmp_path / "out") as writer:
        writer.write_segmentation("a.png", path.read_bytes())
        writer.add(Record("a.jpg", segmentation="a.png"), jpeg())
        writer.finish()
    assert (load_segmentation(tmp_path / "out/a.png") == classes).all()


@pytest.mark.parametrize(("upright", "kept"), [(True, 1), (False, 0)])
def test_annotations_of_the_upright_image_stay(tmp_path: Path, upright: bool, kept: int) -> None:
    """A box on stored pixels that EXIF rotates would be elsewhere; nobody says which way it was drawn."""
    with create_dataset(tmp_path / "out") as writer:
        writer.write_segmentation("a.png", png([[1] * 12] * 16))
        record = Record("a.jpg", objects=(NamedBox((1, 10, 3, 4), "dog"),), segmentation="a.png")
        writer.add(record, jpeg(0, 16, 12, orientation=6), upright=upright)
        summary = writer.finish()
    assert summary.others == ({"objects": 1, "segmentations": 1} if kept else {})
    assert len(FolderDataset(tmp_path / "out")[0].objects) == kept
    assert check_dataset(tmp_path / "out") == []


def test_an_empty_import_is_an_error_with_reasons(tmp_path: Path) -> None:
    def take() -> None:
        with create_dataset(tmp_path / "out", left_out=Counter({"images elsewhere": 4, "others": 0})) as writer:
            writer.add(Record("a.jpg"), b"")
            writer.add(Record("b.jpg"), b"")
            writer.finish()

    with pytest.raises(DataError, match=r"no images to import: 4 images elsewhere, 2 images that cannot be read\."):
        take()
    assert list(tmp_path.iterdir()) == []
