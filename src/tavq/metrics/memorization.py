"""Whether generated images are copies: how near they are to the training images, next to held-out images."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from tavq.metrics import intervals
from tavq.metrics.record import Baseline, Group, Metric
from tavq.metrics.sample import BottomKSample, hash_key
from tavq.ops.collective import all_gather_uneven


class NearestDistances:
    """The distance of each image of a sample to the nearest of many other images, which come in batches.

    Memory: one number for each image of the sample.

    Args:
        sample: the features of images.
        exclude_same_key: ignore other images with the same key, because they are the same image.
    """

    def __init__(self, sample: BottomKSample, exclude_same_key: bool) -> None:
        self.features, self.hashes, self.exclude_same_key = sample.features.double(), sample.hashes, exclude_same_key
        self.nearest = torch.full((len(self.features),), torch.inf, dtype=torch.float64)

    def update(self, others: Float[Tensor, "b f"], keys: Sequence[str]) -> None:
        """Adds a batch of other images."""
        distances = torch.cdist(self.features, others.double().cpu(), compute_mode="donot_use_mm_for_euclid_dist")
        if self.exclude_same_key:
            hashes = torch.tensor([hash_key(key) for key in keys], dtype=torch.int64)
            distances = distances.masked_fill(self.hashes[:, None] == hashes, torch.inf)
        self.nearest = self.nearest.minimum(distances.min(dim=1).values)

    def join(self) -> None:
        """Take the nearest of the images of all processes, in each of them; their samples must be the same."""
        if len(self.nearest):
            self.nearest = all_gather_uneven(self.nearest[None]).amin(dim=0)


MEMORIZATION = Group(
    "memorization",
    "Are training images copied?",
    "Distance of each image to its nearest training image in the features of a network.",
)
HELD_OUT = Baseline("held_out", "held-out images", "Images that training never saw, through the same tokenizer.")
NEAREST_DISTANCE = Metric(
    "nearest_distance",
    "Distance to the training images",
    MEMORIZATION,
    meaning="Mean over images.",
    decimals=2,
)
DATA_COPYING = Metric(
    "data_copying",
    "Nearer than a held-out image",
    MEMORIZATION,
    meaning="How often a generated image is nearer to the training images than a held-out one. 50 % is as near as new "
    "images are. Near 100 % it copies training images; near 0 % it generates images unlike any of them.",
    percent=True,
)


def memorization(generated: Float[Tensor, " n"], held_out: Float[Tensor, " n"]) -> list[Metric]:
    """Three metrics with intervals over images, from distances to the nearest training image.

    - `nearest_distance`: the mean over generated images; `held_out/nearest_distance`: over held-out ones.
    - `data_copying`: how often a generated image is nearer to the training images than a held-out one, over all pairs,
      from 0 to 1, ties as a half. 0.5 is as near as new images are; near 1 the model copies training images, near
      0 it generates images unlike any of them.

    Source: `data_copying` is Mann and Whitney's U divided by the number of pairs, the statistic of the test of Meehan,
    Chaudhuri and Dasgupta 2020, "A non-parametric test to detect data-copying in generative models", eq. 2.
    Differs from the paper: one cell, the full space, and no z-score.

    Args:
        generated: distances of generated images to their nearest training image.
        held_out: the same for held-out images.
    """
    nearer = (generated[:, None] < held_out).double() + (generated[:, None] == held_out).double() / 2
    by_generated, by_held_out = nearer.mean(dim=1), nearer.mean(dim=0)
    # Each image's part of a mean over pairs is the mean of the pairs that it is in (Hoeffding 1948).
    parts = by_generated + by_held_out - nearer.mean()
    columns = {NEAREST_DISTANCE: generated, replace(NEAREST_DISTANCE, baseline=HELD_OUT): held_out, DATA_COPYING: parts}
    statistics = torch.stack([torch.ones_like(generated), *columns.values()], dim=1)
    return intervals.score_with_intervals(list(columns), statistics, intervals.mean)
