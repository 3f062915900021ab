"""The Flickr8k importer on a tiny copy of the published layout, and on the real one where it is there."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from published import imported, jpeg, lay_out, pack

from tavq.core.errors import DataError, UsageError
from tavq.data.records import Record
from tavq.importers.importing import ImportSummary, sources

IMAGES = ["1_a.jpg", "2_b.jpg", "3_c.jpg", "4_d.jpg", "5_stray.jpg"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Five images: two for training, one each for dev and test, one in no split; two names without an image."""
    lines = [
        "2_b.jpg#1\tSecond of b",
        "2_b.jpg#0\tFirst of b .",
        "1_a.jpg#0\tA dog .",
        "1_a.jpg#1\t .",
        "3_c.jpg#0\tA cat .",
        "5_stray.jpg#0\tA stray .",
        "9_gone.jpg.1#0\tGone",
        "9_gone.jpg#1\tGone",
    ]
    return lay_out(
        tmp_path / "published",
        {
            "Flickr8k.token.txt": "\n".join(lines) + "\n",
            "Flickr_8k.trainImages.txt": "2_b.jpg\n1_a.jpg\n8_missing.jpg\n",
            "Flickr_8k.devImages.txt": "3_c.jpg\n",
            "Flickr_8k.testImages.txt": "4_d.jpg\n",
        },
    )


KAGGLE = """image,caption
1_a.jpg,A dog .
1_a.jpg,"A dog , which runs , ""fast"" ."
2_b.jpg,A cat , a bird .
2_b.jpg, .
9_gone.jpg,Gone
"""


@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("images", ["Images", "images", "Flicker8k_Dataset"])
def test_the_table_of_kaggle(tmp_path: Path, images: str, lists: bool) -> None:
    source = lay_out(tmp_path / "kaggle", {"captions.txt": KAGGLE})
    lay_out(source / images, {name: jpeg(number) for number, name in enumerate(IMAGES)})
    if lists:
        splits = {"train": "1_a.jpg\n", "dev": "3_c.jpg\n", "test": "2_b.jpg\n"}
        lay_out(source, {f"Flickr_8k.{name}Images.txt": content for name, content in splits.items()})
    summary, records = imported("flickr8k", source, tmp_path / "out")
    captions = {"1_a.jpg": ("A dog .", 'A dog , which runs , "fast" .'), "2_b.jpg": ("A cat , a bird .",)}
    captions |= {"3_c.jpg": ()} if lists else {}
    splits = {"1_a.jpg": "train", "2_b.jpg": "test" if lists else "train", "3_c.jpg": "val"}
    assert {record.file_name: (record.split, record.captions) for record in records} == {
        f"images/{name}": (splits[name], texts) for name, texts in captions.items()
    }
    assert summary.left_out["captions that are empty or not text"] == 1
    assert summary.left_out["listed images without a file"] == 1
    assert any("for want of Flickr_8k" in what for what in summary.others) is not lists


def test_a_line_of_the_table_that_is_none(tmp_path: Path) -> None:
    source = lay_out(tmp_path / "kaggle", {"captions.txt": "image,caption\n1_a.jpg\n", "Images/1_a.jpg": jpeg()})
    with pytest.raises(DataError, match=r"captions\.txt line 2 is '1_a\.jpg'; expected NAME,CAPTION"):
        sources["flickr8k"]().run(source, tmp_path / "out")


def as_folder(source: Path) -> None:
    lay_out(source / "Flicker8k_Dataset", {name: jpeg(number) for number, name in enumerate(IMAGES)})


def as_tar(source: Path, prefix: str = "") -> Path:
    return pack(source / "images_128.tar", {prefix + name: jpeg(number) for number, name in enumerate(IMAGES)})


