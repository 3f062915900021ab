"""RefCOCO, RefCOCO+ and RefCOCOg: phrases that people gave to single things in COCO's images."""

from collections import Counter
from pathlib import Path
from typing import Any

from tavq.core.errors import DataError
from tavq.core.files import read_json
from tavq.data.folder import Progress
from tavq.data.records import Box, NamedBox, clean_text
from tavq.importers.annotations import identity, mappings, read_box, read_lists, read_size
from tavq.importers.archives import find_coco_image, find_coco_images
from tavq.importers.importing import ImportSummary, Source, sources
from tavq.importers.layouts import check_source, first_file
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
"""The splits of the references, in the order in which they claim an image."""

Things = dict[tuple[str, Any], tuple[RecordBuilder, NamedBox]]


@sources.register("refcoco")
class RefCoco(Source):
    """Kazemzadeh et al. 2014, Yu et al. 2016 and Mao et al. 2016, as the `refer` interface reads them.

    Of several partitions UNC's (RefCOCO, RefCOCO+) or UMD's (RefCOCOg) is taken, whose splits share no image. In
    Google's an image can be in two; it goes to the test or validation split and its other phrases are left out, so
    that nothing is tested on an image that was trained on. `testA` and `testB` both become `test`; testA's objects are
    those named person. Phrases are the cleaned ones (`sent`), on which published results stand.

    The references are Python pickles. They are read without running them; see `plainpickle`. In their place
    refcocos_test.json may lie (expressions of RefCOCO's kind with boxes [x1, y1, x2, y2]), all of which become `test`.
    """

    layout = (
        "refs(unc).p, refs(umd).p or refs(google).p with instances.json, or refcocos_test.json; COCO's images in "
        "{train,val}2014/, {train,val}2017/, images/ or archives of that name, or in ../images/mscoco/images/train2014/"
    )

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Writes the images that references speak of, unchanged, with the objects that have phrases."""
        check_source(source)
        references, single = first_file(source, REFERENCES), first_file(source, [SINGLE])
        if references is None and single is None:
            looked = f"{', '.join(REFERENCES)} and {SINGLE}"
            raise DataError(
                f"There are no references in {source} or {source / 'annotations'}: {looked} were looked for."
            )
        dataset = DatasetBuilder(find_coco_images(source, IMAGES))
        if references is not None:
            _tell_others(source, references, dataset.left_out)
            things = _read_references(references, source, dataset)
        else:
            assert single is not None
            things = _read_expressions(single, dataset)
        for builder, thing in things.values():
            builder.objects.append(thing)
        return dataset.write(out, progress, limit)


def _tell_others(source: Path, taken: Path, left_out: Counter[str]) -> None:
    others = [name for name in REFERENCES if name != taken.name and first_file(source, [name])]
    if others:
        left_out[f"partitions other than {taken.name} ({', '.join(others)})"] = len(others)


def _read_references(path: Path, source: Path, dataset: DatasetBuilder) -> Things:
    instances = first_file(source, ["instances.json"])
    if instances is None:
        raise DataError(f"There is no file instances.json in {source} or {source / 'annotations'}, beside {path.name}.")
    references = read_plain_pickle(path)
    if not isinstance(references, list):
        raise DataError(f"{path} holds no list of references.")
    lists = read_lists(instances, ["images", "annotations", "categories"], dataset.left_out)
    reader = _References(dataset, lists)
    entries = mappings(references, dataset.left_out)
    known = [reference for reference in entries if _split(reference) is not None]
    dataset.left_out["references of an unknown split"] += len(entries) - len(known)
    places = {name: place for place, name in enumerate(SPLITS)}
    for reference in sorted(known, key=lambda reference: places[reference["split"]]):
        reader.read(reference, SPLITS[reference["split"]])
    return reader.things


def _split(reference: dict[str, Any]) -> str | None:
    split = reference.get("split")
    return SPLITS.get(split) if isinstance(split, str) else None


class _References:
    """Joins references to the boxes and images that they name."""

    def __init__(self, dataset: DatasetBuilder, lists: dict[str, list[dict[str, Any]]]) -> None:
        self.dataset, self.left_out = dataset, dataset.left_out
        self.images = {identity(image, "id"): image for image in lists["images"]}
        self.boxes = {identity(box, "id"): box for box in lists["annotations"]}
        self.names = {identity(category, "id"): category.get("name") for category in lists["categories"]}
        self.things: Things = {}

    def read(self, reference: dict[str, Any], split: str) -> None:
        image = self.images.get(identity(reference, "image_id"))
        annotation = self.boxes.get(identity(reference, "ann_id"))
        thing = self._thing(reference, annotation)
        if image is None or thing is None or not isinstance(image.get("file_name"), str):
            self.left_out["references to an unknown image, box or category"] += 1
            return
        name = find_coco_image(self.dataset.images, image["file_name"])
        builder = self.dataset.add(name, image["file_name"], split, read_size(image))
        if builder is not None:
            _add(self.things, (builder.image, reference["ann_id"]), builder, thing)
        elif name is not None:
            self.left_out["references to an image of another split"] += 1

    def _thing(self, reference: dict[str, Any], annotation: dict[str, Any] | None) -> NamedBox | None:
        if annotation is None or annotation.get("image_id") != reference.get("image_id"):
            return None
        box, name = read_box(annotation.get("bbox")), clean_text(self.names.get(identity(annotation, "category_id")))
        sentences = reference.get("sentences")
        if box is None or name is None or not isinstance(sentences, list):
            return None
        texts = [clean_text(sentence.get("sent")) for sentence in mappings(sentences, self.left_out)]
        self.left_out["phrases that are empty or no text"] += texts.count(None)
        return NamedBox(box, name, tuple(text for text in texts if text is not None))


def _add(things: Things, key: tuple[str, Any], builder: RecordBuilder, thing: NamedBox) -> None:
    """Adds an object, or its phrases to those that it has."""
    before = things[key][1].phrases if key in things else ()
    things[key] = builder, NamedBox(thing.box, thing.name, tuple(dict.fromkeys((*before, *thing.phrases))))


def _read_expressions(path: Path, dataset: DatasetBuilder) -> Things:
    value = read_json(path)
    if not isinstance(value, list):
        raise DataError(f"{path} holds no list of expressions.")
    things: Things = {}
    for entry in mappings(value, dataset.left_out):
        name, text, corners = entry.get("file_name"), clean_text(entry.get("normal_caption")), entry.get("solution")
        box = _from_corners(corners)
        if not corners:
            dataset.left_out["expressions that fit nothing in their image"] += 1
        elif not isinstance(name, str) or text is None or box is None:
            dataset.left_out["expressions without a file name, a text or a box"] += 1
        else:
            builder = dataset.add(find_coco_image(dataset.images, name), name, "test", read_size(entry))
            if builder is not None:
                _add(things, (builder.image, box), builder, NamedBox(box, "object", (text,)))
    return things


def _from_corners(corners: Any) -> Box | None:
    """[left, top, width, height] of [left, top, right, bottom]."""
    if not isinstance(corners, list) or len(corners) != 4:
        return None
    if not all(isinstance(number, int | float) and abs(number) < 1e9 for number in corners):
        return None
    left, top, right, bottom = corners
    return read_box([left, top, right - left, bottom - top])
