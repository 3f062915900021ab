"""Names, splits and captions in the files of other projects: what is safe to use, and what it means."""

import re
from pathlib import PurePosixPath

from tavq.core.errors import UsageError
from tavq.data.characters import replace_unprintable
from tavq.data.foreign_text import split_lines
from tavq.data.images import SUFFIXES

MAX_NAME = 255  # bytes of one part of a path that file systems allow
MAX_PATH = 1000  # bytes; systems allow 4,096 together with the folder of the data set
SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


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


def split_captions(text: str) -> tuple[str, ...]:
    """Split a text into captions, one per line; drops empty ones and the replacement marks of undecodable bytes."""
    lines = (" ".join(replace_unprintable(line).replace("\ufffd", " ").split()) for line in split_lines(text))
    return tuple(line for line in lines if line.strip(" ."))


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
