"""Flickr30k: 31,783 photographs with five captions each."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tavq.core.errors import DataError
from tavq.core.files import MAX_JSON, read_json
from tavq.data.folder import Progress
from tavq.data.foreign_text import normalize_name, read_foreign_text, split_lines
from tavq.data.records import Record
from tavq.importers.archives import find_images
from tavq.importers.importing import ImportSummary, Source, sources
from tavq.importers.layouts import find_file, read_image_list, read_token_captions, sort_captions
from tavq.importers.published import PublishedDataset
from tavq.importers.reasons import EMPTY_CAPTION, NO_FILE, NO_SPLIT, NOT_LISTED

TOKENS, TABLE, KARPATHY = "results_20130124.token", "results.csv", "dataset_flickr30k.json"
TEXT_FOLDERS = ("flickr30k", "flickr30k_images")
IMAGES = (
    ["flickr30k-images"], ["flickr30k_images/flickr30k_images"], ["flickr30k_images"], ["images"], ["flickr30k*"],
)  # fmt: skip
SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}


@sources.register("flickr30k")
class Flickr30k(Source):
    """Young et al. 2014: the publishers' token file, or the table `results.csv` as which it is often distributed.

    The publishers gave no split. Uses Karpathy's (dataset_flickr30k.json: 29,000, 1,014 and 1,000 images) if it is
    there, else that of Flickr30k Entities (train.txt, val.txt and test.txt), else everything is for training.
    For research use only; the photographs belong to their authors.
    """

    layout = f"{TOKENS} or {TABLE}, images in flickr30k-images/ or an archive flickr30k*, optionally {KARPATHY}"

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Write the images unchanged to `out`/images, with their captions in the published order."""
        others = Counter[str]()
        captions, empty = _read_captions(source, others)
        splits = _read_splits(source, captions)
        images = find_images(source, *IMAGES)
        records = {
            name: Record(f"images/{name}", splits[name], captions[name])
            for name in captions
            if name in splits and name in images
        }
        left_out = Counter(
            {
                NO_SPLIT: len((captions.keys() & set(images)) - splits.keys()),
                NOT_LISTED: len(set(images) - captions.keys()),
                NO_FILE: len(captions.keys() - set(images)),
                EMPTY_CAPTION: empty,
            }
        )
        return PublishedDataset(images, records, left_out=left_out, others=others).write(out, progress, limit)


def _read_captions(source: Path, others: Counter[str]) -> tuple[dict[str, tuple[str, ...]], int]:
    folders = [source, *(source / folder for folder in TEXT_FOLDERS)]
    tables = [folder / TABLE for folder in folders if (folder / TABLE).is_file()]
    if not tables or any((folder / TOKENS).is_file() for folder in folders):
        return read_token_captions(find_file(source, TOKENS, TEXT_FOLDERS), others)
    numbered = []
    for number, line in enumerate(split_lines(read_foreign_text(tables[0], others))[1:], 2):
        # one line of the distributed file lacks its second bar: `2199200615.jpg| 4   A dog runs across the grass .`
        found = re.fullmatch(r"\s*([^|]+?)\s*\|\s*(\d{1,9})\b\s*\|?\s*(.*)", line)
        if found is None and line.strip():
            raise DataError(f"{tables[0]} line {number} is {line[:60]!r}; expected NAME| NUMBER| caption.")
        if found is not None:
            numbered.append((found[1], int(found[2]), found[3]))
    return sort_captions(numbered)


def _read_splits(source: Path, captions: Mapping[str, Any]) -> dict[str, str]:
    if (source / KARPATHY).is_file():
        return _read_karpathy(source / KARPATHY)
    lists = {split: source / f"{split}.txt" for split in ("train", "val", "test")}
    if lists["train"].is_file():
        return {name: split for split, path in lists.items() for name in read_image_list(path, ".jpg")}
    return dict.fromkeys(captions, "train")


def _read_karpathy(path: Path) -> dict[str, str]:
    try:
        return {normalize_name(each["filename"]): SPLITS[each["split"]] for each in read_json(path, MAX_JSON)["images"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not Karpathy's list: expected images with a filename and a split.") from error
