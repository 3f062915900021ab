"""Reading metadata.csv: a table with the column file_name, whose other columns are fields of metadata.jsonl."""

import csv
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tavq.core import files
from tavq.core.errors import DataError, FileError
from tavq.core.regular import open_regular

DELIMITERS = (",", ";", "\t")
MAX_CELL = 2_000_000  # characters
JSON_FIELDS = ("captions", "objects", "questions")
"""Fields whose cell may hold a JSON list."""


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line on which each row ends, and its fields; empty cells are left out.

    The separator is a comma, a semicolon or a tab, whichever gives a column file_name. Bytes that are not UTF-8 are
    read as Windows-1252, which spreadsheets write.

    Raises:
        DataError: no column is named file_name, or a row cannot be read.
        FileError: the file cannot be read.
    """
    csv.field_size_limit(MAX_CELL)
    try:
        with io.TextIOWrapper(open_regular(path), "utf-8-sig", "surrogateescape", newline="") as file:
            first = file.readline(MAX_CELL)
            delimiter = next((each for each in DELIMITERS if "file_name" in _cells(first, each)), None)
            if delimiter is None:
                found = ", ".join(map(repr, _cells(first, ",")[:20]))
                raise DataError(f"{path.name} has no column file_name; its columns: {found}.")
            reader = csv.reader(itertools.chain([first], file), delimiter=delimiter)
            header = [name.strip() for name in next(reader)]
            for row in reader:
                cells = zip(header, map(_decode, row), strict=False)
                fields = {name: _parse(name, cell) for name, cell in cells if cell.strip()}
                if fields:
                    yield reader.line_num, fields
    except csv.Error as error:
        raise DataError(f"{path.name} line {reader.line_num} cannot be read: {error}.") from error
    except OSError as error:
        raise FileError(f"Could not read {path}: {error.strerror or error}.") from error


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip().strip('"') for cell in line.strip().split(delimiter)]


def _decode(cell: str) -> str:
    try:
        cell.encode()
    except UnicodeEncodeError:
        return cell.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
    return cell


def _parse(name: str, cell: str) -> Any:
    if name not in JSON_FIELDS:
        return cell
    try:
        return files.parse_json(cell, name)
    except FileError:
        return [cell] if name == "captions" else cell
