"""Whether drawn images are copies: how near they are to the training images, beside images held out of it."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tavq.metrics import intervals
from tavq.metrics.sample import BottomKSample, _mark


class NearestDistances:
    """The distance of each image of a sample to the nearest of many others, which come in batches.

    Memory: a number for each image of the sample, however many others come.

    Args:
        sample: the features of images.
        apart: another image of the same key is the very image, and does not count.
    """

    def __init__(self, sample: BottomKSample, apart: bool) -> None:
        self.features, self.marks, self.apart = sample.features.double(), sample.marks, apart
        self.nearest = torch.full((len(self.features),), torch.inf, dtype=torch.float64)

    def update(self, others: Float[Tensor, "b f"], keys: Sequence[str]) -> None:
        """Counts a batch of others."""
        distances = torch.cdist(self.features, others.double().cpu(), compute_mode="donot_use_mm_for_euclid_dist")
        if self.apart:
            marks = torch.tensor([_mark(key) for key in keys], dtype=torch.int64)
            distances = distances.masked_fill(self.marks[:, None] == marks, torch.inf)
        self.nearest = self.nearest.minimum(distances.min(dim=1).values)


def novelty(drawn: Float[Tensor, " n"], held_out: Float[Tensor, " n"]) -> dict[str, dict[str, Any]]:
    """`value` and `interval` of three figures, from distances to the nearest training image.

    - `nearest_distance`: the mean over drawn images; `nearest_distance_held_out`: over held-out ones.
    - `data_copying`: how often a drawn image is nearer to the training images than a held-out one, over all pairs,
      from 0 to 1, ties as a half. 0.5 is as near as new images are; towards 1 the model repeats what it was trained
      on, towards 0 it draws what is unlike any image.

    Source: `data_copying` is Mann and Whitney's U divided by the number of pairs, on which the test of Meehan,
    Chaudhuri and Dasgupta 2020, "A non-parametric test to detect data-copying in generative models", eq. 2, stands.
    Differs from the paper: one cell, the whole space, and no z-score of it.
    """
    earlier = (drawn[:, None] < held_out).double() + (drawn[:, None] == held_out).double() / 2
    by_drawn, by_held_out = earlier.mean(dim=1), earlier.mean(dim=0)
    # Each image's part of a mean over pairs is the mean of the pairs that it is in (Hoeffding 1948).
    parts = by_drawn + by_held_out - earlier.mean()
    columns = {"nearest_distance": drawn, "nearest_distance_held_out": held_out, "data_copying": parts}
    statistics = torch.stack([torch.ones_like(drawn), *columns.values()], dim=1)
    return intervals.with_intervals(list(columns), statistics, intervals.mean)
