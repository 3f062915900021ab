"""MS-COCO: photographs with captions, boxes and label maps."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from tavq.core.errors import DataError
from tavq.data.folder import Progress
from tavq.data.images import encode_png
from tavq.data.records import NamedBox, clean_text
from tavq.importers.annotations import read_box, read_id, read_lists, read_size
from tavq.importers.archives import base_name, find_coco_images
from tavq.importers.coco_labels import NAMES
from tavq.importers.coco_regions import Regions, find_forms, iter_label_maps
from tavq.importers.importing import ImportSummary, Source, sources
from tavq.importers.layouts import check_source_folder, first_file
from tavq.importers.record_builder import DatasetBuilder, RecordBuilder

SPLITS = ("train", "val")
KINDS = ("captions", "instances", "panoptic", "stuff")
UNLISTED = "annotations of images that are not listed"


@sources.register("coco")
class Coco(Source):
    """Lin et al. 2014 and Caesar et al. 2018, as published: JSON for each kind of annotation and split.

    Every kind of annotation is optional. Of several segmentations the most detailed is used: COCO-Stuff's maps of
    things and stuff, panoptic PNGs, stuff as PNGs, stuff in JSON. Over the last two the things of `instances` are
    painted, the largest first. A box around a crowd is left out, because it is not an object; its region is painted.
    COCO has not published captions of its test images; the kind `karpathy` reads the split with a test set that most
    papers use. LVIS' boxes on the same images (lvis_v1_{train,val}.json) take the place of missing `instances`.
    """

    layout = (
        "annotations/{captions,instances,panoptic,stuff}_{train,val}2017.json (or 2014, or next to the images), "
        "images in {train,val}2017/, images/ or an archive of that name; segmentations in stuffthingmaps/, "
        "panoptic_{train,val}2017/ or stuff_{train,val}2017_pixelmaps/, in annotations/ too, or archives of them"
    )

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Write the images unchanged to `out`/images and the classes of their pixels to `out`/segmentation."""
        check_source_folder(source)
        files, year = _find_annotations(source)
        kinds = {kind for kind, _ in files}
        forms = find_forms(source, "panoptic" in kinds, "stuff" in kinds)
        dataset = DatasetBuilder(find_coco_images(source, [f"{split}{year}" for split in SPLITS]))
        reader = _AnnotationReader(dataset, forms[0] if forms else None)
        for split in SPLITS:
            reader.read(split, {kind: path for (kind, of), path in files.items() if of == split})
        _count_missing(dataset.left_out, files, forms, year)

        def read_maps(chosen: Sequence[str]) -> Iterator[tuple[str, bytes]]:
            sizes = {name: dataset[name].size for name in chosen}
            found = iter_label_maps(forms[0], source, reader.regions, sizes, dataset.left_out)
            return ((name, encode_png(pixels)) for name, pixels in found)

        return dataset.write(out, progress, limit, read_maps if forms else None, reader.classes())


def _find_annotations(source: Path) -> tuple[dict[tuple[str, str], Path], int]:
    """The annotation files by kind and split, of 2017 or else of 2014."""
    for year in (2017, 2014):
        found = {}
        for kind, split in product(KINDS, SPLITS):
            names = [f"{kind}_{split}{year}.json", *([f"lvis_v1_{split}.json"] if kind == "instances" else [])]
            path = first_file(source, names)
            if path is not None:
                found[kind, split] = path
        if any(kind in ("captions", "instances") for kind, _ in found):
            return found, year
    expected = "captions_ and instances_ {train,val}2017.json (or 2014)"
    raise DataError(f"There are no annotations in {source} or {source / 'annotations'}; expected {expected}.")


def _count_missing(left_out: Counter[str], files: dict[tuple[str, str], Path], forms: list[str], year: int) -> None:
    """Count the missing files of the splits that exist, and the segmentations that are not used."""
    present = {split for _, split in files}
    splits = [split for split in SPLITS if split in present]
    expected = product(splits, ("captions", "instances"))
    missing = [f"{kind}_{split}{year}.json" for split, kind in expected if (kind, split) not in files]
    missing += [f"anything of {split}{year}" for split in SPLITS if split not in splits]
    missing += [] if forms else ["a segmentation"]
    if missing:
        left_out[f"missing files ({', '.join(missing)})"] = len(missing)
    if forms[1:]:
        left_out[f"segmentations in other forms than {forms[0]} ({', '.join(forms[1:])})"] = len(forms) - 1


