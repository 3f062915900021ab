"""No line of metadata.jsonl, whatever it holds, ends in anything but a record or a fault."""

import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tavq.data.records import Record, read_record

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
QUICK = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


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
