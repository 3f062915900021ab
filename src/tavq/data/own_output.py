"""Folders that tavq wrote itself, whose images are no data: a run, or images that a task generated."""

import re
from collections.abc import Collection
from pathlib import Path

RUN_FILES = frozenset({"recipe.yaml", "provenance.json"})
"""Files that every run folder holds from its start."""

GENERATED_FILES = re.compile(r"(grid|original|hidden|completed-\d+|\d+(-\d+)?)\.png|grid\.gif")
"""Files that `generate` and `complete` write."""

RUN_IMAGES = re.compile(r"samples/\d{8}\.png|grounded\.png")
"""Images that a run folder holds, by their path inside it."""


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