class _AnnotationReader:
    """Reads annotation files into record builders and regions."""

    def __init__(self, dataset: DatasetBuilder, form: str | None) -> None:
        self.dataset, self.form, self.left_out = dataset, form, dataset.left_out
        self.regions = Regions()
        self.names: dict[int | str, str] = {}
        self.by_id: dict[int | str, RecordBuilder | None] = {}

    def read(self, split: str, files: dict[str, Path]) -> None:
        """Read the files of one split; those that only another form of segmentation needs are not opened."""
        self.by_id = {}
        needed = {"panoptic": self.form == "panoptic", "stuff": self.form == "stuff"}
        for kind, path in files.items():
            if needed.get(kind, True):
                fields = ["images", "annotations", *([] if kind == "captions" else ["categories"])]
                lists = read_lists(path, fields, self.left_out)
                self._read_images(lists["images"], split)
                self._read_categories(lists.get("categories", []))
                getattr(self, f"_read_{kind}")(lists["annotations"])

    def classes(self) -> dict[int, str]:
        """The names of the categories in segmentations."""
        usable = {category: name for category, name in self.names.items() if _fits_map(category)}
        return {0: "unlabeled"} | NAMES | {int(category): usable[category] for category in sorted(usable)}

    def _read_images(self, images: list[dict[str, Any]], split: str) -> None:
        for image in images:
            name, image_id = _read_name(image), read_id(image, "id")
            if not isinstance(name, str) or image_id is None:
                self.left_out["listed images without a name or id"] += 1
            elif image_id not in self.by_id:
                found = self.dataset.images.find(name)
                self.by_id[image_id] = self.dataset.add(found, name, split, read_size(image))

    def _read_categories(self, categories: list[dict[str, Any]]) -> None:
        for category in categories:
            category_id, name = read_id(category, "id"), clean_text(category.get("name"))
            if category_id is not None and name is not None:
                self.names[category_id] = name

    def _match_images(self, annotations: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], RecordBuilder]]:
        """The annotations of existing images with their builders; `DatasetBuilder` counts those of missing files."""
        for annotation in annotations:
            image_id = read_id(annotation, "image_id")
            if image_id not in self.by_id:
                self.left_out[UNLISTED] += 1
            elif (builder := self.by_id[image_id]) is not None:
                yield annotation, builder

    def _match_categories(
        self, annotations: list[dict[str, Any]]
    ) -> Iterator[tuple[dict[str, Any], RecordBuilder, int | str]]:
        for annotation, builder in self._match_images(annotations):
            category = read_id(annotation, "category_id")
            if category is not None and category in self.names:
                yield annotation, builder, category
            else:
                self.left_out["annotations of an unknown category"] += 1

    def _fits_map(self, category: int | str) -> bool:
        """Whether a label map can hold a category; counts the regions of the others."""
        fits = _fits_map(category)
        self.left_out["regions of categories outside 1 to 255, which label maps cannot hold"] += not fits
        return fits

    def _read_captions(self, annotations: list[dict[str, Any]]) -> None:
        for annotation, builder in self._match_images(annotations):
            builder.add_caption(annotation.get("caption"), self.left_out)

    def _read_instances(self, annotations: list[dict[str, Any]]) -> None:
        regions = []
        for annotation, builder, category in self._match_categories(annotations):
            box = read_box(annotation.get("bbox"))
            has_region = self.form in ("pixelmaps", "stuff") and bool(annotation.get("segmentation"))
            if has_region and self._fits_map(category):
                area = box[2] * box[3] if box else 0.0
                regions.append(_Region(area, builder.image, int(category), annotation["segmentation"]))
            if annotation.get("iscrowd"):
                self.left_out["boxes around crowds"] += 1
            elif box is None:
                self.left_out["boxes without four numbers and an area"] += 1
            else:
                builder.objects.append(NamedBox(box, self.names[category]))
        for region in sorted(regions, key=lambda region: -region.area):  # so that small things stay visible
            self.regions.things.setdefault(region.image, []).append((region.category, region.segmentation))

    def _read_stuff(self, annotations: list[dict[str, Any]]) -> None:
        for annotation, builder, category in self._match_categories(annotations):
            if self._fits_map(category):
                regions = self.regions.stuff.setdefault(builder.image, [])
                regions.append((int(category), annotation.get("segmentation")))

    def _read_panoptic(self, annotations: list[dict[str, Any]]) -> None:
        for annotation, builder in self._match_images(annotations):
            name, segments = annotation.get("file_name"), annotation.get("segments_info")
            if not isinstance(name, str) or not isinstance(segments, list):
                self.left_out["annotations without a file name or segments"] += 1
                continue
            categories = {}
            for segment in segments:
                known = isinstance(segment, dict) and read_id(segment, "category_id") in self.names
                if known and not self._fits_map(segment["category_id"]):
                    continue
                if known and isinstance(read_id(segment, "id"), int):
                    categories[segment["id"]] = segment["category_id"]
                else:
                    self.left_out["annotations of an unknown category"] += 1
            self.regions.panoptic[builder.image] = name, categories


def _fits_map(category: int | str) -> bool:
    return isinstance(category, int) and 0 < category < 256


def _read_name(image: dict[str, Any]) -> Any:
    """The file name; LVIS 1.0 gives an address instead."""
    url = image.get("coco_url")
    return image.get("file_name") or (base_name(url) if isinstance(url, str) else None)


@dataclass(frozen=True)
class _Region:
    """The region of a thing, to be painted in the order of its box's area."""

    area: float
    image: str
    category: int
    segmentation: Any
