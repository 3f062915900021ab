"""Images are found in folders, tar and zip files; archives choose no names, and broken ones are errors."""

from pathlib import Path

import pytest
from published import jpeg, lay_out, pack

from tavq.core.errors import DataError
from tavq.importers.archives import ImageFiles, find_images, find_locations, read_coco_id

FILES = {
    "val/deep/1.jpg": b"one",
    "val/2.JPG": b"two",
    "../../3.png": b"three",
    "val/.4.jpg": b"no",
    "val/5.txt": b"no",
}
NAMES = {"1.jpg": b"one", "2.JPG": b"two", "3.png": b"three"}


@pytest.mark.parametrize("name", ["val.zip", "val.tar", "val.tar.gz", "val.tgz"])
def test_archives(tmp_path: Path, name: str) -> None:
    path = pack(tmp_path / "source" / name, FILES)
    places = find_locations(tmp_path / "source", ["train", "val"])
    assert places == [path]
    found = ImageFiles(places)
    assert set(found) == set(NAMES)
    assert dict(found.read(["3.png", "1.jpg"])) == {"1.jpg": b"one", "3.png": b"three"}
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_folders_come_before_archives_of_the_same_name(tmp_path: Path) -> None:
    lay_out(tmp_path, {"images/val/1.jpg": b"one", "images/2.jpg": b"two"})
    pack(tmp_path / "images.zip", {"1.jpg": b"another"})
    places = find_locations(tmp_path, ["images/val", "images*", "val"])
    assert places == [tmp_path / "images"]
    assert dict(ImageFiles(places).read(["1.jpg", "2.jpg"])) == {"1.jpg": b"one", "2.jpg": b"two"}


def test_one_folder_by_two_names(tmp_path: Path) -> None:
    """As where a file system does not tell Images from images."""
    lay_out(tmp_path, {"images/1.jpg": b"one"})
    (tmp_path / "Images").symlink_to("images")
    assert find_locations(tmp_path, ["Images", "images"]) == [tmp_path / "Images"]
    assert dict(ImageFiles(find_locations(tmp_path, ["Images", "i*"])).read(["1.jpg"])) == {"1.jpg": b"one"}


def test_the_first_existing_choice_counts(tmp_path: Path) -> None:
    lay_out(tmp_path, {"b/1.jpg": b"one", "b2/2.jpg": b"two", "c/1.jpg": b"other"})
    assert set(find_images(tmp_path, ["a"], ["b", "b2"], ["c"])) == {"1.jpg", "2.jpg"}
    with pytest.raises(DataError, match=r"no images in .*; expected the folders x, y\*, or archives of these names"):
        find_images(tmp_path, ["x"], ["x", "y*"])


def test_names_by_a_function(tmp_path: Path) -> None:
    lay_out(tmp_path, {"p/a/1.jpg": b"one", "p/b/1.jpg": b"two", "p/b/.hidden/1.jpg": b"no"})
    found = ImageFiles([tmp_path / "p"], name_file=str)
    assert dict(found.read(["b/1.jpg"])) == {"b/1.jpg": b"two"}
    assert set(found) == {"a/1.jpg", "b/1.jpg"}


def test_two_files_of_one_name(tmp_path: Path) -> None:
    lay_out(tmp_path, {"a/1.jpg": b"one", "b/1.jpg": b"other"})
    with pytest.raises(DataError, match=r"two files 1\.jpg: 1\.jpg in .*b and 1\.jpg in .*a; remove one"):
        ImageFiles(find_locations(tmp_path, ["a", "b"]))


@pytest.mark.parametrize("name", ["val.zip", "val.tar", "val.tar.gz"])
def test_truncated_archives_are_errors(tmp_path: Path, name: str) -> None:
    path = pack(tmp_path / name, {"1.jpg": jpeg(), "2.jpg": jpeg(0, 300, 200)})
    whole = path.read_bytes()
    later = (600, 1100) if name == "val.tar" else (len(whole) // 2, len(whole) - 1)  # a tar file ends in empty blocks
    for length in (0, 10, *later):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"is truncated"):
            list(ImageFiles([path]).read(["1.jpg", "2.jpg"]))


def test_a_flipped_byte_in_a_zip(tmp_path: Path) -> None:
    path = pack(tmp_path / "val.zip", {"1.jpg": bytes(range(256)) * 40})
    data = bytearray(path.read_bytes())
    data[60] ^= 255
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="damaged or not a zip"):
        list(ImageFiles([path]).read(["1.jpg"]))


def test_a_member_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tavq.data.tars.MAX_IMAGE_FILE", 1000)
    path = pack(tmp_path / "val.zip", {"1.jpg": bytes(1001)})
    with pytest.raises(DataError, match="has more than 1,000 bytes"):
        list(ImageFiles([path]).read(["1.jpg"]))


def test_names_by_coco_id_and_stem() -> None:
    assert read_coco_id("COCO_val2014_000000000009.jpg") == read_coco_id("000000000009.png") == 9
    assert read_coco_id("9a.jpg") is read_coco_id("².jpg") is None


def test_the_first_file_of_a_coco_id_counts(tmp_path: Path) -> None:
    lay_out(tmp_path, {"a/000000000009.jpg": b"", "b/COCO_val2014_000000000009.jpg": b"", "b/x.jpg": b""})
    found = ImageFiles(find_locations(tmp_path, ["a", "b"]))
    assert found.by_coco_id == {9: "000000000009.jpg"}
    assert found.by_stem["x"] == "x.jpg"
    assert len(found) == 3
