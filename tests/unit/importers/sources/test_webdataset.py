"""Shards of other projects: their fields, their faults, and what a tar file may never do."""

import json
import random
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published import imported, jpeg, lay_out, pack, png

from tavq.core.errors import DataError, TavqError, UsageError
from tavq.data.records import NamedBox, Question, Record
from tavq.data.samples import split_member_name
from tavq.importers.importing import ImportSummary, sources


def taken(source: Path, out: Path) -> tuple[ImportSummary, list[Record]]:
    return imported("webdataset", source, out)


def test_keys_end_at_the_first_dot_of_the_base_name() -> None:
    assert split_member_name("a.b/000.seg.PNG") == ("a.b/000", "seg.png")
    assert split_member_name("./x.jpg") == split_member_name(".\\x.jpg") == ("x", "jpg")
    assert split_member_name("./a/./b\\x.rgb.jpg") == ("a/b/x", "rgb.jpg")
    assert [split_member_name(name) for name in ("a.b/c", ".hidden", "x.", "x/.jpg", "")] == [None] * 5


def test_captions_from_text_and_json(tmp_path: Path) -> None:
    fields = {
        "caption": "A dog.", "long_text": "A dog runs.", "url": "http://x", "split": "validation",
        "objects": [{"box": [1, 2, 3, 4], "name": "dog"}, {"bbox": [1]}],
        "questions": [{"question": "What?", "answer": "A dog", "type": "object"}],
    }  # fmt: skip
    members = [
        ("0001.jpg", jpeg(1)), ("0001.txt", b"not this one"), ("0001.json", json.dumps(fields).encode()),
        ("0002.txt", b"A cat.\nA cat sits.\n"), ("0002.jpeg", jpeg(2)), ("0002.json", b'{"caption": null}'),
        ("0003.png", jpeg(3)),
    ]  # fmt: skip
    pack(tmp_path / "shards/00000.tar", members)
    summary, records = taken(tmp_path / "shards", tmp_path / "out")
    dog = (NamedBox((1, 2, 3, 4), "dog"),), (Question("What?", "A dog", "object"),)
    assert records == [
        Record("images/00000/0001.jpg", "val", ("A dog.",), "A dog runs.", *dog),
        Record("images/00000/0002.jpeg", "train", ("A cat.", "A cat sits.")),
        Record("images/00000/0003.png", "train"),
    ]
    assert summary == ImportSummary(
        {"val": 1, "train": 2}, 3, {"fields that cannot be used": 1}, {"objects": 1, "questions": 1}
    )
    assert (tmp_path / "out/images/00000/0002.jpeg").read_bytes() == jpeg(2)


def test_splits_and_names_of_shards(tmp_path: Path) -> None:
    for name in ("train/000.tar", "valid/000.tar", "my-test-000.tar.gz", "contest/000.tar"):
        pack(tmp_path / "shards" / name, [("a/k.jpg", jpeg(1))])
    _, records = taken(tmp_path / "shards", tmp_path / "out")
    assert {record.file_name: record.split for record in records} == {
        "images/train/000/a/k.jpg": "train",
        "images/valid/000/a/k.jpg": "val",
        "images/my-test-000/a/k.jpg": "test",
        "images/contest/000/a/k.jpg": "train",
    }


def test_brace_lists_and_single_shards(tmp_path: Path) -> None:
    for number in range(3):
        pack(tmp_path / f"s-{number:03d}.tar", [("k.jpg", jpeg(number))])
    _, records = taken(tmp_path / "s-{000..001}.tar", tmp_path / "out")
    assert [record.file_name for record in records] == ["images/s-000/k.jpg", "images/s-001/k.jpg"]
    _, records = taken(tmp_path / "s-002.tar", tmp_path / "single")
    assert [record.file_name for record in records] == ["images/s-002/k.jpg"]
    with pytest.raises(DataError, match=r"no shard .*s-003\.tar; give a folder"):
        sources["webdataset"]().run(tmp_path / "s-{000..003}.tar", tmp_path / "gone")
    with pytest.raises(UsageError, match="more than 1,000,000 files"):
        sources["webdataset"]().run(tmp_path / "s-{000000..999999999}.tar", tmp_path / "gone")


