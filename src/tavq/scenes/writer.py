"""Writes scenes as a folder data set: the same seed, the same bytes."""

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
from tavq.scenes.draw import Rendering, check_size, render
from tavq.scenes.facts import look
from tavq.scenes.kinds import CLASSES
from tavq.scenes.language import Writer
from tavq.scenes.phrases import referring
from tavq.scenes.questions import ask
from tavq.scenes.world import Scene, sample_scene

CYCLE = ("train",) * 4 + ("val",) + ("train",) * 4 + ("test",)
"""Splits of ten images in a row: 80, 10 and 10 per cent, and some of each in any ten."""


def split_of(index: int) -> str:
    """The split of image `index`; images are drawn independently, so their number says nothing else."""
    return CYCLE[index % len(CYCLE)]


def describe(scene: Scene, rendering: Rendering) -> dict[str, Any]:
    """Captions, long text, objects and questions of a scene; boxes in the pixels of `rendering`."""
    facts = look(scene)
    writer = Writer(facts, random.Random(f"tavq words/{scene.seed}/{scene.index}"))
    objects = []
    for fact in facts.seen:
        ys, xs = np.nonzero(rendering.instances == fact.place)
        if len(xs):
            box = [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]
            objects.append({"box": box, "name": fact.thing.kind, "phrases": referring(facts, fact)})
    return {
        "captions": writer.captions(),
        "long_text": writer.long_text(),
        "objects": objects,
        "questions": ask(facts, random.Random(f"tavq questions/{scene.seed}/{scene.index}")),
    }


def write_scenes(
    folder: Path, images: int, size: int, seed: int, progress: Callable[[int, int], None] | None = None
) -> None:
    """Writes scenes 0 to `images` - 1 of a seed as the folder data set `folder`, all of them or nothing.

    Images go to images/, classes per pixel to segmentation/ (their names in segmentation_classes.json), and one line
    for each to metadata.jsonl. Image i depends on the seed, i and `size` only.

    Args:
        progress: told the images done and all of them.

    Raises:
        UsageError: the folder holds something, or a number is out of range.
    """
    if images < 1:
        raise UsageError(f"{images} scenes cannot be drawn; ask for 1 or more.")
    check_size(size)
    with files.create_folder(folder) as place:
        (place / "images").mkdir()
        (place / "segmentation").mkdir()
        lines = []
        for index in range(images):
            lines.append(_write_one(place, seed, index, size))
            if progress is not None:
                progress(index + 1, images)
        files.write_json(place / SEGMENTATION_CLASSES, dict(enumerate(CLASSES)))
        files.write_json_lines(place / METADATA, lines)


def _write_one(place: Path, seed: int, index: int, size: int) -> dict[str, Any]:
    scene = sample_scene(seed, index)
    rendering = render(scene, size)
    image, segmentation = f"images/{index:06d}.png", f"segmentation/{index:06d}.png"
    (place / image).write_bytes(encode_png(rendering.image))
    (place / segmentation).write_bytes(encode_png(rendering.segmentation))
    record = describe(scene, rendering)
    return {"file_name": image, "split": split_of(index), **record, "segmentation": segmentation}
