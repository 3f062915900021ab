"""RefCOCO, RefCOCO+ and RefCOCOg: referring expressions for objects in COCO's images."""

from collections import Counter
from pathlib import Path
from typing import Any

from tavq.core.errors import DataError
from tavq.core.files import MAX_JSON, read_json
from tavq.data.folder import Progress
from tavq.data.records import Box, NamedBox, clean_text
from tavq.importers.annotations import read_box, read_id, read_lists, read_size, select_objects
from tavq.importers.archives import find_coco_image, find_coco_images
from tavq.importers.importing import ImportSummary, Source, sources
from tavq.importers.layouts import check_source_folder, first_file
from tavq.importers.plain_pickle import read_plain_pickle
from tavq.importers.record_builder import DatasetBuilder, RecordBuilder

REFERENCES = ("refs(unc).p", "refs(umd).p", "refs(google).p")
SINGLE = "refcocos_test.json"
IMAGES = (
    "train2014",
    "val2014",
    "train2017",
    "val2017",
    "mscoco/images/train2014",
    "../images/mscoco/images/train2014",
)
SPLITS = {"testA": "test", "testB": "test", "test": "test", "val": "val", "train": "train"}
"""The splits of the references, in the order in which they claim an image that is in several."""

Things = dict[tuple[str, Any], tuple[RecordBuilder, NamedBox]]


