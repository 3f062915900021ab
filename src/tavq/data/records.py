"""The record of one image: one line of metadata.jsonl, checked field by field because the file may hold anything."""

import contextlib
import hashlib
import json
import posixpath
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from tavq.core.caption_keys import caption_key
from tavq.core.checks import is_number, json_type
from tavq.core.errors import FileError
from tavq.core.files import parse_json
from tavq.core.inside import resolve_inside
from tavq.data.characters import WINDOWS, find_name, is_printable, replace_unprintable

METADATA = "metadata.jsonl"
SPLITS = ("train", "val", "test")
MAX_TEXT = 100_000  # characters; a longer caption is a file that went into the wrong field
MAX_LINE = 16_000_000  # bytes; no image needs a longer line, and a file without newlines must not fill the memory
MAX_TIME = 2**40  # seconds since 1970: in 34,000 years


@dataclass(frozen=True)
class Fault:
    """Something in a data set that cannot be used, and the reason.

    Attributes:
        where: the file_name; the line of metadata.jsonl where the name cannot be read.
        split: that it belongs to; None where that cannot be known, as of a line that is not JSON.
        costs_image: whether an image is missing for it.
        part: the field that is missing, such as "objects"; "" for the image or the line.
    """

    where: str
    reason: str
    split: str | None = field(default=None, compare=False)
    costs_image: bool = field(default=False, compare=False)
    part: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class Faults:
    """A count of faults that keeps the first `keep` of them, so that memory stays bounded for any data set."""

    def __init__(self, keep: float = 1000, fields: Collection[str] | None = None) -> None:
        """Count faults of images and lines, and of all `fields` or only of those that the caller reads."""
        self.keep = keep
        self.fields = fields
        self.count = 0
        self.first: list[Fault] = []

    def add(self, found: Iterable[Fault]) -> None:
        """Count each fault."""
        for fault in found:
            if fault.part and self.fields is not None and fault.part not in self.fields:
                continue
            self.count += 1
            if len(self.first) < self.keep:
                self.first.append(fault)

    def merge(self, others: "Faults") -> None:
        """Count the faults of `others` too."""
        not_kept = others.count - len(others.first)
        self.add(others.first)
        self.count += not_kept


Box = tuple[float, float, float, float]
"""Left, top, width and height in pixels."""


@dataclass(frozen=True, slots=True)
class NamedBox:
    """An object in an image: its box in pixels of the upright image (EXIF applied), its name and referring phrases."""

    box: Box
    name: str
    phrases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """A question about an image, its answer and its type ("" if not given)."""

    question: str
    answer: str
    type: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a data set and its annotations."""

    file_name: str
    split: str = "train"
    captions: tuple[str, ...] = ()
    long_text: str | None = None
    objects: tuple[NamedBox, ...] = ()
    questions: tuple[Question, ...] = ()
    segmentation: str | None = None

    @property
    def text(self) -> str | None:
        """The long text; else the captions as sentences, separated by blank lines; else None."""
        if self.long_text is not None:
            return self.long_text
        return "\n\n".join(self.sentences) or None

    @property
    def sentences(self) -> tuple[str, ...]:
        """The captions, each with a full stop."""
        return tuple(_as_sentence(caption) for caption in self.captions)

    def texts(self, each_caption: bool) -> list[tuple[str, str]]:
        """Keys and texts as a text store reads them: `text` ("" without one), or each caption under its own key."""
        if not each_caption:
            return [(self.file_name, self.text or "")]
        sentences = self.sentences or ("",)
        return [(caption_key(self.file_name, number), text) for number, text in enumerate(sentences)]


SENTENCE_ENDS = ("!", "?", "…", "。", "！", "？", '."', '!"', '?"', ".”", "!”", "?”")
"""Endings of a caption that need no full stop."""


def _as_sentence(caption: str) -> str:
    """`A dog runs .` and `A dog runs` as `A dog runs.`"""
    caption = caption.strip()
    return caption if caption.endswith(SENTENCE_ENDS) else caption.rstrip(". ") + "."


def hash_name(file_name: str) -> int:
    """A 64-bit hash of an image's name; among 10^8 names the chance of any collision is 1 in 4,000."""
    return int.from_bytes(hashlib.blake2b(posixpath.normpath(file_name).encode(), digest_size=8).digest(), "little")


def to_line(record: Record) -> bytes:
    """The line of metadata.jsonl that `read_record` reads as this record; empty fields are omitted."""
    fields = {name: value for name, value in asdict(record).items() if value or name in ("file_name", "split")}
    return (json.dumps(fields, ensure_ascii=False, allow_nan=False) + "\n").encode()


