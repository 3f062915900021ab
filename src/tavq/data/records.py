"""What is known of one image of a data set, read from one line of metadata.jsonl that may hold anything."""

import hashlib
import json
import math
import posixpath
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from tavq.core.errors import FileError
from tavq.core.files import parse_json, resolve_inside

METADATA = "metadata.jsonl"
SPLITS = ("train", "val", "test")
MAX_TEXT = 100_000  # characters; a longer caption is a file that went into the wrong field
MAX_LINE = 16_000_000  # bytes; a longer line is no image's
LATEST = 2**40  # seconds since 1970: in 34,000 years
UNPRINTABLE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")
"""The characters of Unicode's categories Cc and Cs, which no later version will add to."""


@dataclass(frozen=True)
class Fault:
    """Something in a data set that cannot be used."""

    where: str  # the file_name, or the line of metadata.jsonl when that is what cannot be read
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class Faults:
    """How many faults there were, and the first of them: of a data set of any size in bounded memory."""

    def __init__(self, keep: float = 1000) -> None:
        self.keep = keep
        self.count = 0
        self.first: list[Fault] = []

    def add(self, found: Iterable[Fault]) -> None:
        """Counts each fault."""
        for fault in found:
            self.count += 1
            if len(self.first) < self.keep:
                self.first.append(fault)

    def join(self, others: "Faults") -> None:
        """Counts those that were counted elsewhere."""
        unseen = others.count - len(others.first)
        self.add(others.first)
        self.count += unseen


Box = tuple[float, float, float, float]
"""Left, top, width and height in pixels."""


@dataclass(frozen=True, slots=True)
class NamedBox:
    """A thing in an image: its box in the pixels of the upright image, and its names."""

    box: Box
    name: str
    phrases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """A question about an image, its answer and its type ("" where none is given)."""

    question: str
    answer: str
    type: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a data set and what is known of it."""

    file_name: str
    split: str = "train"
    captions: tuple[str, ...] = ()
    long_text: str | None = None
    objects: tuple[NamedBox, ...] = ()
    questions: tuple[Question, ...] = ()
    segmentation: str | None = None

    @property
    def text(self) -> str | None:
        """The long text; else the captions as sentences, a blank line between each two; else None."""
        if self.long_text is not None:
            return self.long_text
        return "\n\n".join(_sentence(caption) for caption in self.captions) or None


ENDS = ("!", "?", "…", "。", "！", "？", '."', '!"', '?"', ".”", "!”", "?”")
"""What a caption may end in that needs no full stop."""


def _sentence(caption: str) -> str:
    """`A dog runs .` and `A dog runs` as `A dog runs.`"""
    caption = caption.strip()
    return caption if caption.endswith(ENDS) else caption.rstrip(". ") + "."


def hash_name(file_name: str) -> int:
    """64 bits that stand for an image's name; of 10^8 names two share them with a chance of 1 in 4,000."""
    return int.from_bytes(hashlib.blake2b(posixpath.normpath(file_name).encode(), digest_size=8).digest(), "little")


def to_line(record: Record) -> bytes:
    """The line of metadata.jsonl that `read_record` reads as this record; fields without a value are left out."""
    fields = {name: value for name, value in asdict(record).items() if value or name in ("file_name", "split")}
    return (json.dumps(fields, ensure_ascii=False, allow_nan=False) + "\n").encode()


@dataclass(frozen=True, slots=True)
class Description:
    """What a model wrote about an image, one line of long_text.jsonl: a text, or why there is none.

    `cut` tells that the text was cut back to its last whole sentence; `time` is when it was written, in seconds since
    1970, and 0 where the line does not say.
    """

    file_name: str
    model: str
    prompt: str
    text: str | None = None
    fault: str | None = None
    cut: bool = False
    time: int = 0

    def to_line(self) -> bytes:
        """The line that `read_description` reads as this; what it would read from an absent field is left out."""
        fields = {name: value for name, value in asdict(self).items() if value}
        return (json.dumps(fields, ensure_ascii=False, allow_nan=False) + "\n").encode()


T = TypeVar("T")


class _Unusable(Exception):
    """Why a value cannot be used."""


def read_record(line: bytes, number: int, folder: Path) -> tuple[Record | None, list[Fault]]:
    """The record in one line of metadata.jsonl, None when it cannot stand, and every fault of the line.

    Never raises, whatever the line holds.
    """
    reader = _LineReader(line, number, folder)
    return reader.record, reader.faults


def read_description(line: bytes) -> Description | str:
    """The description in one line of long_text.jsonl, or why it cannot stand. Never raises, whatever the line holds."""
    try:
        fields = _mapping(parse_json(line.decode("utf-8"), "the line"))
        name = _field(fields, "file_name", _name)
        model, prompt = (_field(fields, field, _text) if fields.get(field) else "" for field in ("model", "prompt"))
        time = _field(fields, "time", _seconds)
        if fields.get("text") is None and fields.get("fault") is not None:
            return Description(name, model, prompt, fault=_field(fields, "fault", _text), time=time)
        return Description(name, model, prompt, _field(fields, "text", _text), None, fields.get("cut") is True, time)
    except UnicodeDecodeError:
        return "the line is not UTF-8 text"
    except (FileError, _Unusable) as error:
        return str(error)