def test_a_source_is_never_executed_or_fetched(tmp_path: Path) -> None:
    made = tmp_path / "made"
    for place in (f"pipe:touch {made}", "http://localhost/000.tar", "file:///etc/passwd"):
        with pytest.raises(DataError, match="There is no shard"):
            sources["webdataset"]().run(Path(place), tmp_path / "out")
    assert not made.exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no shards in .*; expected files that end in \.tar"):
        sources["webdataset"]().run(tmp_path / "empty", tmp_path / "out")


def test_faults_are_counted_and_left_out(tmp_path: Path) -> None:
    members = [
        ("alone.txt", b"no image"),
        ("cut.jpg", jpeg(1)[:100]),
        ("same.jpg", jpeg(2)), ("between.cls", b"3"), ("same.jpg", jpeg(3)),
        ("json.jpg", jpeg(4)), ("json.json", b"{" * 100),
        ("deep.jpg", jpeg(5)), ("deep.json", b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        ("list.jpg", jpeg(6)), ("list.json", b"[]"),
        ("latin.jpg", jpeg(7)), ("latin.txt", b"\xe9t\xe9"),
        ("types.jpg", jpeg(8)), ("types.json", b'{"captions": [3, "\\ud800", "A"], "long_text": 3, "objects": "x"}'),
        ("seg.jpg", jpeg(9)), ("seg.seg.png", png([[1]])),
        ("huge.jpg", jpeg(10)), ("huge.txt", b"x" * 10_000_001),
    ]  # fmt: skip
    pack(tmp_path / "s.tar", members)
    summary, records = taken(tmp_path / "s.tar", tmp_path / "out")
    assert summary.left_out == {
        "samples without an image": 2,
        "images that cannot be read": 1,
        "images beyond the first of their sample": 1,
        "json files that cannot be read": 3,
        "fields that cannot be used": 4,
        "segmentations that cannot be used": 1,
        "members that are too large": 1,
    }
    assert [record.captions for record in records if record.captions] == [("été",), ("A",)]
    assert summary.others["lines that are not UTF-8, read as Windows-1252"] == 1
    assert len(records) == 8


SAMPLES = {
    "000": {"jpg": jpeg(1), "txt": b"A dog.", "cls": b"3"},
    "001": {"jpg": jpeg(2), "json": b'{"caption": "A cat."}'},
    "002": {"txt": b"No image."},
    "a/003": {"seg.png": png([[1] * 16] * 12), "jpg": jpeg(3)},
}
MEMBERS = [(f"{key}.{extension}", data) for key, parts in SAMPLES.items() for extension, data in parts.items()]
READ = [("000", ("A dog.",)), ("001", ("A cat.",)), ("a/003", ())]

ORDERS: dict[str, Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]]] = {
    "as written": lambda members: members,
    "reversed": lambda members: members[::-1],
    "by kind": lambda members: sorted(members, key=lambda member: member[0].partition(".")[2]),
    "shuffled": lambda members: random.Random(0).sample(members, len(members)),
}
NAMES: dict[str, Callable[[str], str]] = {
    "plain": lambda name: name,
    "dot and slash": lambda name: f"./{name}",
    "backslashes": lambda name: name.replace("/", "\\"),
    "folder": lambda name: f"./shard/{name}",
}


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", NAMES)
def test_shards_as_plain_tools_make_them(tmp_path: Path, name: str, order: str, ending: str) -> None:
    members = [(NAMES[name](member), data) for member, data in ORDERS[order](MEMBERS)]
    summary, records = taken(pack(tmp_path / f"s{ending}", members), tmp_path / "out")
    prefix = "images/s/shard/" if name == "folder" else "images/s/"
    assert sorted((record.file_name, record.captions) for record in records) == [
        (f"{prefix}{key}.jpg", captions) for key, captions in READ
    ]
    assert summary.left_out == {"samples without an image": 1}
    assert summary.others["segmentations"] == 1


