"""Writes scenes as a folder data set; the same seed gives the same bytes."""

import random
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from tavq.core import files
from tavq.core.errors import UsageError
from tavq.data.folder import SEGMENTATION_CLASSES
from tavq.data.images import encode_png
from tavq.data.records import METADATA
from tavq.data.workers import iter_loaded
from tavq.scenes.kinds import CLASSES
from tavq.scenes.language import TextWriter
from tavq.scenes.phrases import referring_phrases
from tavq.scenes.questions import make_questions
from tavq.scenes.rendering import Rendering, check_size, render
from tavq.scenes.visibility import view_scene
from tavq.scenes.world import Scene, sample_scene

CYCLE = ("train",) * 4 + ("val",) + ("train",) * 4 + ("test",)
"""The splits of ten successive images: 80, 10 and 10 percent, and each split in any ten."""


AT_ONCE = 16
"""Scenes that a process draws at a time."""


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


class _Drawn(NamedTuple):
    """A scene as it is written: its line of metadata, and two files."""

    record: dict[str, Any]
    image: bytes
    segmentation: bytes


class _Drawing(Dataset[list[_Drawn]]):
    """Draws scenes; a copy works in each process."""

    def __init__(self, seed: int, size: int) -> None:
        self.seed = seed
        self.size = size

    def __getitems__(self, indices: Sequence[int]) -> list[_Drawn]:
        return [self._draw(index) for index in indices]

    def _draw(self, index: int) -> _Drawn:
        scene = sample_scene(self.seed, index)
        rendering = render(scene, self.size)
        names = {"file_name": f"images/{index:06d}.png", "split": choose_split(index)}
        record = {**names, **describe(scene, rendering), "segmentation": f"segmentation/{index:06d}.png"}
        return _Drawn(record, encode_png(rendering.image), encode_png(rendering.segmentation))


def write_scenes(
    folder: Path,
    images: int,
    size: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 0,
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
        workers: processes that draw; 0 draws in this one.

    Raises:
        UsageError: the folder is not empty, or a number is out of range.
        DataError: a process that draws died.
    """
    if images < 1:
        raise UsageError(f"{images} scenes cannot be written; choose 1 or more.")
    check_size(size)
    with files.create_folder(folder) as temporary:
        (temporary / "images").mkdir()
        (temporary / "segmentation").mkdir()
        lines: list[dict[str, Any]] = []
        batches = (range(start, min(start + AT_ONCE, images)) for start in range(0, images, AT_ONCE))
        for drawn in chain.from_iterable(iter_loaded(_Drawing(seed, size), batches, workers)):
            (temporary / drawn.record["file_name"]).write_bytes(drawn.image)
            (temporary / drawn.record["segmentation"]).write_bytes(drawn.segmentation)
            lines.append(drawn.record)
            if progress is not None:
                progress(len(lines), images)
        files.write_json(temporary / SEGMENTATION_CLASSES, dict(enumerate(CLASSES)))
        files.write_json_lines(temporary / METADATA, lines)
