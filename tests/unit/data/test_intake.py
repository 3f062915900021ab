"""What may enter a folder data set, and what is counted at the door."""

from pathlib import Path

import pytest
from published import classes_png, jpeg

from tavq.core.errors import DataError
from tavq.data.folder import FolderDataset, check
from tavq.data.intake import Found, stored, take_all, taking_in
from tavq.data.records import NamedBox, Record


def test_only_what_can_be_used_gets_in(tmp_path: Path) -> None:
    out = tmp_path / "out"
    objects = tuple(
        NamedBox(box, "dog")
        for box in ((0.0, 0.0, 16.0, 12.0), (-5.0, 2.0, 10.0, 20.0), (20.0, 0.0, 3.0, 3.0), (0.0, 0.0, 0.0, 3.0))
    )
    with taking_in(out) as intake:
        intake.add(Record("images/a.jpg", captions=("A dog", "bad\x00"), objects=objects), jpeg(1))
        intake.add(Record("images/a.jpg"), jpeg(2))
        intake.add(Record("images/cut.jpg"), jpeg(3)[:200])
        intake.add(Record("images/not.jpg"), b"<html>")
        summary = intake.finish(["sky", "sea"])
    assert summary.pictures == {"train": 1}
    assert summary.captions == 1
    assert summary.left_out == {
        "pictures of a name that came before": 1,
        "pictures that cannot be read": 2,
        "fields that cannot be used": 2,  # a caption and the box without area
        "boxes outside of their picture": 1,
        "parts of boxes beyond the edge of their picture": 1,
    }
    kept = FolderDataset(out)[0]
    assert kept.captions == ("A dog",)
    assert [thing.box for thing in kept.objects] == [(0, 0, 16, 12), (0, 2, 5, 10)]
    assert (out / "images/a.jpg").read_bytes() == jpeg(1)
    assert [path.name for path in (out / "images").iterdir()] == ["a.jpg"]
    assert (out / "segmentation_classes.json").read_text() == '{\n  "0": "sky",\n  "1": "sea"\n}\n'
    assert check(out) == []


def test_segmentations_fit_their_pictures(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with taking_in(out) as intake:
        for name, data in {"fits": classes_png([[1] * 16] * 12), "small": classes_png([[1]]), "broken": b"x"}.items():
            record = Record(f"{name}.jpg", segmentation=f"segmentation/{name}.png")
            intake.add(record, jpeg(1), stored(lambda data=data: data))
        summary = intake.finish()
    assert summary.left_out == {"segmentations that cannot be used": 2}
    assert [record.segmentation for record in FolderDataset(out)] == ["segmentation/fits.png", None, None]
    assert [path.name for path in (out / "segmentation").iterdir()] == ["fits.png"]
    assert check(out) == []


def test_nothing_taken_is_an_error_with_its_reasons(tmp_path: Path) -> None:
    found = [Found(Record("a.jpg"), bytes), Found(Record("b.jpg"), bytes)]
    reasons = r"no picture to import: 4 pictures without a file, 2 pictures that cannot be read\."
    with pytest.raises(DataError, match=reasons):
        take_all(tmp_path / "out", found, {"pictures without a file": 4, "others": 0})
    assert list(tmp_path.iterdir()) == []
