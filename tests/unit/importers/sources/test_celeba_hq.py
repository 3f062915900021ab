"""The CelebA-HQ importer on a tiny copy of the published layout."""

from pathlib import Path

import numpy as np
import pytest
from published import imported, jpeg, lay_out, png

from tavq.core.errors import DataError
from tavq.data.images import load_segmentation
from tavq.data.records import Record
from tavq.importers.importing import ImportSummary, sources

ROOT = "CelebAMask-HQ"
MASKS = f"{ROOT}/CelebAMask-HQ-mask-anno"


def mask(*rows: str) -> bytes:
    return png([[255 if letter == "#" else 0 for letter in row] for row in rows])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four faces at the ends of CelebA's partition; 0 and 2001 have masks of 4 x 2 pixels, half an image's side."""
    mapping = "idx orig_idx orig_file\n0 162769 162770.jpg\n1          162770     162771.jpg\n"
    mapping += "10 182636 182637.jpg\n2001 182637 182638.jpg\n"
    return lay_out(
        tmp_path / "published",
        {
            f"{ROOT}/CelebA-HQ-to-CelebA-mapping.txt": mapping,
            **{f"{ROOT}/CelebA-HQ-img/{number}.jpg": jpeg(number % 200, 8, 4) for number in (0, 1, 10, 2001, 5)},
            f"{MASKS}/0/00000_skin.png": mask("####", "###."),
            f"{MASKS}/0/00000_nose.png": mask(".#..", "...."),
            f"{MASKS}/0/00000_cloth.png": mask("....", "##.."),
            f"{MASKS}/1/02001_hair.png": b"broken",
            "celeba-caption/0.txt": "\n".join(f"She smiles {number}." for number in range(10)),
            "celeba-caption/10.txt": "He has a beard.\n",
        },
    )


def test_import(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary, records = imported("celeba-hq", source, out)
    assert summary == ImportSummary(
        {"train": 1, "val": 2, "test": 1},
        11,
        {
            "images that belong to no split": 1,
            "segmentations that cannot be used": 1,
        },
        {"images without captions": 2, "images without masks": 2, "segmentations": 1},
    )
    smiles = tuple(f"She smiles {number}." for number in range(10))
    assert records == [
        Record("images/0.jpg", "train", smiles, segmentation="segmentation/0.png"),
        Record("images/1.jpg", "val"),
        Record("images/10.jpg", "val", ("He has a beard.",)),
        Record("images/2001.jpg", "test"),
    ]
    # skin 1, nose 2 on top of it, cloth 18 on top of all; every pixel of the mask is four of the image
    small = np.array([[1, 2, 1, 1], [18, 18, 1, 0]])
    np.testing.assert_array_equal(load_segmentation(out / "segmentation/0.png"), small.repeat(2, 0).repeat(2, 1))
    assert '"18": "cloth"' in (out / "segmentation_classes.json").read_text()
    assert (out / "images/10.jpg").read_bytes() == jpeg(10, 8, 4)


@pytest.mark.parametrize("name", ["{}.png", "{:05d}.png", "{:05d}.jpg", "{}.webp"])
def test_faces_in_other_formats(source: Path, tmp_path: Path, name: str) -> None:
    folder = source / ROOT / "CelebA-HQ-img"
    for path in list(folder.iterdir()):
        path.rename(folder / name.format(int(path.stem)))
    summary, records = imported("celeba-hq", source, tmp_path / "out")
    assert summary.left_out == {"images that belong to no split": 1, "segmentations that cannot be used": 1}
    assert [record.file_name for record in records] == [f"images/{name.format(each)}" for each in (0, 1, 10, 2001)]
    assert (len(records[0].captions), records[2].captions) == (10, ("He has a beard.",))
    assert records[0].segmentation is not None


def test_a_face_in_two_formats_is_taken_once(source: Path, tmp_path: Path) -> None:
    lay_out(source, {f"{ROOT}/CelebA-HQ-img/00000.png": jpeg(7, 8, 4)})
    summary, records = imported("celeba-hq", source, tmp_path / "out")
    assert (len(records), records[0].file_name) == (4, "images/0.jpg")
    assert summary.left_out["images with a repeated name"] == 1


def test_without_masks_and_captions(source: Path, tmp_path: Path) -> None:
    (source / MASKS).rename(tmp_path / "masks")
    (source / "celeba-caption").rename(tmp_path / "captions")
    summary = sources["celeba-hq"]().run(source / ROOT, tmp_path / "out", limit=1)
    assert (summary.images, summary.captions) == ({"train": 1, "val": 1, "test": 1}, 0)
    assert not (tmp_path / "out/segmentation_classes.json").exists()


def test_parts_of_different_sizes_are_unusable(source: Path, tmp_path: Path) -> None:
    lay_out(source, {f"{MASKS}/0/00000_hat.png": mask("#", "#")})
    assert sources["celeba-hq"]().run(source, tmp_path / "out").left_out["segmentations that cannot be used"] == 2


def test_a_wrong_layout_is_an_error(source: Path, tmp_path: Path) -> None:
    mapping = source / ROOT / "CelebA-HQ-to-CelebA-mapping.txt"
    mapping.write_text("idx orig_idx orig_file\n0 1 a.png\n")
    with pytest.raises(DataError, match=r"line 2 lists '0' '1 a\.png'; expected idx orig_idx orig_file"):
        sources["celeba-hq"]().run(source, tmp_path / "out")
    mapping.unlink()
    with pytest.raises(DataError, match=r"no file CelebA-HQ-to-CelebA-mapping\.txt in .*CelebAMask-HQ"):
        sources["celeba-hq"]().run(source, tmp_path / "out")
    with pytest.raises(DataError, match=r"no folder of images in .*CelebA-HQ-img, CelebAMask-HQ/CelebA-HQ-img"):
        sources["celeba-hq"]().run(source / MASKS, tmp_path / "out")
