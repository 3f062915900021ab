"""TextCaps: photographs that contain writing, with five captions each that use the written words."""

from pathlib import Path, PurePosixPath
from typing import Any

from tavq.core.errors import DataError
from tavq.data.folder import Progress
from tavq.data.foreign_text import normalize_name
from tavq.data.records import SPLITS
from tavq.importers.annotations import read_lists
from tavq.importers.archives import find_images
from tavq.importers.importing import ImportSummary, Source, sources
from tavq.importers.layouts import check_source_folder, first_file
from tavq.importers.record_builder import DatasetBuilder, RecordBuilder

IMAGES = ("train_val_images", "train_images", "test_images", "images*")


@sources.register("textcaps")
class TextCaps(Source):
    """Sidorov et al. 2020, as published: one entry per caption; training and validation images share a folder.

    The publishers withhold the captions of the test images; with their JSON these images are imported without text.
    """

    layout = "TextCaps_0.1_{train,val,test}.json, images in train_images/, test_images/ or train_val_images.zip"

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Write the images unchanged, with their captions in the published order."""
        check_source_folder(source)
        names = {split: f"TextCaps_0.1_{split}.json" for split in SPLITS}
        paths = {split: first_file(source, [name]) for split, name in names.items()}
        files = {split: path for split, path in paths.items() if path is not None}
        if not files:
            expected = ", ".join(names.values())
            raise DataError(f"There are no captions in {source} or {source / 'annotations'}; expected {expected}.")
        dataset = DatasetBuilder(find_images(source, IMAGES))
        for split, path in files.items():
            for entry in read_lists(path, ["data"], dataset.left_out)["data"]:
                _read_entry(entry, split, dataset)
        missing = [name for split, name in names.items() if split not in files]
        if missing:
            dataset.left_out[f"missing files ({', '.join(missing)})"] = len(missing)
        return dataset.write(out, progress, limit)


def _read_entry(entry: dict[str, Any], split: str, dataset: DatasetBuilder) -> None:
    """Add the caption of an entry, or the reference captions of an entry that has only those."""
    wanted = entry.get("image_path") or entry.get("image_id")
    if not isinstance(wanted, str):
        dataset.left_out["captions that name no image"] += 1
        return
    image_id = entry.get("image_id")
    name = dataset.images.by_stem.get(
        normalize_name(image_id if isinstance(image_id, str) else PurePosixPath(wanted).stem)
    )
    builder = dataset.add(name, wanted, split)
    if builder is None and name is not None:
        dataset.left_out["captions of an image of another split"] += 1
    elif builder is not None:
        _add_captions(entry, builder, dataset)


def _add_captions(entry: dict[str, Any], builder: RecordBuilder, dataset: DatasetBuilder) -> None:
    references = entry.get("reference_strs")
    if "caption_str" in entry:
        builder.add_caption(entry["caption_str"], dataset.left_out)
    elif isinstance(references, list) and not builder.captions:
        for caption in references:
            builder.add_caption(caption, dataset.left_out)
