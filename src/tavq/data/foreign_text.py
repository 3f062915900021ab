"""Text files of other projects: any line ending and byte order mark, UTF-16, and lines that are not UTF-8."""

import re
import unicodedata
from collections import Counter
from pathlib import Path

from tavq.core.files import read_bytes

NOT_UTF8 = "lines that are not UTF-8, read as Windows-1252"

MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
"""Byte order marks and the encodings that they stand for."""


def read_foreign_text(path: Path, counts: Counter[str] | None = None) -> str:
    """Read a text file by `decode_foreign`; FileError if there is none."""
    return decode_foreign(read_bytes(path), counts)


def decode_foreign(data: bytes, counts: Counter[str] | None = None) -> str:
    """Decode text without its byte order mark, each line that is not UTF-8 as Windows-1252.

    Line by line, because a list may be joined from files of several encodings, and one line must not spoil the others.

    Args:
        data: the bytes of the file.
        counts: counts the lines that are not UTF-8.
    """
    mark, encoding = next(((mark, encoding) for mark, encoding in MARKS if data.startswith(mark)), (b"", "utf-8"))
    data = data.removeprefix(mark)
    if encoding != "utf-8":
        return data.decode(encoding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "\n".join(_decode_line(line, counts) for line in data.split(b"\n"))


def _decode_line(line: bytes, counts: Counter[str] | None) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        if counts is not None:
            counts[NOT_UTF8] += 1
    # five bytes have no meaning in Windows-1252
    return line.decode("cp1252", "replace")


def split_lines(text: str) -> list[str]:
    """The lines of a text, ended by \\n, \\r\\n or \\r alone.

    `str.splitlines` also cuts at U+2028, U+0085 and form feeds, which stand inside captions.
    """
    lines = re.split(r"\r\n|\n|\r", text)
    return lines if lines[-1] else lines[:-1]


def normalize_name(name: str) -> str:
    """The composed form (NFC) of a file name: macOS stores `é` as two characters, most lists have one."""
    return unicodedata.normalize("NFC", name)
