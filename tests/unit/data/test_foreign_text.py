"""Texts and names of other projects in every encoding: what one importer reads, each reads."""

import codecs
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from published import imported, jpeg, lay_out, pack

from tavq.data.foreign_text import NOT_UTF8, decode_foreign, normalize_name, split_lines

TEXT = "A café , naïve ."

Texts = Mapping[str, str]
"""The text files of a data set, by their names."""


def flickr8k(name: str, text: str) -> Texts:
    lists = {f"Flickr_8k.{split}Images.txt": "other.jpg\n" for split in ("dev", "test")}
    return {"Flickr8k.token.txt": f"{name}#0\t{text}\n", "Flickr_8k.trainImages.txt": f"{name}\n", **lists}


def flickr30k(name: str, text: str) -> Texts:
    return {"results_20130124.token": f"{name}#0\t{text}\n"}


def flickr30k_table(name: str, text: str) -> Texts:
    return {"results.csv": f"image_name| comment_number| comment\n{name}| 0| {text}\n"}


def cub200(name: str, text: str) -> Texts:
    tables = {"train_test_split": "1", "classes": "1.Bird", "image_class_labels": "1", "bounding_boxes": "0 0 5 5"}
    files = {f"{table}.txt": f"1 {value}\n" for table, value in tables.items()}
    return {**files, "images.txt": f"1 {name}\n", f"text_c10/{Path(name).stem}.txt": f"{text}\n"}


def celeba(name: str, text: str) -> Texts:
    return {"CelebA-HQ-to-CelebA-mapping.txt": "0 1 000001.jpg\n", "text/0.txt": f"{text}\n"}


def coco(name: str, text: str) -> Texts:
    notes = [{"id": 1, "image_id": 1, "caption": text}]
    content = {"images": [{"id": 1, "file_name": name}], "annotations": notes}
    return {"captions_train2017.json": json.dumps(content, ensure_ascii=False)}


def karpathy(name: str, text: str) -> Texts:
    entry = {"filename": name, "split": "train", "sentences": [{"raw": text}]}
    return {"dataset.json": json.dumps({"images": [entry]}, ensure_ascii=False)}


LISTS = {
    "flickr8k": ("flickr8k", "Images", flickr8k),
    "flickr30k": ("flickr30k", "images", flickr30k),
    "flickr30k, table": ("flickr30k", "images", flickr30k_table),
    "cub200": ("cub200", "images", cub200),
    "celeba-hq": ("celeba-hq", "CelebA-HQ-img", celeba),
}
JSON = {"coco": ("coco", "train2017", coco), "karpathy": ("karpathy", "images", karpathy)}

LAYOUTS = LISTS | JSON


def run(
    layout: str, folder: Path, encode: Callable[[str], bytes], text: str, name: str = "1.jpg", disk: str = ""
) -> Any:
    """Import one image with one text; its name on disk is `disk` if that is given."""
    kind, images, write = LAYOUTS[layout]
    name = "0.jpg" if layout == "celeba-hq" else name
    lay_out(folder / "in", {file: encode(content) for file, content in write(name, text).items()})
    lay_out(folder / "in", {f"{images}/{disk or name}": jpeg()})
    summary, [record] = imported(kind, folder / "in", folder / "out")
    return summary, record


ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "UTF-8": lambda text: text.encode(),
    "byte order mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "Windows lines": lambda text: text.replace("\n", "\r\n").encode(),
    "byte order mark, Windows lines": lambda text: codecs.BOM_UTF8 + text.replace("\n", "\r\n").encode(),
    "old Macintosh lines": lambda text: text.replace("\n", "\r").encode(),
    "no last newline": lambda text: text.rstrip("\n").encode(),
}
WILD: dict[str, Callable[[str], bytes]] = {
    "UTF-16": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "UTF-16, big": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "Windows-1252": lambda text: text.encode("cp1252"),
}


@pytest.mark.parametrize("encoding", [*ENCODINGS, *WILD])
@pytest.mark.parametrize("layout", LISTS)
def test_lists_are_read_in_every_encoding(tmp_path: Path, layout: str, encoding: str) -> None:
    summary, record = run(layout, tmp_path, (ENCODINGS | WILD)[encoding], TEXT)
    assert record.captions == (TEXT,)
    assert summary.others.get(NOT_UTF8, 0) == (encoding == "Windows-1252")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("layout", JSON)
def test_json_is_read_with_and_without_a_byte_order_mark(tmp_path: Path, layout: str, encoding: str) -> None:
    assert run(layout, tmp_path, ENCODINGS[encoding], TEXT)[1].captions == (TEXT,)