@sources.register("refcoco")
class RefCoco(Source):
    """Kazemzadeh et al. 2014, Yu et al. 2016 and Mao et al. 2016, as the `refer` interface reads them.

    Of several partitions, prefers UNC's (RefCOCO, RefCOCO+) or UMD's (RefCOCOg), whose splits share no image. In
    Google's an image may be in two splits; it goes to the test or validation split and its other phrases are left out,
    so that no test image was trained on. `testA` and `testB` both become `test`; the objects of testA are those named
    person. Phrases are the cleaned ones (`sent`), as in published results.

    The references are Python pickles, which are read without executing them (`plain_pickle`). Instead there may be
    refcocos_test.json (expressions like RefCOCO's with boxes [x1, y1, x2, y2]), all of which become `test`.
    """

    layout = (
        "refs(unc).p, refs(umd).p or refs(google).p with instances.json, or refcocos_test.json; COCO's images in "
        "{train,val}2014/, {train,val}2017/, images/ or archives of that name, or in ../images/mscoco/images/train2014/"
    )

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Write the images that have references, unchanged, with the objects that have phrases."""
        check_source_folder(source)
        references, single = first_file(source, REFERENCES), first_file(source, [SINGLE])
        if references is None and single is None:
            expected = f"{', '.join(REFERENCES)} or {SINGLE}"
            raise DataError(f"There are no references in {source} or {source / 'annotations'}; expected {expected}.")
        dataset = DatasetBuilder(find_coco_images(source, IMAGES))
        if references is not None:
            _count_other_partitions(source, references, dataset.left_out)
            things = _read_references(references, source, dataset)
        else:
            assert single is not None
            things = _read_expressions(single, dataset)
        for builder, thing in things.values():
            builder.objects.append(thing)
        return dataset.write(out, progress, limit)


def _count_other_partitions(source: Path, taken: Path, left_out: Counter[str]) -> None:
    others = [name for name in REFERENCES if name != taken.name and first_file(source, [name])]
    if others:
        left_out[f"partitions other than {taken.name} ({', '.join(others)})"] = len(others)


def _read_references(path: Path, source: Path, dataset: DatasetBuilder) -> Things:
    instances = first_file(source, ["instances.json"])
    if instances is None:
        raise DataError(
            f"There is no file instances.json in {source} or {source / 'annotations'}, which {path.name} needs."
        )
    references = read_plain_pickle(path)
    if not isinstance(references, list):
        raise DataError(f"{path} must hold a list of references.")
    lists = read_lists(instances, ["images", "annotations", "categories"], dataset.left_out)
    reader = _References(dataset, lists)
    entries = select_objects(references, dataset.left_out)
    known = [reference for reference in entries if _read_split(reference) is not None]
    dataset.left_out["references of an unknown split"] += len(entries) - len(known)
    order = list(SPLITS)
    for reference in sorted(known, key=lambda reference: order.index(reference["split"])):
        reader.read(reference, SPLITS[reference["split"]])
    return reader.things


def _read_split(reference: dict[str, Any]) -> str | None:
    split = reference.get("split")
    return SPLITS.get(split) if isinstance(split, str) else None


class _References:
    """Joins references with the boxes and images that they refer to."""

    def __init__(self, dataset: DatasetBuilder, lists: dict[str, list[dict[str, Any]]]) -> None:
        self.dataset, self.left_out = dataset, dataset.left_out
        self.images = {read_id(image, "id"): image for image in lists["images"]}
        self.boxes = {read_id(box, "id"): box for box in lists["annotations"]}
        self.names = {read_id(category, "id"): category.get("name") for category in lists["categories"]}
        self.things: Things = {}

    def read(self, reference: dict[str, Any], split: str) -> None:
        image = self.images.get(read_id(reference, "image_id"))
        annotation = self.boxes.get(read_id(reference, "ann_id"))
        thing = self._build_object(reference, annotation)
        if image is None or thing is None or not isinstance(image.get("file_name"), str):
            self.left_out["references to an unknown image, box or category"] += 1
            return
        name = find_coco_image(self.dataset.images, image["file_name"])
        builder = self.dataset.add(name, image["file_name"], split, read_size(image))
        if builder is not None:
            _add_object(self.things, (builder.image, reference["ann_id"]), builder, thing)
        elif name is not None:
            self.left_out["references to an image of another split"] += 1

    def _build_object(self, reference: dict[str, Any], annotation: dict[str, Any] | None) -> NamedBox | None:
        if annotation is None or annotation.get("image_id") != reference.get("image_id"):
            return None
        box, name = read_box(annotation.get("bbox")), clean_text(self.names.get(read_id(annotation, "category_id")))
        sentences = reference.get("sentences")
        if box is None or name is None or not isinstance(sentences, list):
            return None
        texts = [clean_text(sentence.get("sent")) for sentence in select_objects(sentences, self.left_out)]
        self.left_out["phrases that are empty or not text"] += texts.count(None)
        return NamedBox(box, name, tuple(text for text in texts if text is not None))


def _add_object(things: Things, key: tuple[str, Any], builder: RecordBuilder, thing: NamedBox) -> None:
    """Add an object, or more phrases to an object that was added before."""
    before = things[key][1].phrases if key in things else ()
    things[key] = builder, NamedBox(thing.box, thing.name, tuple(dict.fromkeys((*before, *thing.phrases))))


def _read_expressions(path: Path, dataset: DatasetBuilder) -> Things:
    value = read_json(path, MAX_JSON)
    if not isinstance(value, list):
        raise DataError(f"{path} must hold a list of expressions.")
    things: Things = {}
    for entry in select_objects(value, dataset.left_out):
        name, text, corners = entry.get("file_name"), clean_text(entry.get("normal_caption")), entry.get("solution")
        box = _convert_corners(corners)
        if not corners:
            dataset.left_out["expressions that match nothing in their image"] += 1
        elif not isinstance(name, str) or text is None or box is None:
            dataset.left_out["expressions without a file name, a text or a box"] += 1
        else:
            builder = dataset.add(find_coco_image(dataset.images, name), name, "test", read_size(entry))
            if builder is not None:
                _add_object(things, (builder.image, box), builder, NamedBox(box, "object", (text,)))
    return things


def _convert_corners(corners: Any) -> Box | None:
    """Convert [left, top, right, bottom] to [left, top, width, height]; None if it is not a box."""
    if not isinstance(corners, list) or len(corners) != 4:
        return None
    if not all(isinstance(number, int | float) and abs(number) < 1e9 for number in corners):
        return None
    left, top, right, bottom = corners
    return read_box([left, top, right - left, bottom - top])