@pytest.mark.parametrize("write", [as_folder, as_tar])
def test_import(source: Path, tmp_path: Path, write: Callable[[Path], object]) -> None:
    write(source)
    seen: list[tuple[int, int]] = []
    out = tmp_path / "out"
    summary, records = imported("flickr8k", source, out, progress=lambda done, total: seen.append((done, total)))
    assert summary == ImportSummary(
        {"train": 2, "val": 1, "test": 1},
        4,
        {
            "images that belong to no split": 1,
            "listed images without a file": 3,
            "captions that are empty or not text": 1,
        },
    )
    assert records == [
        Record("images/2_b.jpg", "train", ("First of b .", "Second of b")),
        Record("images/1_a.jpg", "train", ("A dog .",)),
        Record("images/3_c.jpg", "val", ("A cat .",)),
        Record("images/4_d.jpg", "test"),
    ]
    assert (out / "images/2_b.jpg").read_bytes() == jpeg(1)
    assert sorted(path.name for path in (out / "images").iterdir()) == sorted(IMAGES[:4])
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_limit_counts_for_each_split(source: Path, tmp_path: Path) -> None:
    as_folder(source)
    summary = sources["flickr8k"]().run(source, tmp_path / "out", limit=1)
    assert summary.images == {"train": 1, "val": 1, "test": 1}
    assert summary.left_out["images beyond the limit"] == 1


def test_a_tar_never_chooses_where_its_members_go(source: Path, tmp_path: Path) -> None:
    path = as_tar(source, "../../../escaped/")
    link = tarfile.TarInfo("1_a.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(path, "a") as archive:
        archive.addfile(link)
    sources["flickr8k"]().run(source, tmp_path / "out")
    assert (tmp_path / "out/images/1_a.jpg").read_bytes() == jpeg(0)
    assert not (tmp_path / "out/images/1_a.jpg").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "published"]


def test_a_truncated_tar_leaves_nothing_behind(source: Path, tmp_path: Path) -> None:
    path = as_tar(source)
    whole = path.read_bytes()
    ends = [512 * block for block in range(len(whole) // 512) if not any(whole[512 * block :])]
    for length in (0, 100, 700, 1500, len(whole) // 3, ends[0]):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"images_128\.tar is truncated"):
            sources["flickr8k"]().run(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


def test_existing_files_are_never_replaced(source: Path, tmp_path: Path) -> None:
    as_folder(source)
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="already exists and is not empty"):
        sources["flickr8k"]().run(source, out)
    assert (out / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: (s / "Flickr8k.token.txt").unlink(), DataError, r"no file Flickr8k\.token\.txt in .*Flickr8k_text"),
        (lambda s: (s / "Flickr_8k.devImages.txt").unlink(), DataError, r"no file Flickr_8k\.devImages\.txt"),
        (
            lambda s: (s / "images_128.tar").unlink(),
            DataError,
            r"no images in .*Flicker8k_D.*images\*, or arch",
        ),
        (
            lambda s: pack(s / "images_64.tar", {"1_a.jpg": b""}),
            DataError,
            r"two files 1_a\.jpg: .*64\.tar and .*128",
        ),
        (
            lambda s: (s / "images_64.tar").touch(),
            DataError,
            r"images_64\.tar is .* not a tar file: [^\n]*$",
        ),
        (lambda s: (s / "Flickr8k.token.txt").write_text("a.jpg,A dog"), DataError, r"line 1 is 'a\.jpg,A dog'"),
        (lambda s: (s / "Flickr8k.token.txt").write_bytes(b"\xff"), DataError, "line 1 is 'ÿ'"),
        (lambda s: (s / "Flickr_8k.devImages.txt").write_text("../a.jpg"), DataError, r"lists '\.\./a\.jpg'"),
    ],
)
def test_a_wrong_layout_is_an_error(
    source: Path, tmp_path: Path, change: Callable[[Path], object], error: type[Exception], message: str
) -> None:
    as_tar(source)
    change(source)
    with pytest.raises(error, match=message):
        sources["flickr8k"]().run(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_such_source(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no folder"):
        sources["flickr8k"]().run(tmp_path / "gone", tmp_path / "out")
    with pytest.raises(UsageError, match=r"Unknown data source 'flickr9k'.*Did you mean 'flickr8k'"):
        sources["flickr9k"]


@pytest.mark.real_data
def test_the_real_one(real_data: Path, tmp_path: Path) -> None:
    summary, records = imported("flickr8k", real_data / "flickr8k", tmp_path / "out", limit=20)
    assert summary.images == {"train": 20, "val": 20, "test": 20}
    assert summary.captions == 300
    assert summary.left_out["images that belong to no split"] == 91
    assert summary.left_out["listed images without a file"] == 2
    assert records[0].text == (
        "A black dog is running after a white dog in the snow.\n\nBlack dog chasing brown dog through snow.\n\n"
        "Two dogs chase each other across the snowy ground.\n\nTwo dogs play together in the snow.\n\n"
        "Two dogs running through a low lying body of water."
    )
