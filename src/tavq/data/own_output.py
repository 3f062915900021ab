"""Folders that tavq wrote itself, whose images are no data: a run, or images that it generated or decoded."""

import re
from collections.abc import Collection
from pathlib import Path

from tavq.core.files import write_bytes

RUN_FILES = frozenset({"recipe.yaml", "provenance.json"})
"""Files that every run folder holds from its start."""

GENERATED_FILES = re.compile(r"(grid|original|hidden|completed-\d+|\d+(-\d+)?)\.png|grid\.gif")
"""Files that `generate` and `complete` write."""

RUN_IMAGES = re.compile(r"samples/\d{8}\.png|grounded\.png")
"""Images that a run folder holds, by their path inside it."""


DECODED_MARK = ".tavq-decoded"
"""A file in a folder that `decode` made; decoded images have the names of others, which would not tell."""


def mark_decoded(folder: Path) -> None:
    """Mark a folder as one of decoded images, unless it holds something that may be somebody else's."""
    if not folder.is_dir() or not any(folder.iterdir()):
        text = "tavq decode wrote these images; they are not read as a part of the data in a folder around this one.\n"
        write_bytes(folder / DECODED_MARK, text.encode())


def is_run_folder(folder: Path) -> bool:
    """Whether a run writes into this folder."""
    return all((folder / name).is_file() for name in RUN_FILES)


def is_own_output(names: Collection[str]) -> bool:
    """Whether a folder that holds these names is a run, or was written by `generate` or `complete`.

    Args:
        names: of its files, and of its folders with a slash at the end.
    """
    is_generated = "grid.png" in names and all(GENERATED_FILES.fullmatch(name) for name in names)
    return is_generated or {*names} >= RUN_FILES
