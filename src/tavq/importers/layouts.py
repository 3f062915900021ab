"""What the layouts of published data sets have in common: their folders, files, lists, captions, names and splits."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from tavq.core.errors import DataError, UsageError
from tavq.core.files import read_text
from tavq.data.images import SUFFIXES

MAX_NAME = 200  # bytes of one part of a path; file systems stop at 255, and a temporary name is longer
SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def check_source(source: Path) -> None:
    """Raises UsageError when there is no such folder."""
    if not source.is_dir():
        raise UsageError(f"There is no folder {source}; give the folder that holds the published data set.")


def first_file(source: Path, names: Iterable[str], folders: Sequence[str] = ("", "annotations")) -> Path | None:
    """The first of the files `names` that is in `source` or one of its folders."""
    return next((source / at / name for name in names for at in folders if (source / at / name).is_file()), None)


def find_file(source: Path, name: str, folders: Sequence[str] = ()) -> Path:
    """The file `name` in `source` or in one of its `folders`; DataError says where it was looked for."""
    check_source(source)
    found = first_file(source, [name], ["", *folders])
    if found is None:
        places = " or ".join(str(source / folder) for folder in ("", *folders))
        raise DataError(f"There is no file {name} in {places}; is this the right folder?")
    return found


def find_folder(source: Path, names: Sequence[str]) -> Path | None:
    """The first of the folders `names` that is in `source`; None where none is."""
    return next((source / name for name in names if (source / name).is_dir()), None)


def need_folder(source: Path, names: Sequence[str], what: str) -> Path:
    """The first of the folders `names` in `source`; DataError says `what` was looked for, and where."""
    check_source(source)
    found = find_folder(source, names)
    if found is None:
        raise DataError(f"There is no folder of {what} in {source}: {', '.join(names)} were looked for.")
    return found


def split_named(name: object) -> str | None:
    """train, val or test by any of their usual names; None for every other name."""
    return SPLIT_NAMES.get(name.lower()) if isinstance(name, str) else None


def is_image_path(name: object) -> bool:
    """Whether a name from a foreign file is the relative path of an image that may be written as it stands.

    No part is hidden, empty, `..` or over-long, and no folder is named like an image.
    """
    if not isinstance(name, str) or not name.isprintable() or "\\" in name or len(name.encode()) > 4 * MAX_NAME:
        return False
    parts = name.split("/")
    plain = all(part and not part.startswith(".") and len(part.encode()) <= MAX_NAME for part in parts)
    endings = [PurePosixPath(part).suffix.lower() in SUFFIXES for part in parts]
    return plain and endings[-1] and not any(endings[:-1])


def numbered_lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """The lines `KEY rest` of a list as (line number, key, rest); DataError where a line is no such pair."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        key, *rest = line.strip().split(maxsplit=1)
        if not rest:
            raise DataError(f"{path} line {number} is {line[:60]!r}; expected a number, a space and a value.")
        yield number, key, rest[0]


def table(path: Path) -> dict[str, str]:
    """The values of a list of lines `KEY value` by their keys."""
    return {key: rest for _, key, rest in numbered_lines(path)}


def image_lines(path: Path, suffix: str = "") -> list[str]:
    """The image file names of a list, one a line (`suffix` is added to names without one), each once."""
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    names = [name if name.lower().endswith(tuple(SUFFIXES)) else name + suffix for name in names]
    wrong = next((name for name in names if "/" in name or not is_image_path(name)), None)
    if wrong is not None:
        raise DataError(f"{path} lists {wrong!r:.100}; expected one image file name a line.")
    return list(dict.fromkeys(names))


def caption_lines(text: str) -> tuple[str, ...]:
    """The captions of a text with one a line, without empty ones and without the marks of undecodable bytes."""
    lines = (" ".join(line.replace("\ufffd", " ").split()) for line in text.splitlines())
    return tuple(line for line in lines if line.strip(" ."))


def token_captions(path: Path) -> tuple[dict[str, tuple[str, ...]], int]:
    """The captions of each image in their order, from lines `NAME#NUMBER<tab>caption`; and how many were empty."""
    numbered: list[tuple[str, int, str]] = []
    for line_number, line in enumerate(read_text(path).splitlines(), 1):
        key, _, caption = line.partition("\t")
        name, _, number = key.rpartition("#")
        if not name or not number.isdecimal():
            raise DataError(f"{path} line {line_number} is {line[:60]!r}; expected NAME#NUMBER, a tab and a caption.")
        numbered.append((name, int(number), caption))
    return in_order(numbered)


def in_order(numbered: Sequence[tuple[str, int, str]]) -> tuple[dict[str, tuple[str, ...]], int]:
    """The captions of each image by their number, from (image, number, caption); and how many were empty."""
    kept: dict[str, list[tuple[int, str]]] = {}
    for name, number, caption in numbered:
        if caption.strip(" ."):
            kept.setdefault(name, []).append((number, caption.strip()))
    empty = len(numbered) - sum(map(len, kept.values()))
    return {name: tuple(caption for _, caption in sorted(pairs)) for name, pairs in kept.items()}, empty


def expand_braces(pattern: str, limit: int = 1_000_000) -> list[str]:
    """`a-{000..002}.tar` as its three names and `{x,y}.tar` as two, in their order; UsageError beyond `limit`."""
    found = re.search(r"\{(?:(\d{1,12})\.\.(\d{1,12})|([^{}]*,[^{}]*))\}", pattern)
    if found is None:
        return [pattern]
    first, last, listed = found.groups()
    if listed is None and abs(int(last) - int(first)) >= limit:
        raise UsageError(f"{pattern} names more than {limit:,} files; give fewer.")
    middles = listed.split(",") if listed is not None else _numbers(first, last)
    rests = expand_braces(pattern[found.end() :], limit)
    if len(middles) * len(rests) > limit:
        raise UsageError(f"{pattern} names more than {limit:,} files; give fewer.")
    return [pattern[: found.start()] + middle + rest for middle in middles for rest in rests]


def _numbers(first: str, last: str) -> list[str]:
    padded = any(len(end) > 1 and end.startswith("0") for end in (first, last))
    width, step = max(len(first), len(last)) if padded else 0, 1 if int(first) <= int(last) else -1
    return [str(number).zfill(width) for number in range(int(first), int(last) + step, step)]