@dataclass(frozen=True, slots=True)
class Description:
    """What a model wrote about an image, one line of long_text.jsonl: a text, or the reason why there is none.

    `cut` is True if the text was truncated to its last whole sentence; `time` is when it was written, in seconds since
    1970 (0 if the line does not say).
    """

    file_name: str
    model: str
    prompt: str
    text: str | None = None
    fault: str | None = None
    cut: bool = False
    time: int = 0

    def to_line(self) -> bytes:
        """The line that `read_description` reads as this description; default values are omitted."""
        fields = {name: value for name, value in asdict(self).items() if value}
        return (json.dumps(fields, ensure_ascii=False, allow_nan=False) + "\n").encode()


T = TypeVar("T")


class _Unusable(Exception):
    """Why a value cannot be used."""


@dataclass(frozen=True)
class Place:
    """Where a line of metadata stands.

    Attributes:
        folder: the data set.
        file: the name of the file with the line.
        parent: the folder that its names are relative to, with a slash at its end, or "".
        split: of lines that name none.
    """

    folder: Path
    file: str = METADATA
    parent: str = ""
    split: str | None = None

    @cached_property
    def root(self) -> Path:
        """The folder with all links resolved."""
        return self.folder.resolve()


def read_record(line: bytes | dict[str, Any], number: int, place: Path | Place) -> tuple[Record | None, list[Fault]]:
    """Read line `number` of metadata: its record, or None if it has no usable name or split, and its faults.

    Never raises, whatever the line holds.

    Args:
        line: JSON, or the fields themselves.
        number: of the line.
        place: the file, or the data set whose metadata.jsonl has the line.
    """
    reader = _LineReader(line, number, place if isinstance(place, Place) else Place(place))
    return reader.record, reader.faults


def read_description(line: bytes) -> Description | str:
    """Read a line of long_text.jsonl: the description, or the reason why it cannot be used.

    Never raises, whatever the line holds.
    """
    try:
        fields = _parse_object(parse_json(line.decode("utf-8-sig"), "the line"))
        name = _parse_field(fields, "file_name", _parse_name)
        model, prompt = (_parse_optional_text(fields, field) for field in ("model", "prompt"))
        time = _parse_field(fields, "time", _parse_seconds)
        if fields.get("text") is None and fields.get("fault") is not None:
            return Description(name, model, prompt, fault=_parse_field(fields, "fault", _parse_text), time=time)
        text = _parse_field(fields, "text", _parse_text)
        return Description(name, model, prompt, text, cut=fields.get("cut") is True, time=time)
    except UnicodeDecodeError:
        return "the line is not UTF-8 text"
    except (FileError, _Unusable) as error:
        return str(error)


class _LineReader:
    """Reads a line of metadata field by field; what cannot be used becomes a fault and is left out."""

    def __init__(self, line: bytes | dict[str, Any], number: int, place: Place) -> None:
        self.place = place
        self.where = f"{place.file} line {number}"
        self.split: str | None = None
        self.faults: list[Fault] = []
        self.record: Record | None = None
        try:
            fields = _parse_object(line if isinstance(line, dict) else parse_json(line.decode("utf-8-sig"), "the line"))
            if fields.get("split") is None:
                fields = {**fields, "split": place.split}
            with contextlib.suppress(_Unusable):  # known even where the line is left out for its name
                self.split = _parse_split(fields.get("split"))
            file_name = _parse_field(fields, "file_name", self._parse_path)
            self.where = file_name
            self.record = self._build_record(file_name, fields)
        except UnicodeDecodeError:
            self._add_fault("the line is not UTF-8 text")
        except (FileError, _Unusable) as error:
            self._add_fault(str(error))
        if self.record is None:
            self.faults = [replace(fault, costs_image=True) for fault in self.faults]

    def _build_record(self, file_name: str, fields: dict[str, Any]) -> Record:
        return Record(
            file_name,
            _parse_field(fields, "split", _parse_split),
            self._parse_list(*_find_captions(fields), _parse_text),
            self._parse_optional(fields, "long_text", _parse_text),
            self._parse_list(fields, "objects", _parse_named_box),
            self._parse_list(fields, "questions", _parse_question),
            self._parse_optional(fields, "segmentation", self._parse_path),
        )

    def _add_fault(self, reason: str, part: str = "") -> None:
        self.faults.append(Fault(self.where, reason, self.split, part=part))

    def _parse_path(self, value: Any) -> str:
        name = find_name(self.place.folder, self.place.parent + _parse_name(value))
        try:
            path = resolve_inside(self.place.folder, name, self.place.root)
        except FileError:
            path = None
        # `a/../b.png` stays inside, but the same file would then have several names
        if path is None or ".." in name.split("/"):
            raise _Unusable(f"{name!r:.200} leads outside the data set; use a relative path inside it")
        return name

    def _parse_optional(self, fields: dict[str, Any], field: str, parse: Callable[[Any], str]) -> str | None:
        try:
            return _parse_field(fields, field, parse) if fields.get(field) is not None else None
        except _Unusable as error:
            self._add_fault(str(error), field)
        return None

    def _parse_list(self, fields: dict[str, Any], field: str, parse: Callable[[Any], Any]) -> tuple[Any, ...]:
        """The usable elements of a list; each of the others becomes a fault."""
        values = fields.get(field)
        if values is None:
            return ()
        if not isinstance(values, list):
            self._add_fault(f"{field} must be a list, got {json_type(values)}", field)
            return ()
        if not values and field == "captions":
            self._add_fault("captions is an empty list; omit the field for an image without text", field)
        usable = []
        for position, value in enumerate(values, 1):
            try:
                usable.append(parse(value))
            except _Unusable as error:
                self._add_fault(f"{field} entry {position} {error}", field)
        return tuple(usable)


