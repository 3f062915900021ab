"""Texts that a model wrote about the images of a data set: long_text.jsonl and its shards, all read together."""

from array import array
from collections.abc import Iterator
from pathlib import Path
from posixpath import normpath
from types import TracebackType
from unicodedata import normalize

import numpy as np

from tavq.core.errors import DataError, FileError
from tavq.core.jsonl import LineReader, iter_raw_lines
from tavq.data.records import Description, Fault, Faults, hash_name, read_description

LONG_TEXT = "long_text.jsonl"
PATTERN = "long_text*.jsonl"
MAX_LINE = 2_000_000  # bytes; 100,000 characters of text are less, however JSON escapes them
OFFSET_BITS = 40  # of the byte offset of a line in its file: a terabyte
MAX_FILES = 1 << 64 - OFFSET_BITS
UNFINISHED = "the last line has no newline, as if it was still being written, and is not read; end it with one"


def _compose(file_name: str) -> str:
    """One spelling of a name, since systems differ in how they store `é`."""
    return normalize("NFC", normpath(file_name))


class Descriptions:
    """The descriptions of a folder data set by image; takes 17 bytes of memory a line, and 49 while opening.

    Reads every `long_text*.jsonl` of the folder. Of an image's lines the newest one with a text wins by `time`; if
    none has a text, the newest one that gives a reason. A line without a `time` is older than all lines with one;
    of the same time the later line wins, in the order of file names and lines. With `model` and `prompt`, only lines
    with both count.

    A last line without its newline is still being written and is skipped; it is one of the `faults` if it is whole, as
    in a file that was made by hand. Other lines that cannot be read are faults too. Lines that are appended after
    opening are not seen.
    """

    def __init__(self, folder: Path, model: str | None = None, prompt: str | None = None) -> None:
        self.folder = folder
        self.model, self.prompt = model, prompt
        self.faults = Faults()
        self._files = sorted(path for path in folder.glob(PATTERN) if path.is_file())
        self._lines = LineReader(MAX_LINE)
        if len(self._files) > MAX_FILES or any(path.stat().st_size >> OFFSET_BITS for path in self._files):
            raise DataError(f"{folder}: at most {MAX_FILES:,} files {PATTERN} of a terabyte each are read.")
        keys, times, locations = array("Q"), array("Q"), array("Q")
        for index in range(len(self._files)):
            self._scan(index, keys, times, locations)
        unsorted = np.asarray(keys, np.uint64)
        # by image, then by time; a stable sort, so that lines of the same time keep their order
        order = np.lexsort((np.asarray(times, np.uint64), unsorted))
        self._keys = unsorted[order]
        # a location is the index of the file and the offset of the line, packed into 64 bits
        self._locations = np.asarray(locations, np.uint64)[order]
        self._known = np.zeros(len(order), bool)

    def _scan(self, index: int, keys: "array[int]", times: "array[int]", locations: "array[int]") -> None:
        path = self._files[index]
        for number, (offset, line) in enumerate(iter_raw_lines(path, MAX_LINE), 1):
            found = self._parse(line)
            if isinstance(found, str):
                self.faults.add([Fault(f"{path.name} line {number}", found, part="long_text")])
            elif found is not None and self._matches(found):
                keys.append(hash_name(_compose(found.file_name)))
                times.append(found.time)
                locations.append(index << OFFSET_BITS | offset)

    def _parse(self, line: bytes) -> Description | str | None:
        """The description, the reason why it cannot be read, or None for a line without content or end."""
        if len(line) > MAX_LINE:
            return f"the line is longer than {MAX_LINE:,} bytes"
        found = read_description(line) if line.strip() else None
        if line.endswith(b"\n"):
            return found
        return UNFINISHED if isinstance(found, Description) else None

    def _matches(self, found: Description) -> bool:
        return self.model in (None, found.model) and self.prompt in (None, found.prompt)

    def __len__(self) -> int:
        """How many lines were found, with a text or with the reason why there is none."""
        return len(self._keys)

    def find(self, file_name: str) -> Description | None:
        """The newest description of an image with a text, else the newest with a reason; None if no line names it."""
        without_text = None
        for description in self._descriptions_of(file_name):
            if description.text is not None:
                return description
            without_text = without_text or description
        return without_text

    def mark(self, file_name: str) -> None:
        """Note that the data set has this image."""
        first, end = self._range(file_name)
        self._known[first:end] = True

    def find_unmatched(self) -> list[Fault]:
        """One fault for the lines that name no image of those that were marked; none if there are no such lines."""
        unmatched = np.flatnonzero(~self._known)
        first = next((found for row in unmatched[:1] if (found := self._read(int(self._locations[row])))), None)
        if first is None:
            return []
        count = f"{len(unmatched):,} lines name" if len(unmatched) > 1 else "a line names"
        reason = f"{count} no image of the data set, such as {first.file_name!r}"
        return [Fault(self._files[int(self._locations[unmatched[0]]) >> OFFSET_BITS].name, reason, part="long_text")]

    def _range(self, file_name: str) -> tuple[int, int]:
        """Where the lines of an image are, by its hash."""
        key = np.uint64(hash_name(_compose(file_name)))
        return int(np.searchsorted(self._keys, key, "left")), int(np.searchsorted(self._keys, key, "right"))

    def text(self, file_name: str) -> str | None:
        """The newest text of an image, or None."""
        found = self.find(file_name)
        return found.text if found is not None else None

    def _descriptions_of(self, file_name: str) -> Iterator[Description]:
        """The descriptions of an image, newest first."""
        first, end = self._range(file_name)
        for index in reversed(range(first, end)):
            found = self._read(int(self._locations[index]))
            # two names may have the same hash
            if found is not None and _compose(found.file_name) == _compose(file_name):
                yield found

    def _read(self, location: int) -> Description | None:
        path, offset = self._files[location >> OFFSET_BITS], location & ((1 << OFFSET_BITS) - 1)
        try:
            found = read_description(self._lines.read(path, offset))
        except FileError:  # the file was removed since
            return None
        return found if isinstance(found, Description) and self._matches(found) else None

    def close(self) -> None:
        """Close the files."""
        self._lines.close()

    def __enter__(self) -> "Descriptions":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