class _LineReader:
    """Reads a line field by field and notes what cannot be used."""

    def __init__(self, line: bytes, number: int, folder: Path) -> None:
        self.folder = folder
        self.where = f"{METADATA} line {number}"
        self.faults: list[Fault] = []
        self.record: Record | None = None
        try:
            fields = _mapping(parse_json(line.decode("utf-8"), "the line"))
            file_name = _field(fields, "file_name", self._inside)
            self.where = file_name
            self.record = self._read(file_name, fields)
        except UnicodeDecodeError:
            self._fault("the line is not UTF-8 text")
        except (FileError, _Unusable) as error:
            self._fault(str(error))

    def _read(self, file_name: str, fields: dict[str, Any]) -> Record:
        return Record(
            file_name,
            _field(fields, "split", _split),
            self._each(fields, "captions", _text),
            self._optional(fields, "long_text", _text),
            self._each(fields, "objects", _named_box),
            self._each(fields, "questions", _question),
            self._optional(fields, "segmentation", self._inside),
        )

    def _fault(self, reason: str) -> None:
        self.faults.append(Fault(self.where, reason))

    def _inside(self, given: Any) -> str:
        value = _name(given)
        try:
            path = resolve_inside(self.folder, value)
        except FileError:
            path = None
        if path is None or ".." in value.split("/"):
            raise _Unusable(f"{value!r:.200} leads outside the data set; only relative paths inside it are read")
        return value

    def _optional(self, fields: dict[str, Any], field: str, read: Callable[[Any], str]) -> str | None:
        try:
            return _field(fields, field, read) if fields.get(field) is not None else None
        except _Unusable as error:
            self._fault(str(error))
            return None

    def _each(self, fields: dict[str, Any], field: str, read: Callable[[Any], Any]) -> tuple[Any, ...]:
        """The usable elements of a list; each of the others is a fault."""
        values = fields.get(field)
        if values is None:
            return ()
        if not isinstance(values, list):
            self._fault(f"{field} must be a list, got {_kind(values)}")
            return ()
        if not values and field == "captions":
            self._fault("captions is an empty list; leave the field out where an image has no text")
        usable = []
        for position, value in enumerate(values, 1):
            try:
                usable.append(read(value))
            except _Unusable as error:
                self._fault(f"{field} entry {position} {error}")
        return tuple(usable)


def _kind(value: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "a mapping"}
    return "null" if value is None else names[type(value)]


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Unusable(f"must be a mapping (name: value), got {_kind(value)}")
    return value


def _field(fields: dict[str, Any], field: str, read: Callable[[Any], T]) -> T:
    """The field as `read` gives it; where it cannot be used, the reason names it."""
    try:
        return read(fields.get(field))
    except _Unusable as error:
        raise _Unusable(f"{field} {error}") from error


def _name(value: Any) -> str:
    if value is None or value == "":
        raise _Unusable("is missing")
    if not isinstance(value, str):
        raise _Unusable(f"must be text, got {_kind(value)}")
    if not _printable(value):
        raise _Unusable(f"{value!a:.200} holds control characters or broken Unicode")
    return value


def _seconds(value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LATEST:
        raise _Unusable(f"must be a whole number of seconds since 1970, got {value!a:.50}")
    return value


def _split(value: Any) -> str:
    if value is None:
        return "train"
    if value not in SPLITS:
        raise _Unusable(f"{value!a:.50} is unknown; known: {', '.join(SPLITS)}")
    return str(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Unusable(f"must be text, got {_kind(value)}")
    if not value.strip():
        raise _Unusable("is empty")
    if len(value) > MAX_TEXT:
        raise _Unusable(f"has {len(value):,} characters; at most {MAX_TEXT:,} are read")
    if not _printable(value, but="\n\r\t"):
        raise _Unusable("holds control characters or broken Unicode")
    return value


def usable_text(value: Any) -> str | None:
    """The text without the blanks around it, or None when a record could not hold it."""
    try:
        return _text(value).strip()
    except _Unusable:
        return None


def _printable(text: str, but: str = "") -> bool:
    """Whether the text can be shown and stored as UTF-8: no control characters, no half of a surrogate pair."""
    return all(letter in but for letter in UNPRINTABLE.findall(text))


def _named_box(value: Any) -> NamedBox:
    fields = _mapping(value)
    box = fields.get("box")
    if not isinstance(box, list) or len(box) != 4 or not all(is_number(number) for number in box):
        raise _Unusable("needs a box of four numbers [x, y, width, height]")
    if min(box[2:]) <= 0:
        raise _Unusable(f"has a box without area: {box}")
    phrases = fields.get("phrases") or []
    if not isinstance(phrases, list):
        raise _Unusable(f"phrases must be a list, got {_kind(phrases)}")
    x, y, width, height = (float(number) for number in box)
    return NamedBox((x, y, width, height), _field(fields, "name", _text), tuple(_text(phrase) for phrase in phrases))


def is_number(value: Any) -> bool:
    """Whether a value that was read from JSON is a finite number."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def _question(value: Any) -> Question:
    fields = _mapping(value)
    kind = "" if fields.get("type") in (None, "") else _field(fields, "type", _text)
    return Question(_field(fields, "question", _text), _field(fields, "answer", _text), kind)
