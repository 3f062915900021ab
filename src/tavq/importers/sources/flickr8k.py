"""Flickr8k: 8,000 photographs with five captions each."""

from collections import Counter
from pathlib import Path

from tavq.data.folder import Progress
from tavq.data.records import Record
from tavq.importers.archives import find_images
from tavq.importers.importing import ImportSummary, Source, sources
from tavq.importers.layouts import find_file, read_image_list, read_token_captions
from tavq.importers.published import PublishedDataset
from tavq.importers.reasons import EMPTY_CAPTION, NO_FILE, NO_SPLIT

TEXT_FOLDERS = ("Flickr8k_text",)
IMAGES = (["Flicker8k_Dataset"], ["Flickr8k_Dataset"], ["Images"], ["images"], ["images*"])
"""Where the images may be; the first is the publishers' spelling."""

SPLITS = {"train": "train", "val": "dev", "test": "test"}


@sources.register("flickr8k")
class Flickr8k(Source):
    """Hodosh, Young and Hockenmaier 2013, as published: captions in one file, a list of images per split.

    For research use only; the photographs belong to their authors. The 91 images outside the official split are left
    out, as in all published results.
    """

    layout = (
        "Flickr8k.token.txt, Flickr_8k.{train,dev,test}Images.txt, images in Flicker8k_Dataset/, images/ or an "
        "archive of that name"
    )

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Write the split's images unchanged to `out`/images, with their captions in the published order."""
        others = Counter[str]()
        captions, empty = read_token_captions(find_file(source, "Flickr8k.token.txt", TEXT_FOLDERS), others)
        splits: dict[str, str] = {}
        for split, published in SPLITS.items():
            names = read_image_list(find_file(source, f"Flickr_8k.{published}Images.txt", TEXT_FOLDERS))
            splits |= dict.fromkeys(names, split)
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
