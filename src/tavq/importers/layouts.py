"""What the layouts of published data sets share: folders, files, lists, captions, names and splits."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tavq.core.errors import DataError, UsageError
from tavq.data.foreign_names import is_image_path
from tavq.data.foreign_text import normalize_name, read_foreign_text, split_lines
from tavq.data.images import SUFFIXES


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