@pytest.mark.parametrize(
    ("parts", "image", "captions", "more"),
    [
        ({"image.jpg": jpeg(1), "caption.txt": b"A."}, 1, ("A.",), 0),
        ({"rgb.jpg": jpeg(1), "jpg": jpeg(2)}, 2, (), 1),
        ({"jpg": jpeg(2), "rgb.jpg": jpeg(1)}, 2, (), 1),
        ({"depth.png": jpeg(3), "mask.jpg": jpeg(4), "jpg": jpeg(2), "meta.json": b'{"text": "B."}'}, 2, ("B.",), 0),
        ({"long.txt": b"Long.", "txt": b"Plain.", "jpg": jpeg(2)}, 2, ("Plain.",), 0),
        ({"v2.0001.jpg": jpeg(5), "v2.0002.jpg": jpeg(6), "v2.0003.jpg": jpeg(7)}, 5, (), 2),
    ],
)
@pytest.mark.parametrize("scattered", [False, True])
def test_compound_extensions(
    tmp_path: Path, parts: Mapping[str, bytes], image: int, captions: tuple[str, ...], more: int, scattered: bool
) -> None:
    members = [(f"000.{extension}", data) for extension, data in parts.items()]
    members[1:1] = [("001.jpg", jpeg(9))] if scattered else []
    summary, records = taken(pack(tmp_path / "s.tar", members), tmp_path / "out")
    found = records[0] if "000" in records[0].file_name else records[1]
    assert (tmp_path / "out" / found.file_name).read_bytes() == jpeg(image)
    assert found.captions == captions
    assert summary.left_out.get("images beyond the first of their sample", 0) == more


def test_scattered_texts_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tavq.data.samples.MAX_SCATTERED", 5)
    path = pack(tmp_path / "s.tar", [("0.jpg", jpeg(1)), ("1.jpg", jpeg(1)), ("0.txt", b"A dog."), ("1.txt", b"A")])
    with pytest.raises(DataError, match="pack it again with: tar --sort=name"):
        sources["webdataset"]().run(path, tmp_path / "out")


HOSTILE = [
    "../../../up.jpg",
    "/abs.jpg",
    "a/../../up.jpg",
    ".hidden.jpg",
    "x.jpg/y.jpg",
    "a\nb.jpg",
    "n" * 300 + ".jpg",
]


def test_a_tar_never_chooses_where_its_members_go(tmp_path: Path) -> None:
    members = [(name, jpeg(1)) for name in HOSTILE]
    for number, name in enumerate(("../up.png", "/abs.png", "metadata.jsonl", "a.jpg/../../b.png")):
        fields = json.dumps({"file_name": name, "segmentation": name}).encode()
        members += [(f"{number}.jpg", jpeg(2)), (f"{number}.json", fields)]
        members += [(f"{number}.seg.png", png([[1] * 16] * 12))]
    path = pack(tmp_path / "in/s.tar", members)
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    _, records = taken(path, tmp_path / "out")
    assert {record.file_name for record in records} == {f"images/s/{number}.jpg" for number in range(4)}
    assert {record.segmentation for record in records} == {f"segmentation/s/{n}.png" for n in range(4)}
    assert sorted(place.name for place in tmp_path.iterdir()) == ["in", "out"]
    assert not any(place.is_symlink() for place in (tmp_path / "out").rglob("*"))