def _find_captions(fields: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The fields and the name of the one with the captions; Hugging Face's have one of them in `text` or `caption`."""
    names = [name for name in ("text", "caption") if isinstance(fields.get(name), str | list)]
    if fields.get("captions") is not None or not names:
        return fields, "captions"
    value = fields[names[0]]
    return {names[0]: [value] if isinstance(value, str) else value}, names[0]


def _parse_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Unusable(f"must be a JSON object, got {json_type(value)}")
    return value


def _parse_field(fields: dict[str, Any], field: str, parse: Callable[[Any], T]) -> T:
    """The field as `parse` returns it; the reason why it cannot be used begins with its name."""
    try:
        return parse(fields.get(field))
    except _Unusable as error:
        raise _Unusable(f"{field} {error}") from error


def _parse_optional_text(fields: dict[str, Any], field: str) -> str:
    """The text of the field, "" where it is absent or empty."""
    return _parse_field(fields, field, _parse_text) if fields.get(field) else ""


def _parse_name(value: Any) -> str:
    if value is None or value == "":
        raise _Unusable("is missing")
    if not isinstance(value, str):
        raise _Unusable(f"must be a string, got {json_type(value)}")
    if not is_printable(value):
        raise _Unusable(f"{value!a:.200} contains control characters or invalid Unicode")
    return value


def _parse_seconds(value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_TIME:
        raise _Unusable(f"must be a whole number of seconds since 1970, got {value!a:.50}")
    return value


def _parse_split(value: Any) -> str:
    if value is None:
        return "train"
    if value not in SPLITS:
        raise _Unusable(f"{value!a:.50} is unknown; known: {', '.join(SPLITS)}")
    return str(value)


def _parse_text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Unusable(f"must be a string, got {json_type(value)}")
    value = value.translate(WINDOWS)
    if not value.strip():
        raise _Unusable("is empty")
    if len(value) > MAX_TEXT:
        raise _Unusable(f"has {len(value):,} characters; at most {MAX_TEXT:,} are allowed")
    if not is_printable(value, allowed="\n\r\t"):
        raise _Unusable("contains control characters or invalid Unicode")
    return value


def clean_text(value: Any) -> str | None:
    """The text without control characters and surrounding whitespace; None if it is empty, too long or not text."""
    try:
        return _parse_text(replace_unprintable(value)).strip()
    except _Unusable:
        return None


def _parse_named_box(value: Any) -> NamedBox:
    fields = _parse_object(value)
    box = fields.get("box")
    if not isinstance(box, list) or len(box) != 4 or not all(is_number(number) for number in box):
        raise _Unusable("needs a box of four numbers [x, y, width, height]")
    if min(box[2:]) <= 0:
        raise _Unusable(f"has a box without area: {box}")
    phrases = fields.get("phrases") or []
    if not isinstance(phrases, list):
        raise _Unusable(f"phrases must be a list, got {json_type(phrases)}")
    x, y, width, height = map(float, box)
    name = _parse_field(fields, "name", _parse_text)
    return NamedBox((x, y, width, height), name, tuple(_parse_text(phrase) for phrase in phrases))


def _parse_question(value: Any) -> Question:
    fields = _parse_object(value)
    kind = "" if fields.get("type") in (None, "") else _parse_field(fields, "type", _parse_text)
    question, answer = (_parse_field(fields, field, _parse_text) for field in ("question", "answer"))
    return Question(question, answer, kind)
