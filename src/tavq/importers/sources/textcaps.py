"""TextCaps: photographs with written words in them, and five captions each that use the words."""

from pathlib import Path, PurePosixPath
from typing import Any

from tavq.core.errors import DataError
from tavq.data.folder import Progress
from tavq.data.records import SPLITS
from tavq.importers.annotations import read_lists
from tavq.importers.archives import find_images
from tavq.importers.importing import ImportSummary, Source, sources
from tavq.importers.layouts import check_source, first_file
from tavq.importers.record_builder import DatasetBuilder, RecordBuilder

IMAGES = ("train_val_images", "train_images", "test_images", "images*")


@sources.register("textcaps")
class TextCaps(Source):
    """Sidorov et al. 2020, as published: an entry for each caption; training and validation images in one folder.

    The captions of the test images are withheld by the publishers: where their JSON is there, they come without text.
    """

    layout = "TextCaps_0.1_{train,val,test}.json, images in train_images/, test_images/ or train_val_images.zip"

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Writes the images unchanged, with their captions in the published order."""
        check_source(source)
        names = {split: f"TextCaps_0.1_{split}.json" for split in SPLITS}
        files = {split: path for split, name in names.items() if (path := first_file(source, [name])) is not None}
        if not files:
            looked = ", ".join(names.values())
            raise DataError(f"There are no captions in {source} or {source / 'annotations'}: {looked} were looked for.")
        dataset = DatasetBuilder(find_images(source, IMAGES))
        for split, path in files.items():
            for entry in read_lists(path, ["data"], dataset.left_out)["data"]:
                _read(entry, split, dataset)
        gone = [name for split, name in names.items() if split not in files]
        if gone:
            dataset.left_out[f"files that are not there ({', '.join(gone)})"] = len(gone)
        return dataset.write(out, progress, limit)


def _read(entry: dict[str, Any], split: str, dataset: DatasetBuilder) -> None:
    """One caption of an image; entries that only list the references of an image give these."""
    wanted = entry.get("image_path") or entry.get("image_id")
    if not isinstance(wanted, str):
        dataset.left_out["captions that name no image"] += 1
        return
    number = entry.get("image_id")
    name = dataset.images.by_stem.get(number if isinstance(number, str) else PurePosixPath(wanted).stem)
    builder = dataset.add(name, wanted, split)
    if builder is None and name is not None:
        dataset.left_out["captions of an image of another split"] += 1
    elif builder is not None:
        _caption(entry, builder, dataset)


def _caption(entry: dict[str, Any], builder: RecordBuilder, dataset: DatasetBuilder) -> None:
    references = entry.get("reference_strs")
    if "caption_str" in entry:
        builder.add_caption(entry["caption_str"], dataset.left_out)
    elif isinstance(references, list) and not builder.captions:
        for caption in references:
            builder.add_caption(caption, dataset.left_out)
