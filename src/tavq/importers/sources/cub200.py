"""CUB-200-2011: 11,788 photographs of 200 bird species with a box each, and ten captions by Reed et al."""

import math
from collections import Counter
from pathlib import Path, PurePosixPath

from tavq.core.errors import DataError
from tavq.data.characters import find_name
from tavq.data.folder import Progress
from tavq.data.foreign_names import is_image_path, split_captions
from tavq.data.foreign_text import read_foreign_text
from tavq.data.records import Box, NamedBox, Record
from tavq.importers.archives import ImageFiles
from tavq.importers.importing import ImportSummary, Source, sources
from tavq.importers.layouts import find_file, find_folder, read_pairs, read_table
from tavq.importers.published import PublishedDataset
from tavq.importers.reasons import NO_FILE, NOT_LISTED

ROOTS = ("CUB_200_2011",)
CAPTION_FOLDERS = ("text_c10", "cub_captions/text_c10", "cvpr2016_cub/text_c10", "cub_captions", "birds/text", "text")


@sources.register("cub200")
class Cub200(Source):
    """Wah et al. 2011; the captions of Reed et al. 2016 are optional.

    The captions are in `text_c10` (as published) or `birds/text` (as text-to-image projects distribute them), next to
    CUB_200_2011 or in it: one text file per image, one caption per line. The official split has train and test only
    (5,994 and 5,794). The box of each image becomes an object with the name of its class.
    """

    layout = "CUB_200_2011/{images,classes,image_class_labels,train_test_split,bounding_boxes}.txt, images/, text_c10/"

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Write the images unchanged to `out`/images, in the folders of their classes."""
        root = find_file(source, "images.txt", ROOTS).parent
        texts = find_folder(source, CAPTION_FOLDERS) or find_folder(root, CAPTION_FOLDERS)
        boxes, training = read_table(root / "bounding_boxes.txt"), read_table(root / "train_test_split.txt")
        classes, labels = read_table(root / "classes.txt"), read_table(root / "image_class_labels.txt")
        images = ImageFiles([root / "images"], name_file=str)
        records, left_out, others = {}, Counter[str](), Counter[str]()
        for number, key, listed in read_pairs(root / "images.txt"):
            name = images.find(listed) or listed
            where = f"{root / 'images.txt'} line {number}"
            if not is_image_path(name):
                raise DataError(f"{where} lists {name!r:.100}; expected FOLDER/NAME.jpg.")
            if key not in training or key not in boxes or labels.get(key) not in classes:
                raise DataError(f"{where}: image {key} has no split, box or class in the other lists.")
            if images.find(name) is None:
                left_out[NO_FILE] += 1
                continue
            bird = NamedBox(_parse_box(boxes[key], root), _clean_class_name(classes[labels[key]]))
            split = "train" if training[key] == "1" else "test"
            captions = _read_captions(texts, name, others)
            records[name] = Record(f"images/{name}", split, captions, objects=(bird,))
            others["images without captions"] += not captions
        left_out[NOT_LISTED] += len(images) - len(records)
        return PublishedDataset(images, records, left_out=left_out, others=others).write(out, progress, limit)


def _read_captions(texts: Path | None, name: str, others: Counter[str]) -> tuple[str, ...]:
    if texts is None:
        return ()
    path = texts / find_name(texts, str(PurePosixPath(name).with_suffix(".txt")))
    return split_captions(read_foreign_text(path, others)) if path.is_file() else ()


def _parse_box(text: str, root: Path) -> Box:
    try:
        x, y, width, height = map(float, text.split())
        if math.isfinite(x + y + width + height):
            return x, y, width, height
    except ValueError:
        pass
    raise DataError(f"{root / 'bounding_boxes.txt'} has the box {text[:60]!r}; expected x, y, width and height.")


def _clean_class_name(published: str) -> str:
    """`001.Black_footed_Albatross` as `Black footed Albatross`."""
    return published.rpartition(".")[2].replace("_", " ")
