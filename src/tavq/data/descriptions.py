"""Texts that a model wrote about the images of a data set: long_text.jsonl and its shards, all read together."""

from array import array
from collections.abc import Iterator
from pathlib import Path
from posixpath import normpath
from types import TracebackType

import numpy as np

from tavq.core.errors import DataError, FileError
from tavq.core.jsonl import LineReader, iter_raw_lines
from tavq.data.records import Description, Fault, Faults, hash_name, read_description

LONG_TEXT = "long_text.jsonl"
PATTERN = "long_text*.jsonl"
LONGEST = 2_000_000  # bytes of a line; 100,000 characters of text are less, however JSON writes them
PLACE_BITS = 40  # of a byte's place in its file: a terabyte
FAULT_BIT = 63
FILES = 2 ** (FAULT_BIT - PLACE_BITS)


class Descriptions:
    """The descriptions of a folder data set, found by image; memory is 16 bytes a line, and 48 while opening.

    Every `long_text*.jsonl` of the folder is read. Of an image's lines the newest by their `time` that has a text
    wins, and where none has one, the newest that says why; a line without a `time` is older than all that have one,
    and of the same time the one that comes later wins, in the order of the files' names and of their lines. With
    `model` and `prompt`, only lines of both count.
    A last line without its newline is one that a writer has not ended, and is passed over; other lines that cannot
    be read are `faults`. What stands in the files when this is made is what is read, though others may append.
    """

    def __init__(self, folder: Path, model: str | None = None, prompt: str | None = None) -> None:
        self.folder = folder
        self.model, self.prompt = model, prompt
        self.faults = Faults()
        self._files = sorted(path for path in folder.glob(PATTERN) if path.is_file())
        self._lines = LineReader(LONGEST)
        if len(self._files) > FILES or any(path.stat().st_size >> PLACE_BITS for path in self._files):
            raise DataError(f"{folder}: at most {FILES:,} files {PATTERN} of a terabyte each are read.")
        keys, times, places = array("Q"), array("Q"), array("Q")
        for number in range(len(self._files)):
            self._scan(number, keys, times, places)
        unsorted = np.asarray(keys, np.uint64)
        # by image, then by time; stable: of the same time they stay in the order they came
        order = np.lexsort((np.asarray(times, np.uint64), unsorted))
        self._keys = unsorted[order]
        self._places = np.asarray(places, np.uint64)[order]

    def _scan(self, number: int, keys: "array[int]", times: "array[int]", places: "array[int]") -> None:
        path = self._files[number]
        for count, (place, line) in enumerate(iter_raw_lines(path, LONGEST), 1):
            found = self._read(line)
            if isinstance(found, str):
                self.faults.add([Fault(f"{path.name} line {count}", found)])
            elif found is not None and self._counts(found):
                keys.append(hash_name(found.file_name))
                times.append(found.time)
                places.append((found.text is None) << FAULT_BIT | number << PLACE_BITS | place)

    def _read(self, line: bytes) -> Description | str | None:
        if len(line) > LONGEST:
            return f"the line is longer than {LONGEST:,} bytes"
        return read_description(line) if line.endswith(b"\n") and line.strip() else None

    def _counts(self, found: Description) -> bool:
        return self.model in (None, found.model) and self.prompt in (None, found.prompt)

    def __len__(self) -> int:
        """How many lines were found, with a text or with the reason why there is none."""
        return len(self._keys)

    def find(self, file_name: str) -> Description | None:
        """The image's description: its newest text, or else why there is none; None where no line knows it."""
        reason = None
        for description in self._of(file_name):
            if description.text is not None:
                return description
            reason = reason or description
        return reason

    def text(self, file_name: str) -> str | None:
        """The image's newest text, or None."""
        found = self.find(file_name)
        return found.text if found is not None else None

    def _of(self, file_name: str) -> Iterator[Description]:
        """The image's descriptions, the newest first. The name is compared too: two may have the same key."""
        key = np.uint64(hash_name(file_name))
        first, end = (int(np.searchsorted(self._keys, key, side)) for side in ("left", "right"))
        for index in reversed(range(first, end)):
            found = self._at(int(self._places[index]))
            if found is not None and normpath(found.file_name) == normpath(file_name):
                yield found

    def _at(self, place: int) -> Description | None:
        number = (place & ~(1 << FAULT_BIT)) >> PLACE_BITS
        try:
            found = read_description(self._lines.read(self._files[number], place & ((1 << PLACE_BITS) - 1)))
        except FileError:  # removed since
            return None
        return found if isinstance(found, Description) and self._counts(found) else None

    def close(self) -> None:
        """Closes the files."""
        self._lines.close()

    def __enter__(self) -> "Descriptions":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
