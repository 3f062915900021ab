"""CelebA-HQ: 30,000 faces, with the part masks of CelebAMask-HQ and the captions of Multi-Modal-CelebA-HQ."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from tavq.core.errors import DataError
from tavq.data.folder import Progress
from tavq.data.foreign_names import split_captions
from tavq.data.foreign_text import read_foreign_text
from tavq.data.images import encode_png, load_image
from tavq.data.records import Record
from tavq.importers.archives import ImageFiles
from tavq.importers.importing import ImportSummary, Source, sources
from tavq.importers.layouts import find_file, find_folder, read_pairs, require_folder
from tavq.importers.published import PublishedDataset
from tavq.importers.reasons import NO_SPLIT, SAME_NAME, UNUSABLE_SEGMENTATION

ROOTS = ("CelebAMask-HQ", "data/CelebAMask-HQ")
IMAGES = "CelebA-HQ-img"
MASKS = "CelebAMask-HQ-mask-anno"
MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
CAPTION_FOLDERS = ("celeba-caption", "text/celeba-caption", "multi-modal-celeba/text/celeba-caption", "text")
PER_FOLDER = 2000
"""The number of images whose masks share one of the folders 0 to 14."""

CLASSES = (
    "background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth", "u_lip",
    "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip
"""In the order of the publishers' indices; a later part covers an earlier one."""

LAST_OF_TRAINING, LAST_OF_VALIDATION = 162_770, 182_637  # images of CelebA, counted from 1: list_eval_partition.txt


@sources.register("celeba-hq")
class CelebaHq(Source):
    """Karras et al. 2018 as distributed with CelebAMask-HQ (Lee et al. 2020); captions by Xia et al. 2021.

    The split is that of CelebA, as CelebAMask-HQ's README recommends, through the mapping file next to the images:
    24,183 for training, 2,993 for validation, 2,824 for testing. (Other papers use 27,000/3,000 or 25,000/5,000;
    Multi-Modal-CelebA-HQ stores its 24,000/6,000 in pickles, which are never opened.)

    Masks and captions are optional. The part masks of a face (512 pixels a side) become one map of 19 classes with the
    size of the image (1,024), by nearest neighbour: about 60 ms an image.
    """

    layout = f"CelebAMask-HQ/{IMAGES}/, {MAPPING}, {MASKS}/, and next to it celeba-caption/"

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Write the images unchanged to `out`/images and the maps to `out`/segmentation."""
        folder = require_folder(source, [IMAGES, *(f"{root}/{IMAGES}" for root in ROOTS)], "images")
        splits = _read_splits(find_file(folder.parent, MAPPING))
        texts = find_folder(source, CAPTION_FOLDERS) or find_folder(folder.parent, CAPTION_FOLDERS)
        masks = find_folder(folder.parent, [MASKS])
        images = ImageFiles([folder])
        records, parts, left_out, others = {}, {}, Counter[str](), Counter[str]()
        stems = _find_faces(images, left_out)
        for stem in sorted(stems, key=lambda stem: (len(stem), stem)):
            if stem not in splits:
                left_out[NO_SPLIT] += 1
                continue
            name, captions = stems[stem], _read_captions(texts, stem, others)
            records[name] = Record(f"images/{name}", splits[stem], captions, segmentation=f"segmentation/{stem}.png")
            parts[name] = _find_parts(masks, int(stem))
            others["images without captions"] += not captions
            others["images without masks"] += not parts[name]

        def read_maps(chosen: Sequence[str]) -> Iterator[tuple[str, bytes]]:
            return _merge_masks({name: parts[name] for name in chosen if parts[name]}, left_out)

        found = PublishedDataset(
            images, records, left_out=left_out, others=others, segmentations=read_maps, classes=dict(enumerate(CLASSES))
        )
        return found.write(out, progress, limit)


def _find_faces(images: ImageFiles, left_out: Counter[str]) -> dict[str, str]:
    """The image of each face by its number: JPEG as published, or another format, perhaps with zeros (`00012.png`)."""
    faces: dict[str, str] = {}
    for name in sorted(images, key=lambda name: (not name.endswith(".jpg"), name)):
        stem = PurePosixPath(name).stem
        number = str(int(stem)) if stem.isdecimal() and stem.isascii() and len(stem) < 10 else stem
        left_out[SAME_NAME] += faces.setdefault(number, name) != name
    return faces


def _read_splits(path: Path) -> dict[str, str]:
    """The split of each image from lines `INDEX CELEBA-INDEX CELEBA-FILE`; the first line may be a header."""
    splits = {}
    for number, key, rest in read_pairs(path):
        celeba_file = rest.split()[-1].removesuffix(".jpg")
        if key.isdecimal() and len(key) < 10 and celeba_file.isdecimal() and len(celeba_file) < 10:
            splits[str(int(key))] = _split_of(int(celeba_file))
        elif number > 1:
            raise DataError(f"{path} line {number} lists {key!r:.50} {rest!r:.50}; expected idx orig_idx orig_file.")
    return splits


def _split_of(celeba_file: int) -> str:
    if celeba_file <= LAST_OF_TRAINING:
        return "train"
    return "val" if celeba_file <= LAST_OF_VALIDATION else "test"


def _read_captions(texts: Path | None, stem: str, others: Counter[str]) -> tuple[str, ...]:
    path = texts / f"{stem}.txt" if texts is not None else None
    return split_captions(read_foreign_text(path, others)) if path is not None and path.is_file() else ()


def _find_parts(masks: Path | None, image_id: int) -> list[tuple[int, Path]]:
    """The class index and mask file of each part that is visible in an image."""
    if masks is None:
        return []
    folder = masks / str(image_id // PER_FOLDER)
    paths = ((index, folder / f"{image_id:05d}_{name}.png") for index, name in enumerate(CLASSES) if index)
    return [(index, path) for index, path in paths if path.is_file()]


def _merge_masks(images: Mapping[str, list[tuple[int, Path]]], left_out: Counter[str]) -> Iterator[tuple[str, bytes]]:
    for name, parts in images.items():
        try:
            yield name, _merge_parts(parts)
        except DataError:
            left_out[UNUSABLE_SEGMENTATION] += 1


def _merge_parts(parts: list[tuple[int, Path]]) -> bytes:
    """The label map of a face as a PNG; later parts cover earlier ones."""
    masks = [(index, load_image(path)[:, :, 0] > 0) for index, path in parts]  # black and white, loaded as RGB
    classes = np.zeros(masks[0][1].shape, np.uint8)
    for index, mask in masks:
        if mask.shape != classes.shape:
            raise DataError(f"{parts[0][1]} and another part of the same face differ in size.")
        classes[mask] = index
    return encode_png(classes)
