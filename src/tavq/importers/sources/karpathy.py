"""Captions in Karpathy's JSON format: COCO, Flickr30k and Flickr8k in the splits that most papers use, and others."""

from pathlib import Path, PurePosixPath
from typing import Any

from tavq.core.errors import DataError
from tavq.data.folder import Progress
from tavq.data.foreign_text import normalize_name
from tavq.importers.annotations import read_lists, select_objects
from tavq.importers.archives import find_images
from tavq.importers.importing import ImportSummary, Source, sources
from tavq.importers.layouts import check_source_folder
from tavq.importers.record_builder import DatasetBuilder

IMAGES = ("train2014", "val2014", "*images*", "imgs", "Images", "Flicker8k_Dataset", "Flickr8k_Dataset")
SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}


@sources.register("karpathy")
class Karpathy(Source):
    """Karpathy and Fei-Fei 2015: one JSON with each image's file name, split and sentences.

    `restval`, COCO's validation images that are in neither of the small splits, is training data, as in published
    results. Sentences are imported as they were written (`raw`). An image file may have a different suffix than in the
    JSON.
    """

    layout = (
        "one of dataset.json, dataset_coco.json, dataset_flickr30k.json, dataset_flickr8k.json; images in "
        "{train,val}2014/, *images*/, imgs/, Flicker8k_Dataset/ or archives of that name"
    )

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Write the images unchanged, with their sentences as captions."""
        check_source_folder(source)
        found = sorted(path for path in source.glob("dataset*.json") if path.is_file())
        if len(found) != 1:
            names = ", ".join(path.name for path in found) or "none"
            raise DataError(f"{source} must hold exactly one dataset.json or dataset_NAME.json; it holds {names}.")
        dataset = DatasetBuilder(find_images(source, IMAGES))
        seen: set[str] = set()
        for entry in read_lists(found[0], ["images"], dataset.left_out)["images"]:
            name, split = entry.get("filename"), entry.get("split")
            if not isinstance(name, str) or name in seen:
                dataset.left_out["images without a file name, or with a repeated one"] += 1
            elif not isinstance(split, str) or split not in SPLITS:
                dataset.left_out["images of an unknown split"] += 1
            else:
                seen.add(name)
                _read_entry(entry, name, SPLITS[split], dataset)
        return dataset.write(out, progress, limit)


def _read_entry(entry: dict[str, Any], name: str, split: str, dataset: DatasetBuilder) -> None:
    images = dataset.images
    found = images.find(name) or images.by_stem.get(PurePosixPath(normalize_name(name)).stem)
    builder = dataset.add(found, name, split)
    if builder is None:
        return
    if found != name:
        dataset.others["images with another suffix than listed"] += 1
    sentences = entry.get("sentences")
    for sentence in select_objects(sentences if isinstance(sentences, list) else [], dataset.left_out):
        builder.add_caption(_raw_text(sentence), dataset.left_out)


def _raw_text(sentence: dict[str, Any]) -> Any:
    """The sentence as it was written, or else its words."""
    tokens = sentence.get("tokens")
    words = tokens if isinstance(tokens, list) and all(isinstance(token, str) for token in tokens) else []
    return sentence.get("raw", " ".join(words))
