"""Predicted boxes of phrases against the true boxes: mean IoU, and accuracy at an IoU of 0.5."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tavq.core.errors import DataError
from tavq.metrics import intervals
from tavq.metrics.keyed import KeyedMetric
from tavq.metrics.record import Group, Metric

LARGEST = 1e9
"""Bound of a coordinate in pixels: beyond any image, and areas stay exact."""

RIGHT = 0.5
"""A box is right whose IoU is larger."""

BOXES = Group("boxes", "Boxes of phrases")
ACCURACY = Metric(
    f"accuracy@{RIGHT}",
    "Accuracy at IoU 0.5",
    BOXES,
    better=1,
    meaning="Fraction of the phrases whose box has an IoU above 0.5 with the true one.",
    percent=True,
    main=True,
)
MEAN_IOU = Metric(
    "mean_iou",
    "Mean IoU",
    BOXES,
    better=1,
    meaning="Intersection over union of the predicted and the true box.",
    main=True,
)


def iou(a: Float[Tensor, "n 4"], b: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """Intersection over union of pairs of boxes, from 0 to 1; boxes are [x, y, width, height].

    A box without area has IoU 0 with every box.
    """
    a, b = a.double(), b.double()
    ends = torch.minimum(a[:, :2] + a[:, 2:].clamp(min=0), b[:, :2] + b[:, 2:].clamp(min=0))
    common = (ends - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(dim=1)
    both = a[:, 2:].clamp(min=0).prod(dim=1) + b[:, 2:].clamp(min=0).prod(dim=1) - common
    return torch.where(common > 0, common / both, 0.0)


class GroundingScores(KeyedMetric):
    """`accuracy@0.5` (the fraction of boxes with an IoU above 0.5) and `mean_iou` of one box per phrase.

    Source: LG-VQ (arXiv 2405.14206), section 4.3: right where the IoU is larger than 0.5.
    """

    def add(self, key: str, box: Sequence[float], truth: Sequence[float], image: str | None = None) -> None:
        """Adds a phrase; boxes are [x, y, width, height].

        Args:
            key: the phrase's.
            box: the box to score.
            truth: the true box, which must have an area.
            image: the image of both; where all phrases name one, intervals are over images.
        """
        for name, numbers in (("box", box), ("true box", truth)):
            if len(numbers) != 4 or not all(abs(number) < LARGEST for number in numbers):
                shown = f"{list(numbers)}"[:100]
                raise DataError(f"The {name} of {key!r} is {shown}; four numbers below {LARGEST:.0e} are needed.")
        if min(truth[2:]) <= 0:
            raise DataError(f"The true box of {key!r} is {list(truth)}; its width and height must be above 0.")
        self._add(key, [[float(n) for n in box], [float(n) for n in truth], image])

    def compute(self) -> dict[str, Any]:
        """`metrics`, the IoU `per_phrase`, and the counts of what was scored."""
        records = self.ordered()
        if not records:
            raise DataError("No boxes were given to score.")
        boxes, truths = (torch.tensor([record[part] for _, record in records], dtype=torch.float64) for part in (0, 1))
        found = iou(boxes, truths).tolist()
        each = [{ACCURACY.name: float(value > RIGHT), MEAN_IOU.name: value} for value in found]
        images = [image for _, (_, _, image) in records]
        by_image = None not in images
        units = images if by_image else [key for key, _ in records]
        scores = intervals.score_groups((ACCURACY, MEAN_IOU), each, [""] * len(each), units)
        return {
            "metrics": scores[intervals.ALL],
            "per_phrase": {key: value for (key, _), value in zip(records, found, strict=True)},
            "phrases": len(records),
            "boxes_without_area": sum(min(box[2:]) <= 0 for _, (box, _, _) in records),
            "intervals": {**intervals.ABOUT, "over": "images" if by_image else "phrases"},
        }
