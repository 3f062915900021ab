"""What the layouts of published data sets share: folders, files, lists, captions, names and splits."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from tavq.core.errors import DataError, UsageError
from tavq.data.characters import replace_unprintable
from tavq.data.images import SUFFIXES
from tavq.importers.foreign_text import normalize_name, read_foreign_text, split_lines

MAX_NAME = 255  # bytes of one part of a path that file systems allow
MAX_PATH = 1000  # bytes; systems allow 4,096 together with the folder of the data set
SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def check_source_folder(source: Path) -> None:
    """Raise UsageError if the folder does not exist."""
    if not source.is_dir():
        raise UsageError(f"There is no folder {source}; give the folder that holds the published data set.")


def first_file(source: Path, names: Iterable[str], folders: Sequence[str] = ("", "annotations")) -> Path | None:
    """The first of the files `names` that exists in `source` or one of its folders."""
    paths = (source / folder / name for name in names for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def find_file(source: Path, name: str, folders: Sequence[str] = ()) -> Path:
    """The file `name` in `source` or in one of its `folders`; DataError if it is in none."""
    check_source_folder(source)
    found = first_file(source, [name], ["", *folders])
    if found is None:
        searched = " or ".join(str(source / folder) for folder in ("", *folders))
        raise DataError(f"There is no file {name} in {searched}; is this the right folder?")
    return found


def find_folder(source: Path, names: Sequence[str]) -> Path | None:
    """The first of the folders `names` that exists in `source`, or None."""
    return next((source / name for name in names if (source / name).is_dir()), None)


def require_folder(source: Path, names: Sequence[str], what: str) -> Path:
    """The first of the folders `names` that exists in `source`; DataError, which says `what` it holds, if none does."""
    check_source_folder(source)
    found = find_folder(source, names)
    if found is None:
        raise DataError(f"There is no folder of {what} in {source}; expected one of: {', '.join(names)}.")
    return found


def parse_split(name: object) -> str | None:
    """The split that one of its usual names means: train, val or test; None for any other name."""
    return SPLIT_NAMES.get(name.lower()) if isinstance(name, str) else None


def is_image_path(name: object) -> bool:
    """Whether a name from an untrusted file is a relative image path that is safe to write.

    No part may be hidden, empty, `..` or too long, and no folder may have the suffix of an image.
    """
    if not isinstance(name, str) or not name.isprintable() or "\\" in name or len(name.encode()) > MAX_PATH:
        return False
    parts = name.split("/")
    safe = all(part and not part.startswith(".") and len(part.encode()) <= MAX_NAME for part in parts)
    has_suffix = [PurePosixPath(part).suffix.lower() in SUFFIXES for part in parts]
    return safe and has_suffix[-1] and not any(has_suffix[:-1])


def inner_path(name: str) -> str:
    """The path of a member of an archive, as plain tools write it: `./a/1.jpg`, or with backslashes on Windows."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part != ".")


def read_pairs(path: Path) -> Iterator[tuple[int, str, str]]:
    """Iterate over the lines `KEY value` of a list as (line number, key, value); DataError for any other line."""
    for number, line in enumerate(split_lines(read_foreign_text(path)), 1):
        if not line.strip():
            continue
        key, *value = line.strip().split(maxsplit=1)
        if not value:
            raise DataError(f"{path} line {number} is {line[:60]!r}; expected a number, a space and a value.")
        yield number, key, value[0]


def read_table(path: Path) -> dict[str, str]:
    """Read lines `KEY value` as a mapping."""
    return {key: value for _, key, value in read_pairs(path)}


def read_image_list(path: Path, suffix: str = "") -> list[str]:
    """Read the distinct image file names of a list, one per line; `suffix` is added to names without one."""
    lines = split_lines(read_foreign_text(path))
    names = [normalize_name(line.strip()) for line in lines if line.strip()]
    names = [name if name.lower().endswith(tuple(SUFFIXES)) else name + suffix for name in names]
    wrong = next((name for name in names if "/" in name or not is_image_path(name)), None)
    if wrong is not None:
        raise DataError(f"{path} lists {wrong!r:.100}; expected one image file name per line.")
    return list(dict.fromkeys(names))


def split_captions(text: str) -> tuple[str, ...]:
    """Split a text into captions, one per line; drops empty ones and the replacement marks of undecodable bytes."""
    lines = (" ".join(replace_unprintable(line).replace("\ufffd", " ").split()) for line in split_lines(text))
    return tuple(line for line in lines if line.strip(" ."))


def read_token_captions(path: Path, counts: Counter[str]) -> tuple[dict[str, tuple[str, ...]], int]:
    """Read lines `NAME#NUMBER<tab>caption`: the captions of each image in order, and how many were empty.

    `counts` counts the lines that are not UTF-8.
    """
    numbered: list[tuple[str, int, str]] = []
    for line_number, line in enumerate(split_lines(read_foreign_text(path, counts)), 1):
        if not line.strip():
            continue
        key, _, caption = line.partition("\t")
        name, _, number = key.rpartition("#")
        if not name or not number.isdecimal():
            raise DataError(f"{path} line {line_number} is {line[:60]!r}; expected NAME#NUMBER, a tab and a caption.")
        numbered.append((name, int(number), caption))
    return sort_captions(numbered)


def sort_captions(numbered: Sequence[tuple[str, int, str]]) -> tuple[dict[str, tuple[str, ...]], int]:
    """Sort (image, number, caption) into the captions of each image by number; also count the empty ones."""
    kept: dict[str, list[tuple[int, str]]] = {}
    for name, number, caption in numbered:
        if caption.strip(" ."):
            kept.setdefault(normalize_name(name), []).append((number, caption.strip()))
    captions = {}
    for name, pairs in kept.items():
        captions[name] = tuple(caption for _, caption in sorted(pairs))
    return captions, len(numbered) - sum(map(len, captions.values()))


def expand_braces(pattern: str, limit: int = 1_000_000) -> list[str]:
    """Expand `a-{000..002}.tar` into its three names and `{x,y}.tar` into two; UsageError beyond `limit`."""
    found = re.search(r"\{(?:(\d{1,12})\.\.(\d{1,12})|([^{}]*,[^{}]*))\}", pattern)
    if found is None:
        return [pattern]
    first, last, listed = found.groups()
    if listed is None and abs(int(last) - int(first)) >= limit:
        raise UsageError(f"{pattern} expands to more than {limit:,} files; give fewer.")
    choices = listed.split(",") if listed is not None else _expand_range(first, last)
    tails = expand_braces(pattern[found.end() :], limit)
    if len(choices) * len(tails) > limit:
        raise UsageError(f"{pattern} expands to more than {limit:,} files; give fewer.")
    return [pattern[: found.start()] + choice + tail for choice in choices for tail in tails]


def _expand_range(first: str, last: str) -> list[str]:
    padded = any(len(end) > 1 and end.startswith("0") for end in (first, last))
    width = max(len(first), len(last)) if padded else 0
    step = 1 if int(first) <= int(last) else -1
    return [str(number).zfill(width) for number in range(int(first), int(last) + step, step)]
