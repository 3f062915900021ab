"""Flickr8k: 8,000 photographs with five captions each."""

import csv
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tavq.core.errors import DataError
from tavq.data.folder import Progress
from tavq.data.foreign_text import read_foreign_text, split_lines
from tavq.data.records import Record
from tavq.importers.archives import find_images
from tavq.importers.importing import ImportSummary, Source, sources
from tavq.importers.layouts import (
    check_source_folder,
    find_file,
    first_file,
    read_image_list,
    read_token_captions,
    sort_captions,
)
from tavq.importers.published import PublishedDataset
from tavq.importers.reasons import EMPTY_CAPTION, NO_FILE, NO_SPLIT

TOKENS, TABLE = "Flickr8k.token.txt", "captions.txt"
TEXT_FOLDERS = ("Flickr8k_text",)
IMAGES = (["Flicker8k_Dataset"], ["Flickr8k_Dataset"], ["Images"], ["images"], ["images*"])
"""Where the images may be; the first is the publishers' spelling."""

SPLITS = {"train": "train", "val": "dev", "test": "test"}

ALL_TRAIN = "images for training, all of them, for want of Flickr_8k.{train,dev,test}Images.txt"


@sources.register("flickr8k")
class Flickr8k(Source):
    """Hodosh, Young and Hockenmaier 2013, as published: captions in one file, a list of images per split.

    For research use only; the photographs belong to their authors. The 91 images outside the official split are left
    out, as in all published results. Kaggle distributes it as a table `captions.txt` without the lists of the split;
    then every image is for training, unless the lists are added.
    """

    layout = (
        "Flickr8k.token.txt and Flickr_8k.{train,dev,test}Images.txt, or Kaggle's captions.txt; images in "
        "Flicker8k_Dataset/, Images/ or an archive of that name"
    )

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Write the split's images unchanged to `out`/images, with their captions in the published order."""
        others = Counter[str]()
        table = _find_table(source)
        if table is not None:
            captions, empty = _read_table(table, others)
        else:
            captions, empty = read_token_captions(find_file(source, TOKENS, TEXT_FOLDERS), others)
        splits = _read_splits(source, captions, required=table is None)
        if set(splits.values()) == {"train"}:
            others[ALL_TRAIN] = len(splits)
        images = find_images(source, *IMAGES)
        records = {
            name: Record(f"images/{name}", split, captions.get(name, ()))
            for name, split in splits.items()
            if name in images
        }
        left_out = Counter(
            {
                NO_SPLIT: len(set(images) - splits.keys()),
                NO_FILE: len((splits.keys() | captions.keys()) - set(images)),
                EMPTY_CAPTION: empty,
            }
        )
        return PublishedDataset(images, records, left_out=left_out, others=others).write(out, progress, limit)


def _find_table(source: Path) -> Path | None:
    """Kaggle's table, where the publishers' file is missing."""
    check_source_folder(source)
    folders = ["", *TEXT_FOLDERS]
    return None if first_file(source, [TOKENS], folders) else first_file(source, [TABLE], folders)


def _read_table(path: Path, others: Counter[str]) -> tuple[dict[str, tuple[str, ...]], int]:
    """The captions of each image in order, and how many were empty, from lines `NAME,caption` below a header."""
    numbered = []
    for number, row in enumerate(csv.reader(split_lines(read_foreign_text(path, others))), 1):
        if len(row) < 2 and any(row):
            raise DataError(f"{path} line {number} is {','.join(row)[:60]!r}; expected NAME,CAPTION.")
        if row and [cell.strip().lower() for cell in row[:2]] != ["image", "caption"]:
            # a caption that was not quoted has commas of its own
            numbered.append((row[0].strip(), number, ",".join(row[1:])))
    return sort_captions(numbered)


def _read_splits(source: Path, captions: Iterable[str], required: bool) -> dict[str, str]:
    """The split of each image; every image is for training where there are no lists and they are not required."""
    lists = {split: f"Flickr_8k.{published}Images.txt" for split, published in SPLITS.items()}
    folders = ["", *TEXT_FOLDERS]
    if not required and not any(first_file(source, [name], folders) for name in lists.values()):
        return dict.fromkeys(captions, "train")
    found = {split: read_image_list(find_file(source, name, TEXT_FOLDERS)) for split, name in lists.items()}
    return {name: split for split, names in found.items() for name in names}
