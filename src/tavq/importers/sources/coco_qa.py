"""COCO-QA: questions about COCO's images with one-word answers."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tavq.core.errors import DataError
from tavq.core.files import read_json_lines
from tavq.data.folder import Progress
from tavq.data.foreign_text import read_foreign_text, split_lines
from tavq.data.records import Question, clean_text
from tavq.importers.annotations import read_id, select_objects
from tavq.importers.archives import find_coco_image, find_coco_images
from tavq.importers.importing import ImportSummary, Source, sources
from tavq.importers.layouts import check_source_folder
from tavq.importers.record_builder import DatasetBuilder

FILES = ("questions.txt", "answers.txt", "img_ids.txt", "types.txt")
TYPES = ("object", "number", "color", "location")
"""The types by their published indices 0 to 3."""

IMAGES = ("train2014", "val2014", "train2017", "val2017")
CLAIMS = ("test", "val", "train")
"""The order in which splits claim an image, if it is in several; none of the published ones is."""


@dataclass(frozen=True)
class _Row:
    """One question as it is in the files, unchecked."""

    question: Any
    answer: Any
    image: str
    type: Any


@sources.register("coco-qa")
class CocoQa(Source):
    """Ren, Kiros and Zemel 2015, as published: four files with a line per question, for train and for test.

    Images are found by COCO id, so those of 2014 (for which the questions were made) and of 2017 work.
    """

    layout = (
        "{train,test}/{questions,answers,img_ids,types}.txt, or cocoqa_{train,val,test}*.jsonl (image_id, question, "
        "answer, type); COCO's images in {train,val}2014/, {train,val}2017/, images/ or archives of that name"
    )

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Write the images that have questions, unchanged, with their questions in the published order."""
        check_source_folder(source)
        folders = [split for split in CLAIMS if (source / split / FILES[0]).is_file()]
        tables = {split: sorted(source.glob(f"cocoqa_{split}*.jsonl")) for split in CLAIMS}
        if not folders and not any(tables.values()):
            expected = "train/questions.txt and test/questions.txt, or cocoqa_{train,val,test}*.jsonl"
            raise DataError(f"There are no questions in {source}; expected {expected}.")
        several = [path.name for found in tables.values() if len(found) > 1 for path in found]
        if several and not folders:
            raise DataError(f"{source} has several files for one split: {', '.join(several)}; keep one of them.")
        dataset = DatasetBuilder(find_coco_images(source, IMAGES))
        for split in CLAIMS:
            if split in folders:
                _add_questions(dataset, split, _read_folder(source / split, dataset))
            for table in [] if folders else tables[split]:
                _add_questions(dataset, split, _read_table(table, dataset))
        missing = [split for split in ("train", "test") if folders and split not in folders]
        if missing:
            dataset.left_out[f"missing folders ({', '.join(missing)})"] = len(missing)
        return dataset.write(out, progress, limit)


def _read_folder(folder: Path, dataset: DatasetBuilder) -> Iterator[_Row]:
    """The rows of the four files; line i of each belongs to question i."""
    present = [name for name in FILES if (folder / name).is_file()]
    columns = {name: split_lines(read_foreign_text(folder / name, dataset.others)) for name in present}
    if len(columns) < len(FILES):
        missing = ", ".join(name for name in FILES if name not in columns)
        raise DataError(f"There is no file {missing} in {folder}, which has {FILES[0]}.")
    if len({len(column) for column in columns.values()}) > 1:
        counts = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
        raise DataError(f"The files in {folder} must have equally many lines; they have: {counts}.")
    types = dict(zip("0123", TYPES, strict=True))
    for question, answer, image, kind in zip(*(columns[name] for name in FILES), strict=True):
        index = kind.strip()
        yield _Row(question, answer, image.strip(), types.get(index, f"type {index}"))


def _read_table(path: Path, dataset: DatasetBuilder) -> Iterator[_Row]:
    for entry in select_objects(read_json_lines(path), dataset.left_out):
        image = str(read_id(entry, "image_id"))
        yield _Row(entry.get("question"), entry.get("answer"), image, entry.get("type"))


def _add_questions(dataset: DatasetBuilder, split: str, rows: Iterator[_Row]) -> None:
    for row in rows:
        question, answer = clean_text(row.question), clean_text(row.answer)
        if question is None or answer is None:
            dataset.left_out["questions that are empty or have no answer"] += 1
        elif not (row.image.isdecimal() and row.image.isascii() and len(row.image) <= 12):
            dataset.left_out["questions whose image is not a number"] += 1
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
