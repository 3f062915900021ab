"""Files of published data sets and archives, which a folder data set does not read and `tavq data import` does."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

PUBLISHED = {
    "ade20k": r"objectInfo150\.txt",
    "celeba-hq": r"CelebA-HQ-to-CelebA-mapping\.txt",
    "coco": r"(captions|instances|panoptic|stuff)_(train|val)(2014|2017)\.json",
    "coco-qa": r"cocoqa_(train|val|test).*\.jsonl",
    "cub200": r"image_class_labels\.txt",
    "flickr30k": r"results_20130124\.token",
    "flickr8k": r"Flickr8k\.token\.txt",
    "huggingface": r"dataset_dict\.json|dataset_info\.json",
    "karpathy": r"dataset_(coco|flickr30k|flickr8k)\.json",
    "refcoco": r"refs\((unc|umd|google)\)\.p|refcocos_test\.json",
    "textcaps": r"TextCaps_0\.1_(train|val|test)\.json",
}
"""For each importer the names of files that no other data set has."""

SHARDS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

MAX_LINK = 1000
"""Bytes of a path that a link may hold."""

DEPTH = 8
"""Folders below a data set that are searched."""


def find_published(name: str) -> str | None:
    """The importer that reads a file of this name; None for any other file."""
    return next((kind for kind, names in PUBLISHED.items() if re.fullmatch(names, name)), None)


def find_written_link(path: Path) -> str | None:
    """What a link to a folder leads to that Git or an archiver wrote as a text file; None for any other file.

    Git does so where links are turned off, as on Windows.
    """
    if path.suffix or path.is_symlink() or not path.is_file() or not 0 < path.stat().st_size <= MAX_LINK:
        return None
    try:
        target = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        return None
    if not target.isprintable() or "/" not in target:
        return None
    return target if (path.parent / target).is_dir() else None


def find_shards(folder: Path) -> Iterator[Path]:
    """The shards in a folder and in those below it, compressed ones too; hidden files are passed over."""
    for parent, folders, names in os.walk(folder):
        if len(Path(parent).relative_to(folder).parts) >= DEPTH:
            folders.clear()
        for name in names:
            if name.lower().endswith(SHARDS) and not name.startswith("."):
                yield Path(parent) / name


def advise_import(folder: Path) -> str:
    """How the shards in a folder without images are imported, as the end of a sentence; "" where there are none."""
    if next(find_shards(folder), None) is None:
        return ""
    return f", or import its shards with: tavq data import webdataset {folder} OUT"
