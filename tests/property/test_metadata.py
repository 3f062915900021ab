"""No line of metadata.jsonl, whatever it holds, ends in anything but a record or a fault."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tavq.core.errors import TavqError
from tavq.data.folder import FolderDataset, iter_texts
from tavq.data.records import Faults, NamedBox, Question, Record, read_record, to_line

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=12)
    | st.sampled_from(["train", "val", "../x", "/", ".", "a.png", "~", "a\0", "\ud800", ""]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
FIELDS = [
    "file_name",
    "split",
    "captions",
    "long_text",
    "objects",
    "questions",
    "segmentation",
    "box",
    "name",
    "phrases",
]
OBJECTS = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6)
LINES = st.fixed_dictionaries(
    {},
    optional={
        "file_name": st.just("a.png") | VALUES,
        "split": VALUES,
        "captions": VALUES,
        "long_text": VALUES,
        "objects": st.lists(
            st.fixed_dictionaries(
                {}, optional={"box": st.lists(VALUES, min_size=3, max_size=5), "name": VALUES, "phrases": VALUES}
            )
        )
        | VALUES,
        "questions": st.lists(OBJECTS) | VALUES,
        "segmentation": VALUES,
    },
)
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def holds(record: Record | None, faults: list[Any]) -> None:
    assert record is not None or faults
    if record is not None:
        assert record.split in ("train", "val", "test")
        assert ".." not in record.file_name.split("/")
        for text in (record.file_name, *record.captions, record.text or ""):
            text.encode("utf-8")
        assert all(caption.strip() for caption in record.captions)
    for fault in faults:
        str(fault).encode("utf-8")


@QUICK
@given(LINES | VALUES)
def test_any_json(tmp_path: Path, value: Any) -> None:
    holds(*read_record(json.dumps(value).encode(), 1, tmp_path))


@QUICK
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes(tmp_path: Path, line: bytes) -> None:
    holds(*read_record(line, 1, tmp_path))


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=9).filter(str.strip)
TEXTS = st.lists(TEXT, max_size=2)
NUMBER = st.floats(0.01, 1e6)
BOXES = st.lists(st.tuples(st.tuples(NUMBER, NUMBER, NUMBER, NUMBER), TEXT, TEXTS), max_size=2)
QUESTIONS = st.lists(st.tuples(TEXT, TEXT, TEXT | st.just("")), max_size=2)


@QUICK
@given(TEXTS, st.none() | TEXT, BOXES, QUESTIONS, st.none() | st.just("s.png"))
def test_what_is_written_is_read_back(
    tmp_path: Path,
    captions: list[str],
    long_text: str | None,
    boxes: list[tuple[tuple[float, float, float, float], str, list[str]]],
    questions: list[tuple[str, str, str]],
    segmentation: str | None,
) -> None:
    objects = tuple(NamedBox(box, name, tuple(phrases)) for box, name, phrases in boxes)
    asked = tuple(Question(*texts) for texts in questions)
    record = Record("a/b c.png", "val", tuple(captions), long_text, objects, asked, segmentation)
    line = to_line(record)
    assert line.count(b"\n") == 1
    assert read_record(line, 1, tmp_path) == (record, [])


NAMES = st.sampled_from(["a.png", "./a.png", "b.png", "c/d.png", "../x.png", "\ud800", "e.png"])
SOME_LINES = st.lists(LINES | st.fixed_dictionaries({"file_name": NAMES}, optional={"long_text": st.just("Own.")}))
WRITTEN = st.fixed_dictionaries(
    {"file_name": NAMES | VALUES},
    optional={
        "text": st.just("Seen.") | VALUES,
        "fault": VALUES,
        "model": VALUES,
        "time": st.integers(0, 3) | VALUES,
        "cut": VALUES,
    },
)


@QUICK
@given(SOME_LINES, st.lists(WRITTEN | VALUES, max_size=5))
def test_streaming_gives_what_the_data_set_holds(tmp_path: Path, lines: list[Any], written: list[Any]) -> None:
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "long_text.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written))
    faults = Faults()
    try:
        dataset = FolderDataset(tmp_path)
    except TavqError:
        with pytest.raises(TavqError):
            list(iter_texts(tmp_path))
        return
    streamed = list(iter_texts(tmp_path, faults))
    assert streamed == [(record.file_name, record.text or "") for record in dataset]
    assert faults.count == len(dataset.faults)
    assert sorted(fault.where for fault in faults.first) == sorted(fault.where for fault in dataset.faults)
