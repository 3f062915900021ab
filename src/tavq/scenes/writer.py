"""Writes scenes as a folder data set; the same seed gives the same bytes."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tavq.core import files
from tavq.core.errors import UsageError
from tavq.data.folder import SEGMENTATION_CLASSES
from tavq.data.images import encode_png
from tavq.data.records import METADATA
from tavq.scenes.kinds import CLASSES
from tavq.scenes.language import TextWriter
from tavq.scenes.phrases import referring_phrases
from tavq.scenes.questions import make_questions
from tavq.scenes.rendering import Rendering, check_size, render
from tavq.scenes.visibility import view_scene
from tavq.scenes.world import Scene, sample_scene

CYCLE = ("train",) * 4 + ("val",) + ("train",) * 4 + ("test",)
"""The splits of ten successive images: 80, 10 and 10 percent, and each split in any ten."""


def choose_split(index: int) -> str:
    """The split of image `index`; images are sampled independently, so the index carries no other information."""
    return CYCLE[index % len(CYCLE)]


def describe(scene: Scene, rendering: Rendering) -> dict[str, Any]:
    """Captions, long text, objects and questions of a scene; boxes are in pixels of `rendering`."""
    view = view_scene(scene)
    writer = TextWriter(view, random.Random(f"tavq words/{scene.seed}/{scene.index}"))
    objects = []
    for item in view.items:
        ys, xs = np.nonzero(rendering.instances == item.index)
        if len(xs):
            box = [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]
            objects.append({"box": box, "name": item.thing.kind, "phrases": referring_phrases(view, item)})
    return {
        "captions": writer.captions(),
        "long_text": writer.long_text(),
        "objects": objects,
        "questions": make_questions(view, random.Random(f"tavq questions/{scene.seed}/{scene.index}")),
    }


def write_scenes(
    folder: Path, images: int, size: int, seed: int, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write scenes 0 to `images` - 1 of a seed as a folder data set, all of them or none.

    Images go to images/, segmentation maps to segmentation/ (with class names in segmentation_classes.json), and one
    line per image to metadata.jsonl. Image i depends only on the seed, i and `size`.

    Args:
        folder: the new data set.
        images: number of images.
        size: their side in pixels.
        seed: of the series.
        progress: called with the number of finished images and of all images.

    Raises:
        UsageError: the folder is not empty, or a number is out of range.
    """
    if images < 1:
        raise UsageError(f"{images} scenes cannot be written; choose 1 or more.")
    check_size(size)
    with files.create_folder(folder) as temporary:
        (temporary / "images").mkdir()
        (temporary / "segmentation").mkdir()
        lines = []
        for index in range(images):
            lines.append(_write_one(temporary, seed, index, size))
            if progress is not None:
                progress(index + 1, images)
        files.write_json(temporary / SEGMENTATION_CLASSES, dict(enumerate(CLASSES)))
        files.write_json_lines(temporary / METADATA, lines)


def _write_one(folder: Path, seed: int, index: int, size: int) -> dict[str, Any]:
    scene = sample_scene(seed, index)
    rendering = render(scene, size)
    image, segmentation = f"images/{index:06d}.png", f"segmentation/{index:06d}.png"
    (folder / image).write_bytes(encode_png(rendering.image))
    (folder / segmentation).write_bytes(encode_png(rendering.segmentation))
    record = describe(scene, rendering)
    return {"file_name": image, "split": choose_split(index), **record, "segmentation": segmentation}
