"""The CamVid importer on a tiny copy of both layouts, and on the real one where it is there."""

from pathlib import Path

import numpy as np
import pytest
from published import imported, jpeg, lay_out, pack, png

from tavq.core.errors import DataError, UsageError
from tavq.data.images import load_segmentation
from tavq.data.records import Record
from tavq.importers.importing import ImportSummary, sources

FILES = {
    "train/0001TP_1.png": jpeg(1, 3, 2),
    "trainannot/0001TP_1.png": png([[0, 1, 2], [11, 11, 11]]),
    "train/0001TP_2.png": jpeg(2, 3, 2),
    "val/0016E5_1.png": jpeg(3, 3, 2),
    "valannot/0016E5_1.png": png([[3] * 3] * 2),
    "test/0001TP_1.png": jpeg(4, 3, 2),
    "testannot/0001TP_1.png": png([[4] * 3] * 2),
}


def as_folder(source: Path, prefix: str) -> None:
    lay_out(source / "CamVid", FILES)
    (source / "CamVid/train.txt").write_text("/SegNet/CamVid/train/0001TP_1.png /SegNet/CamVid/trainannot/0001TP_1.png")


def as_tar(source: Path, prefix: str = "", cut: int | None = None) -> None:
    names = {name: name.replace("/", "__") if prefix == "flat" else f"{prefix}{name}" for name in FILES}
    path = pack(source / "camvid_3x2.tar", {names[name]: data for name, data in FILES.items()})
    path.write_bytes(path.read_bytes()[:cut])


@pytest.mark.parametrize(("write", "prefix"), [(as_folder, ""), (as_tar, "CamVid/"), (as_tar, "flat")])
def test_import(tmp_path: Path, write, prefix: str) -> None:
    source, out = tmp_path / "published", tmp_path / "out"
    write(source, prefix)
    summary, records = imported("camvid", source, out)
    counts = {"train": 1, "val": 1, "test": 1}
    assert summary == ImportSummary(counts, 0, {"images without annotations": 1}, {"segmentations": 3})
    assert records == [
        Record(f"images/{name}", name.partition("/")[0], segmentation=f"segmentation/{name}")
        for name in ("train/0001TP_1.png", "val/0016E5_1.png", "test/0001TP_1.png")
    ]
    np.testing.assert_array_equal(load_segmentation(out / "segmentation/train/0001TP_1.png"), [[0, 1, 2], [11] * 3])
    assert (out / "images/test/0001TP_1.png").read_bytes() == FILES["test/0001TP_1.png"]
    assert '"11": "unlabelled"' in (out / "segmentation_classes.json").read_text()


def test_a_wrong_layout_is_an_error(tmp_path: Path) -> None:
    source, out = tmp_path / "published", tmp_path / "out"
    with pytest.raises(UsageError, match="There is no folder"):
        sources["camvid"]().run(source, out)
    source.mkdir()
    with pytest.raises(DataError, match=r"no folder of frames \(and no single camvid\*\.tar\) in"):
        sources["camvid"]().run(source, out)
    for cut in (100, 1200, 5000):
        as_tar(source, cut=cut)
        with pytest.raises(DataError, match=r"camvid_3x2\.tar is truncated"):
            sources["camvid"]().run(source, out)
    (source / "camvid_3x2.tar").unlink()
    (source / "train").mkdir()
    with pytest.raises(DataError, match=r"None of the images that the annotations list is in .*published"):
        sources["camvid"]().run(source, out)
    assert not out.exists()


@pytest.mark.real_data
def test_the_real_one(real_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary, records = imported("camvid", real_data / "camvid", out, limit=15)
    assert summary.images == {"train": 15, "val": 15, "test": 15}
    assert summary.left_out == {"images beyond the limit": 701 - 45}
    classes = load_segmentation(out / str(records[0].segmentation))
    assert classes.shape == (180, 240)
    assert classes.max() <= 11
    assert (classes[:30] == 0).mean() > 0.2  # sky is above
    assert (classes[-30:] == 3).mean() > 0.3  # the road is below
