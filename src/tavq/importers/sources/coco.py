"""MS-COCO: photographs with captions, boxes and the class of each pixel."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tavq.core.errors import DataError
from tavq.data.folder import Progress
from tavq.data.images import encode_png
from tavq.data.records import NamedBox, clean_text
from tavq.importers.annotations import identity, read_box, read_lists, read_size
from tavq.importers.archives import find_coco_images
from tavq.importers.coco_labels import NAMES
from tavq.importers.coco_regions import Regions, forms_here, label_maps
from tavq.importers.importing import ImportSummary, Source, sources
from tavq.importers.layouts import check_source, first_file
from tavq.importers.record_builder import DatasetBuilder, RecordBuilder

SPLITS = ("train", "val")
KINDS = ("captions", "instances", "panoptic", "stuff")
OF_UNKNOWN = "annotations of images that are not listed"


@sources.register("coco")
class Coco(Source):
    """Lin et al. 2014 and Caesar et al. 2018, as published: JSON for each kind of annotation and split.

    What is there is taken. Of several segmentations the one that says most is: COCO-Stuff's maps of things and stuff,
    panoptic PNGs, stuff as PNGs, stuff in JSON; over stuff alone the things of `instances` are drawn, the largest
    first. A box around a crowd is no object and left out; its region is drawn. COCO has published no captions of its
    test images; the kind `karpathy` reads the split with a test set that most papers use.
    """

    layout = (
        "annotations/{captions,instances,panoptic,stuff}_{train,val}2017.json (or 2014, or beside the images), "
        "images in {train,val}2017/, images/ or an archive of that name; segmentations in stuffthingmaps/, "
        "panoptic_{train,val}2017/ or stuff_{train,val}2017_pixelmaps/, in annotations/ too, or archives of them"
    )

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Writes the images unchanged to `out`/images and the classes of their pixels to `out`/segmentation."""
        check_source(source)
        files, year = _annotations(source)
        forms = forms_here(source, _has(files, "panoptic"), _has(files, "stuff"))
        dataset = DatasetBuilder(find_coco_images(source, [f"{split}{year}" for split in SPLITS]))
        reader = _Reader(dataset, forms[0] if forms else None)
        for split in SPLITS:
            reader.read(split, {kind: path for (kind, of), path in files.items() if of == split})
        _tell(dataset.left_out, files, forms, year)

        def maps(chosen: Sequence[str]) -> Iterator[tuple[str, bytes]]:
            sizes = {name: dataset[name].size for name in chosen}
            found = label_maps(forms[0], source, reader.regions, sizes, dataset.left_out)
            return ((name, encode_png(pixels)) for name, pixels in found)

        return dataset.write(out, progress, limit, maps if forms else None, reader.classes())


def _annotations(source: Path) -> tuple[dict[tuple[str, str], Path], int]:
    """The annotation files by kind and split, of 2017 or else of 2014."""
    for year in (2017, 2014):
        places = {
            (kind, split): first_file(source, [f"{kind}_{split}{year}.json"]) for kind in KINDS for split in SPLITS
        }
        found = {key: path for key, path in places.items() if path is not None}
        if any(kind in ("captions", "instances") for kind, _ in found):
            return found, year
    looked = "captions_ and instances_ {train,val}2017.json (or 2014)"
    raise DataError(f"There are no annotations in {source} or {source / 'annotations'}: {looked} were looked for.")


def _has(files: dict[tuple[str, str], Path], kind: str) -> bool:
    return any(found == kind for found, _ in files)


def _tell(left_out: Counter[str], files: dict[tuple[str, str], Path], forms: list[str], year: int) -> None:
    """Counts which files were looked for in vain, of the splits that are there at all."""
    splits = [split for split in SPLITS if any(of == split for _, of in files)]
    wanted = [(kind, split) for split in splits for kind in ("captions", "instances")]
    gone = [f"{kind}_{split}{year}.json" for kind, split in wanted if (kind, split) not in files]
    gone += [f"anything of {split}{year}" for split in SPLITS if split not in splits]
    gone += [] if forms else ["a segmentation"]
    if gone:
        left_out[f"files that are not there ({', '.join(gone)})"] = len(gone)
    if forms[1:]:
        left_out[f"segmentations of other forms than {forms[0]} ({', '.join(forms[1:])})"] = len(forms) - 1


