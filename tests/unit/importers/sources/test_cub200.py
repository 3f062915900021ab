"""The CUB-200-2011 importer on a tiny copy of the published layout."""

from collections.abc import Callable
from pathlib import Path

import pytest
from published import imported, jpeg, lay_out

from tavq.core.errors import DataError, UsageError
from tavq.data.records import NamedBox, Record
from tavq.importers.importing import ImportSummary, sources

ALBATROSS, AUKLET = "001.Black_footed_Albatross", "007.Parakeet_Auklet"
NAMES = {1: f"{ALBATROSS}/Black_0001_1.jpg", 2: f"{AUKLET}/Auklet_0002_2.jpg", 3: f"{AUKLET}/Gone_3.jpg"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = "CUB_200_2011"
    return lay_out(
        tmp_path / "published",
        {
            f"{root}/images.txt": "".join(f"{key} {name}\n" for key, name in NAMES.items()),
            f"{root}/classes.txt": f"1 {ALBATROSS}\n7 {AUKLET}\n",
            f"{root}/image_class_labels.txt": "1 1\n2 7\n3 7\n",
            f"{root}/train_test_split.txt": "1 0\n2 1\n3 1\n",
            f"{root}/bounding_boxes.txt": "1 2.0 3.0 8.0 6.0\n2 4.0 5.0 30.0 4.0\n3 1.0 1.0 1.0 1.0\n",
            f"{root}/images/{NAMES[1]}": jpeg(1),
            f"{root}/images/{NAMES[2]}": jpeg(2),
            f"text_c10/{NAMES[1]}".replace(".jpg", ".txt"): "the bird is black.\nit has a long\ufffd\ufffdbill.\n\n",
        },
    )


def test_import(source: Path, tmp_path: Path) -> None:
    summary, records = imported("cub200", source, tmp_path / "out")
    assert summary == ImportSummary(
        {"test": 1, "train": 1},
        2,
        {
            "listed images without a file": 1,
            "parts of boxes beyond the edge of their image": 1,
        },
        {"objects": 2, "images without captions": 1},
    )
    assert records == [
        Record(
            f"images/{NAMES[1]}", "test", ("the bird is black.", "it has a long bill."),
            objects=(NamedBox((2, 3, 8, 6), "Black footed Albatross"),),
        ),
        Record(f"images/{NAMES[2]}", "train", objects=(NamedBox((4, 5, 12, 4), "Parakeet Auklet"),)),
    ]  # fmt: skip
    assert (tmp_path / "out/images" / NAMES[2]).read_bytes() == jpeg(2)


def test_captions_in_the_layout_of_text_to_image_projects(source: Path, tmp_path: Path) -> None:
    (source / "birds").mkdir()
    (source / "text_c10").rename(source / "birds/text")
    assert sources["cub200"]().run(source / "CUB_200_2011", tmp_path / "alone").captions == 0
    assert sources["cub200"]().run(source, tmp_path / "out", limit=1).captions == 2


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda source: (source / "CUB_200_2011" / name).write_text(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda source: (source / "CUB_200_2011/images.txt").unlink(), r"no file images\.txt in .* or .*CUB_200_2011"),
        (write("images.txt", "1 ../x.jpg\n"), r"images\.txt line 1 lists '\.\./x\.jpg'"),
        (write("images.txt", "one\n"), r"images\.txt line 1 is 'one'"),
        (write("train_test_split.txt", "1 0\n"), r"line 2: image 2 has no split, box or class"),
        (write("bounding_boxes.txt", "1 1 2 3 nan\n2 1 1 1 1\n3 1 1 1 1\n"), r"has the box '1 2 3 nan'; expected x"),
        (write("bounding_boxes.txt", "1 1 2 3\n2 1 1 1 1\n3 1 1 1 1\n"), r"has the box '1 2 3'; expected x"),
    ],
)
def test_a_wrong_layout_is_an_error(
    source: Path, tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    change(source)
    with pytest.raises(DataError, match=message):
        sources["cub200"]().run(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_such_source(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no folder"):
        sources["cub200"]().run(tmp_path / "gone", tmp_path / "out")
