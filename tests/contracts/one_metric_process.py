"""One of the processes that score together: collects its share of the items, joins them and writes what it found.

Called by test_metric_processes.py as: one_metric_process.py RANK WORLD STORE OUT
"""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tavq.core import files
from tavq.metrics.answers import AnswerScores
from tavq.metrics.captions import CaptionScores
from tavq.metrics.distances import ImageSet, compare_image_sets
from tavq.metrics.grounding import GroundingScores
from tavq.metrics.record import metrics_as_json
from tavq.nets.features.extractors import FeatureNetwork

ITEMS = 11


class Corners(FeatureNetwork):
    """The first pixels of an image."""

    name = "corners"
    width = 3

    def stages(self, images: Tensor) -> list[Tensor]:
        return [images[:, :, :1, :1]]


def distances(rank: int, world: int) -> dict[str, Any]:
    """Of 31 images from 40 others, the processes' shares being of different sizes; some of them hold none."""
    generator = torch.Generator().manual_seed(0)
    made, real = torch.randn(31, 3, 1, 1, generator=generator), torch.randn(40, 3, 1, 1, generator=generator) + 1
    sets = [ImageSet(Corners()) for _ in range(2)]
    for found, images, first in zip(sets, (made, real), (25, 40), strict=True):
        found.sample.size = 20
        places = range(len(images)) if world == 1 else (range(first), range(first, len(images)))[rank]
        if places:
            found.update(images[places.start : places.stop], [f"{place}.png" for place in places])
        found.join()
    return metrics_as_json(compare_image_sets(*sets))


def main(rank: int, world: int, store: str, out: str) -> None:
    """Every world-th item from the rank-th on; the last one is shown to all, as samplers that fill up do."""
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    captions, answers, boxes = CaptionScores(), AnswerScores(), GroundingScores()
    words = ["a", "ä", "dog", "cat", "red", "big", "runs", "\ud800", "sits", "犬"]
    for item in [*range(rank, ITEMS, world), ITEMS]:
        text = [" ".join(words[(item * step + i) % len(words)] for i in range(3 + item % 4)) for step in (1, 3, 7)]
        captions.add(f"image {item}", text[0], text[1:])
        answers.add(f"{item}", words[item % 3], words[item % 2], f"kind {item % 2}", f"image {item // 2}")
        boxes.add(f"{item}", [item, 0, 10 / 3, 7], [item / 1.3, 1, 5, 5])
    for metric in (captions, answers, boxes):
        metric.join()
    found: dict[str, Any] = {}
    for name, metric in (("c", captions), ("a", answers), ("b", boxes)):
        found[name] = metric.compute()
        found[name] |= metrics_as_json(found[name]["metrics"])
    found["d"] = distances(rank, world)
    files.write_json(Path(out) / f"{world}-{rank}.json", found)
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