def test_a_truncated_shard_is_an_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = pack(tmp_path / "in/s.tar", [(f"{number}.jpg", jpeg(number)) for number in range(3)])
    whole = path.read_bytes()
    used = next(end for end in range(0, len(whole), 512) if not any(whole[end:]))
    for length in (0, 100, 700, 1500, used // 2, used - 512, used):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"s\.tar is truncated"):
            sources["webdataset"]().run(tmp_path / "in", tmp_path / "out")
    assert [place.name for place in tmp_path.iterdir()] == ["in"]


def test_file_names_of_a_shard_are_kept_if_they_are_free(tmp_path: Path) -> None:
    fields = b'{"file_name": "photos/a.jpg", "segmentation": "classes/a.png"}'
    classes = png([[1] * 16] * 12)
    members = [(f"{key}.{ending}", data) for key in "01" for ending, data in
               (("jpg", jpeg(int(key))), ("json", fields), ("seg.png", classes))]  # fmt: skip
    _, records = taken(pack(tmp_path / "s.tar", members), tmp_path / "out")
    assert [(record.file_name, record.segmentation) for record in records] == [
        ("photos/a.jpg", "classes/a.png"),
        ("images/s/1.jpg", "segmentation/s/1.png"),
    ]


def test_limit_and_progress(tmp_path: Path) -> None:
    pack(tmp_path / "train.tar", [(f"{number}.jpg", jpeg(number)) for number in range(5)])
    seen: list[tuple[int, int]] = []
    summary = sources["webdataset"]().run(tmp_path, tmp_path / "out", lambda *at: seen.append(at), 2)
    assert summary == ImportSummary({"train": 2}, 0, {"images beyond the limit": 3})
    assert seen[-1] == (5, 0)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = ["file_name", "split", "captions", "caption", "text", "long_text", "objects", "questions", "segmentation"]


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(names), json_values), st.text(max_size=12), st.binary(max_size=20))
def test_any_json_key_and_text_ends_in_a_clean_data_set(fields: Mapping[str, object], key: str, text: bytes) -> None:
    name = key.encode("utf-8", "replace").decode().replace("\x00", "")
    members = [(f"{name}.jpg", jpeg(1)), (f"{name}.json", json.dumps(fields).encode()), (f"{name}.txt", text)]
    with TemporaryDirectory() as folder:
        pack(Path(folder) / "s.tar", [*members, ("good.jpg", jpeg(2))])
        try:
            taken(Path(folder) / "s.tar", Path(folder) / "out")
        except TavqError as error:
            raise AssertionError(f"the good image is lost: {error}") from error


def test_a_segmentation_never_replaces_its_image(tmp_path: Path) -> None:
    for number, name in enumerate(("x/a.png", "segmentation/s/1.png")):
        fields = json.dumps({"file_name": name, "segmentation": name}).encode()
        members = [(f"{number}.png", png([[[1, 2, 3]] * 4] * 3)), (f"{number}.json", fields)]
        pack(tmp_path / str(number) / "s.tar", [*members, (f"{number}.seg.png", png([[1] * 4] * 3))])
        _, records = taken(tmp_path / str(number) / "s.tar", tmp_path / f"out{number}")
        assert [(record.file_name, record.segmentation) for record in records] == [(name, None)]


@pytest.mark.parametrize(
    ("names", "kept", "wrong"),
    [
        ({"0": "sky", "12": " sea "}, {"0": "sky", "12": "sea"}, 0),
        ({"0": "sky", "-1": "x", "²": "y", "1": "", "2": 3, "9" * 50: "far"}, {"0": "sky"}, 5),
        (["sky"], None, 1),
        ("{", None, 1),
    ],
)
def test_class_names_next_to_the_shards(tmp_path: Path, names: object, kept: object, wrong: int) -> None:
    pack(tmp_path / "in/s.tar", {"0.jpg": jpeg(), "0.seg.png": png([[1] * 16] * 12)})
    lay_out(tmp_path / "in", {"segmentation_classes.json": names})
    for number, place in enumerate(("in", "in/s.tar")):
        out = tmp_path / f"out{number}"
        summary, _ = taken(tmp_path / place, out)
        assert summary.left_out.get("class names that cannot be used", 0) == wrong
        path = out / "segmentation_classes.json"
        assert (json.loads(path.read_text()) if path.exists() else None) == kept
