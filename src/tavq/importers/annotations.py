"""Reading values from the annotation files of other projects, which are as untrusted as their images."""

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tavq.core.errors import DataError
from tavq.core.files import MAX_JSON, read_json
from tavq.data.images import MAX_PIXELS
from tavq.data.records import Box
from tavq.importers.rescaling import Size


def read_lists(path: Path, names: Iterable[str], left_out: Counter[str]) -> dict[str, list[dict[str, Any]]]:
    """Read lists of JSON objects by name from a JSON file; entries that are not objects are counted and left out."""
    value = read_json(path, MAX_JSON)
    lists = {}
    for name in names:
        entries = value.get(name) if isinstance(value, dict) else None
        if not isinstance(entries, list):
            raise DataError(f"{path} must be a JSON object with a list {name!r}.")
        lists[name] = select_objects(entries, left_out)
    return lists


def select_objects(entries: Iterable[Any], left_out: Counter[str]) -> list[dict[str, Any]]:
    """The JSON objects among the entries; the others are counted."""
    entries = list(entries)
    selected = [entry for entry in entries if isinstance(entry, dict)]
    left_out["entries that are not JSON objects"] += len(entries) - len(selected)
    return selected


def read_id(entry: dict[str, Any], name: str) -> int | str | None:
    """The number or string by which entries refer to each other, or None."""
    value = entry.get(name)
    return value if type(value) in (int, str) else None


def read_size(entry: dict[str, Any], width: str = "width", height: str = "height") -> Size | None:
    """(width, height) of an entry, or None if they are missing or impossible."""
    size = entry.get(width), entry.get(height)
    if not all(type(side) is int and side > 0 for side in size) or math.prod(size) > MAX_PIXELS:  # type: ignore[arg-type]
        return None
    return size  # type: ignore[return-value]


def read_box(value: Any) -> Box | None:
    """Four finite numbers [x, y, width, height] with a positive area, or None."""
    if not isinstance(value, list | tuple) or len(value) != 4:
        return None
    if not all(isinstance(number, int | float) and abs(number) < 1e9 for number in value) or min(value[2:]) <= 0:
        return None
    x, y, w, h = (float(number) for number in value)
    return x, y, w, h
