"""The SceneParse150 importer on a tiny copy of the published layout."""

from pathlib import Path

import numpy as np
import pytest
from published import imported, jpeg, lay_out, png

from tavq.core.errors import DataError
from tavq.data.images import load_segmentation
from tavq.data.records import Record
from tavq.importers.importing import ImportSummary, sources

ROOT = "ADEChallengeData2016"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    train, val = "ADE_train_00000001", "ADE_val_00000001"
    return lay_out(
        tmp_path / "published",
        {
            # the columns as published, some of whose numbers end in a blank
            f"{ROOT}/objectInfo150.txt": "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.2\t9\t8\t1\twall\n"
            "2 \t0.1\t9\t8\t1\tbuilding, edifice\n3\t0.1\t9\t8\t1\tbed \n",
            f"{ROOT}/sceneCategories.txt": f"{train} airport_terminal\n{val} abbey\n",
            f"{ROOT}/images/training/{train}.jpg": jpeg(1, 3, 2),
            f"{ROOT}/images/training/ADE_train_00000002.jpg": jpeg(2, 3, 2),
            f"{ROOT}/images/training/ADE_train_00000003.jpg": b"no image",
            f"{ROOT}/images/validation/{val}.jpg": jpeg(3, 3, 2),
            f"{ROOT}/annotations/training/{train}.png": png([[0, 1, 2], [3, 3, 3]]),
            f"{ROOT}/annotations/training/ADE_train_00000003.png": png([[0, 1, 2], [3, 3, 3]]),
            f"{ROOT}/annotations/validation/{val}.png": png([[1], [1]]),
        },
    )


def test_import(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary, records = imported("ade20k", source, out)
    assert summary == ImportSummary(
        {"train": 1, "val": 1},
        0,
        {
            "images without annotations": 1,
            "images that cannot be read": 1,
            "segmentations that cannot be used": 1,
        },
        {"segmentations": 1},
    )
    name = "training/ADE_train_00000001"
    assert records == [
        Record(f"images/{name}.jpg", "train", segmentation=f"segmentation/{name}.png"),
        Record("images/validation/ADE_val_00000001.jpg", "val"),
    ]
    np.testing.assert_array_equal(load_segmentation(out / f"segmentation/{name}.png"), [[0, 1, 2], [3, 3, 3]])
    names = '{\n  "0": "other",\n  "1": "wall",\n  "2": "building, edifice",\n  "3": "bed"\n}\n'
    assert (out / "segmentation_classes.json").read_text() == names


def test_a_wrong_layout_is_an_error(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file objectInfo150\.txt in .*images or .*ADEChallengeData2016"):
        sources["ade20k"]().run(source / ROOT / "images", tmp_path / "out")
    (source / ROOT / "objectInfo150.txt").write_text("Idx\tName\n2\twall\n")
    with pytest.raises(DataError, match="must number its classes from 1"):
        sources["ade20k"]().run(source, tmp_path / "out")
    (source / ROOT / "objectInfo150.txt").write_text("Idx Name\n1 wall\n")
    with pytest.raises(DataError, match="must number its classes from 1"):
        sources["ade20k"]().run(source, tmp_path / "out")
    (source / ROOT / "objectInfo150.txt").write_text("Idx\tName\n1\twall\n")
    (source / ROOT / "images/validation").rename(source / "away")
    with pytest.raises(DataError, match=r"no folder of images in .*; expected one of: images/validation"):
        sources["ade20k"]().run(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