class _Reader:
    """Reads annotation files into drafts and regions."""

    def __init__(self, dataset: DatasetBuilder, form: str | None) -> None:
        self.dataset, self.form, self.left_out = dataset, form, dataset.left_out
        self.regions = Regions()
        self.names: dict[int, str] = {}
        self.by_id: dict[int | str, RecordBuilder | None] = {}

    def read(self, split: str, files: dict[str, Path]) -> None:
        """Reads the files of one split; those that only serve another form of segmentation are not opened."""
        self.by_id = {}
        needed = {"panoptic": self.form == "panoptic", "stuff": self.form == "stuff"}
        for kind, path in files.items():
            if needed.get(kind, True):
                fields = ["images", "annotations", *([] if kind == "captions" else ["categories"])]
                lists = read_lists(path, fields, self.left_out)
                self._list(lists["images"], split)
                self._name(lists.get("categories", []))
                getattr(self, f"_{kind}")(lists["annotations"])

    def classes(self) -> dict[int, str]:
        """The names of the categories in a segmentation."""
        return {0: "unlabeled"} | NAMES | dict(sorted(self.names.items()))

    def _list(self, images: list[dict[str, Any]], split: str) -> None:
        for image in images:
            name, number = image.get("file_name"), identity(image, "id")
            if not isinstance(name, str) or number is None:
                self.left_out["listed images without a name or number"] += 1
            elif number not in self.by_id:
                here = name if name in self.dataset.images else None
                self.by_id[number] = self.dataset.add(here, name, split, read_size(image))

    def _name(self, categories: list[dict[str, Any]]) -> None:
        for category in categories:
            number, name = identity(category, "id"), clean_text(category.get("name"))
            if isinstance(number, int) and 0 < number < 256 and name is not None:
                self.names[number] = name

    def _of_images(self, annotations: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], RecordBuilder]]:
        """The annotations of images that are here, with their drafts; those of missing files are counted there."""
        for annotation in annotations:
            number = identity(annotation, "image_id")
            if number not in self.by_id:
                self.left_out[OF_UNKNOWN] += 1
            elif (builder := self.by_id[number]) is not None:
                yield annotation, builder

    def _of_categories(self, annotations: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], RecordBuilder, int]]:
        for annotation, builder in self._of_images(annotations):
            category = identity(annotation, "category_id")
            if category in self.names:
                yield annotation, builder, int(category)
            else:
                self.left_out["annotations of an unknown category"] += 1

    def _captions(self, annotations: list[dict[str, Any]]) -> None:
        for annotation, builder in self._of_images(annotations):
            builder.add_caption(annotation.get("caption"), self.left_out)

    def _instances(self, annotations: list[dict[str, Any]]) -> None:
        drawn = []
        for annotation, builder, category in self._of_categories(annotations):
            box = read_box(annotation.get("bbox"))
            if self.form in ("pixelmaps", "stuff") and annotation.get("segmentation"):
                area = box[2] * box[3] if box else 0.0
                drawn.append(_Drawn(area, builder.image, category, annotation["segmentation"]))
            if annotation.get("iscrowd"):
                self.left_out["boxes around crowds"] += 1
            elif box is None:
                self.left_out["boxes without four numbers and an area"] += 1
            else:
                builder.objects.append(NamedBox(box, self.names[category]))
        for one in sorted(drawn, key=lambda one: -one.area):
            self.regions.things.setdefault(one.image, []).append((one.category, one.segmentation))

    def _stuff(self, annotations: list[dict[str, Any]]) -> None:
        for annotation, builder, category in self._of_categories(annotations):
            self.regions.stuff.setdefault(builder.image, []).append((category, annotation.get("segmentation")))

    def _panoptic(self, annotations: list[dict[str, Any]]) -> None:
        for annotation, builder in self._of_images(annotations):
            name, segments = annotation.get("file_name"), annotation.get("segments_info")
            if not isinstance(name, str) or not isinstance(segments, list):
                self.left_out["annotations without a file name or segments"] += 1
                continue
            categories = {}
            for segment in segments:
                known = isinstance(segment, dict) and identity(segment, "category_id") in self.names
                if known and isinstance(identity(segment, "id"), int):
                    categories[segment["id"]] = segment["category_id"]
                else:
                    self.left_out["annotations of an unknown category"] += 1
            self.regions.panoptic[builder.image] = name, categories


@dataclass(frozen=True)
class _Drawn:
    """A thing's region, to be drawn by its size."""

    area: float
    image: str
    category: int
    segmentation: Any
