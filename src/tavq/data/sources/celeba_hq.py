"""CelebA-HQ: 30,000 faces, with the part masks of CelebAMask-HQ and the captions of Multi-Modal-CelebA-HQ."""

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from tavq.core.errors import DataError
from tavq.core.files import read_text
from tavq.data.folder import Progress
from tavq.data.importing import ImportSummary, Source, find_file, sources
from tavq.data.intake import Found, take_all
from tavq.data.layouts import caption_lines, find_folder, need_folder, numbered_lines
from tavq.data.pictures import load_picture, png_bytes
from tavq.data.records import Record

ROOTS = ("CelebAMask-HQ", "data/CelebAMask-HQ")
PICTURES = "CelebA-HQ-img"
MASKS = "CelebAMask-HQ-mask-anno"
MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
CAPTION_FOLDERS = ("celeba-caption", "text/celeba-caption", "multi-modal-celeba/text/celeba-caption", "text")
PER_FOLDER = 2000
"""How many pictures' masks lie in one of the folders 0 to 14."""

CLASSES = (
    "background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth", "u_lip",
    "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip
"""The publishers' own numbers; where two parts meet on a pixel, the later one is on top."""

LAST_OF_TRAINING, LAST_OF_VALIDATION = 162_770, 182_637  # pictures of CelebA, counted from 1: list_eval_partition.txt


@sources.register("celeba-hq")
class CelebaHq(Source):
    """Karras et al. 2018 as distributed with CelebAMask-HQ (Lee et al. 2020); captions by Xia et al. 2021.

    The split is that of CelebA, as CelebAMask-HQ's own README has it, by way of the mapping that lies beside the
    pictures: 24,183 for training, 2,993 for validation, 2,824 for testing. (Other papers cut elsewhere: 27,000/3,000,
    25,000/5,000; Multi-Modal-CelebA-HQ keeps its 24,000/6,000 in pickles, which are never opened.)

    Masks and captions are taken where they are there. The part masks of a face (512 pixels a side) become one map of
    19 classes with the size of the picture (1,024), by nearest neighbour: about 60 ms a picture.
    """

    layout = f"CelebAMask-HQ/{PICTURES}/, {MAPPING}, {MASKS}/, and beside it celeba-caption/"

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Writes the pictures unchanged to `out`/images and the maps to `out`/segmentation."""
        root = need_folder(source, [PICTURES, *(f"{root}/{PICTURES}" for root in ROOTS)], "pictures").parent
        splits = _splits(find_file(root, MAPPING))
        texts = find_folder(source, CAPTION_FOLDERS) or find_folder(root, CAPTION_FOLDERS)
        masks = find_folder(root, [MASKS])
        left_out: Counter[str] = Counter()
        found = []
        for path in sorted((root / PICTURES).glob("*.jpg"), key=lambda path: (len(path.stem), path.stem)):
            split = splits.get(path.stem)
            left_out["pictures that the mapping does not list"] += split is None
            if split is not None:
                parts = _parts(masks, int(path.stem))
                captions = _captions(texts, path.stem)
                left_out["pictures without captions"] += not captions
                left_out["pictures without masks"] += not parts
                record = Record(f"images/{path.name}", split, captions)
                if parts:
                    record = Record(record.file_name, split, captions, segmentation=f"segmentation/{path.stem}.png")
                found.append(Found.file(record, path, partial(_map, parts) if parts else None))
        return take_all(out, found, left_out, progress, limit, CLASSES if masks else ())


def _splits(path: Path) -> dict[str, str]:
    """The split of each picture from lines `NUMBER CELEBA-INDEX CELEBA-FILE`, of which the first may be a heading."""
    splits = {}
    for number, key, rest in numbered_lines(path):
        place = rest.split()[-1].removesuffix(".jpg")
        if key.isdecimal() and len(key) < 10 and place.isdecimal() and len(place) < 10:
            index = int(place)
            splits[str(int(key))] = (
                "train" if index <= LAST_OF_TRAINING else "val" if index <= LAST_OF_VALIDATION else "test"
            )
        elif number > 1:
            raise DataError(f"{path} line {number} lists {key!r:.50} {rest!r:.50}; expected idx orig_idx orig_file.")
    return splits


def _captions(texts: Path | None, stem: str) -> tuple[str, ...]:
    path = texts / f"{stem}.txt" if texts is not None else None
    return caption_lines(read_text(path)) if path is not None and path.is_file() else ()


def _parts(masks: Path | None, number: int) -> list[tuple[int, Path]]:
    """The class and the file of each part that is to be seen in a picture."""
    if masks is None:
        return []
    folder = masks / str(number // PER_FOLDER)
    paths = ((index, folder / f"{number:05d}_{name}.png") for index, name in enumerate(CLASSES) if index)
    return [(index, path) for index, path in paths if path.is_file()]


def _map(parts: list[tuple[int, Path]], height: int, width: int) -> bytes:
    """The classes of a picture's pixels, from the bottom part to the one on top."""
    classes = None
    for index, path in parts:
        mask = load_picture(path)[:, :, 0] > 0  # black and white, in three equal channels
        if classes is None:
            classes = np.zeros(mask.shape, np.uint8)
        if mask.shape != classes.shape:
            raise DataError(
                f"{path} has {mask.shape[1]} x {mask.shape[0]} pixels, other parts of the face have others."
            )
        classes[mask] = index
    assert classes is not None
    return png_bytes(np.asarray(Image.fromarray(classes).resize((width, height), Image.Resampling.NEAREST)))
