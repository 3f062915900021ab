"""COCO-QA: questions about COCO's images with one word as their answer."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tavq.core.errors import DataError
from tavq.core.files import read_json_lines, read_text
from tavq.data.folder import Progress
from tavq.data.records import Question, clean_text
from tavq.importers.annotations import identity, mappings
from tavq.importers.archives import find_coco_image, find_coco_images
from tavq.importers.importing import ImportSummary, Source, sources
from tavq.importers.layouts import check_source
from tavq.importers.record_builder import DatasetBuilder

FILES = ("questions.txt", "answers.txt", "img_ids.txt", "types.txt")
TYPES = ("object", "number", "color", "location")
"""The types by their published numbers 0 to 3."""

IMAGES = ("train2014", "val2014", "train2017", "val2017")
CLAIMS = ("test", "val", "train")
"""The order in which splits claim an image; no published one is in two."""


@dataclass(frozen=True)
class _Row:
    """One question as the files give it."""

    question: Any
    answer: Any
    image: str
    type: Any


@sources.register("coco-qa")
class CocoQa(Source):
    """Ren, Kiros and Zemel 2015, as published: four files with a line for each question, for train and for test.

    Images are found by their COCO number, so that those of 2014 (of which the questions were made) and of 2017 serve.
    """

    layout = (
        "{train,test}/{questions,answers,img_ids,types}.txt, or cocoqa_{train,val,test}*.jsonl (image_id, question, "
        "answer, type); COCO's images in {train,val}2014/, {train,val}2017/, images/ or archives of that name"
    )

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Writes the images that are asked about, unchanged, with their questions in the published order."""
        check_source(source)
        folders = [split for split in CLAIMS if (source / split / FILES[0]).is_file()]
        tables = {split: sorted(source.glob(f"cocoqa_{split}*.jsonl")) for split in CLAIMS}
        if not folders and not any(tables.values()):
            looked = "train/questions.txt, test/questions.txt and cocoqa_{train,val,test}*.jsonl"
            raise DataError(f"There are no questions in {source}: {looked} were looked for.")
        several = [path.name for found in tables.values() if len(found) > 1 for path in found]
        if several and not folders:
            raise DataError(f"{source} holds several files of one split: {', '.join(several)}; leave one of them.")
        dataset = DatasetBuilder(find_coco_images(source, IMAGES))
        for split in CLAIMS:
            if split in folders:
                _add(dataset, split, _from_texts(source / split))
            for table in [] if folders else tables[split]:
                _add(dataset, split, _from_table(table, dataset))
        gone = [split for split in ("train", "test") if folders and split not in folders]
        if gone:
            dataset.left_out[f"folders that are not there ({', '.join(gone)})"] = len(gone)
        return dataset.write(out, progress, limit)


def _from_texts(folder: Path) -> Iterator[_Row]:
    """The rows of the four files, whose lines belong together."""
    columns = {name: read_text(folder / name).splitlines() for name in FILES if (folder / name).is_file()}
    if len(columns) < len(FILES):
        gone = ", ".join(name for name in FILES if name not in columns)
        raise DataError(f"There is no file {gone} in {folder}, beside {FILES[0]}.")
    if len({len(column) for column in columns.values()}) > 1:
        counts = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
        raise DataError(f"The files in {folder} must have as many lines each; they have: {counts}.")
    for question, answer, image, kind in zip(*(columns[name] for name in FILES), strict=True):
        number = kind.strip()
        yield _Row(question, answer, image.strip(), dict(zip("0123", TYPES, strict=True)).get(number, f"type {number}"))


def _from_table(path: Path, dataset: DatasetBuilder) -> Iterator[_Row]:
    for entry in mappings(read_json_lines(path), dataset.left_out):
        image = str(identity(entry, "image_id"))
        yield _Row(entry.get("question"), entry.get("answer"), image, entry.get("type"))


def _add(dataset: DatasetBuilder, split: str, rows: Iterator[_Row]) -> None:
    for row in rows:
        question, answer = clean_text(row.question), clean_text(row.answer)
        if question is None or answer is None:
            dataset.left_out["questions that are empty or have no answer"] += 1
        elif not (row.image.isdecimal() and row.image.isascii() and len(row.image) <= 12):
            dataset.left_out["questions of an image that is no number"] += 1
        elif row.type not in TYPES:
            dataset.left_out["questions of an unknown type"] += 1
        else:
            name = find_coco_image(dataset.images, f"{int(row.image):012d}.jpg")
            builder = dataset.add(name, row.image, split)
            if builder is not None:
                builder.questions.append(Question(question, answer, row.type))
            else:
                why = "have no file" if name is None else f"belong to another split than {split}"
                dataset.left_out[f"questions whose images {why}"] += 1