ODD = {
    **{f"U+{ord(character):04X}": (character, " ") for character in "\u2028\u2029\x85\x0b\x0c\x1c\x1e\x00\x07\x7f\x81"},
    "U+0092": ("\x92", "\u2019"),
    "U+0096": ("\x96", "\u2013"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ODD)
def test_odd_characters_cost_no_text(tmp_path: Path, layout: str, name: str) -> None:
    """A separator does not cut a list, and a control character does not drop the text that it stands in."""
    character, expected = ODD[name]
    written = json.dumps(character)[1:-1] if layout in JSON else character
    summary, record = run(layout, tmp_path, lambda text: text.replace("@", written).encode(), "A dog@runs .")
    [caption] = record.captions
    assert " ".join(caption.split()) == " ".join(f"A dog{expected}runs .".split())
    assert not any("caption" in reason or "field" in reason for reason in summary.left_out)


NAMES = ["café.jpg", "Zoë 1.jpg", "Å.jpg"]


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "celeba-hq"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("listed", "stored"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFC", "NFC"), ("NFD", "NFD")])
def test_names_meet_in_every_unicode_form(tmp_path: Path, layout: str, name: str, listed: str, stored: str) -> None:
    forms = [unicodedata.normalize(form, name) for form in (listed, stored)]  # type: ignore[arg-type]
    _, record = run(layout, tmp_path, lambda text: text.encode(), "A dog .", *forms)
    assert record.captions == ("A dog .",)
    assert record.file_name == f"images/{normalize_name(name)}"


ABOUT_IMAGES = ("belong to no split", "without annotations", "cannot be read", "beyond the limit")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("limit", [None, 1])
def test_images_written_and_left_out_are_the_images_that_there_are(
    tmp_path: Path, layout: str, limit: int | None
) -> None:
    """One that is listed, and one that is not."""
    kind, images, write = LAYOUTS[layout]
    name = "0.jpg" if layout == "celeba-hq" else "1.jpg"
    lay_out(tmp_path / "in", {**write(name, "A dog ."), f"{images}/{name}": jpeg(), f"{images}/stray.jpg": jpeg(9)})
    summary, records = imported(kind, tmp_path / "in", tmp_path / "out", limit=limit)
    counted = sum(count for why, count in summary.left_out.items() if why.endswith(ABOUT_IMAGES))
    assert len(records) + counted == 2
    assert sum(summary.images.values()) == len(records) == 1


def test_two_files_that_differ_in_their_unicode_form_alone_are_both_kept(tmp_path: Path) -> None:
    names = [unicodedata.normalize("NFC", "é.jpg"), unicodedata.normalize("NFD", "é.jpg")]
    files = {f"images/{name}": jpeg(number) for number, name in enumerate(names)}
    tokens = "".join(f"{name}#0\tNumber {number} .\n" for number, name in enumerate(names))
    _, records = imported(
        "flickr30k", lay_out(tmp_path / "in", files | {"results_20130124.token": tokens}), tmp_path / "out"
    )
    assert len(records) == 1  # the list of captions has one name for both
    assert (tmp_path / "out" / records[0].file_name).read_bytes() == jpeg(0)


@pytest.mark.parametrize("encoding", [*ENCODINGS, *WILD])
def test_members_of_shards_are_read_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    encode = (ENCODINGS | WILD)[encoding]
    fields = json.dumps({"caption": TEXT}, ensure_ascii=False)
    members = {"1.jpg": jpeg(1), "1.txt": encode(f"{TEXT}\nTwo\n"), "2.jpg": jpeg(2), "2.json": encode(fields)}
    _, records = imported("webdataset", pack(tmp_path / "s.tar", members), tmp_path / "out")
    assert [record.captions for record in records] == [(TEXT, "Two"), (TEXT,)]


@pytest.mark.parametrize("archive", ["images.zip", "images.tar", "images.tar.gz", "images.tar.xz"])
@pytest.mark.parametrize(
    "name", ["1.jpg", "./1.jpg", "images/1.jpg", "./images/1.jpg", "images\\1.jpg", ".\\images\\1.jpg"]
)
def test_images_in_archives_of_plain_tools(tmp_path: Path, archive: str, name: str) -> None:
    files = flickr30k("1.jpg", "A dog .")
    pack(lay_out(tmp_path / "in", files) / archive, {name: jpeg()})
    _, [record] = imported("flickr30k", tmp_path / "in", tmp_path / "out")
    assert record.captions == ("A dog .",)


def test_one_line_in_another_encoding_does_not_spoil_the_others() -> None:
    counts = Counter[str]()
    assert decode_foreign("é\n".encode() + b"\xe9\n" + "ü".encode(), counts) == "é\né\nü"
    assert counts == {NOT_UTF8: 1}


@given(st.binary())
def test_any_bytes_are_decoded(data: bytes) -> None:
    decode_foreign(data).encode("utf-8")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_utf_8_is_never_changed(text: str) -> None:
    if not text.startswith("\ufeff"):
        assert decode_foreign(text.encode()) == text


@given(st.lists(st.text(st.characters(exclude_characters="\r\n"), min_size=1)), st.sampled_from(["\n", "\r\n", "\r"]))
def test_lines_end_at_newlines_only(lines: list[str], end: str) -> None:
    assert split_lines("".join(line + end for line in lines)) == lines
