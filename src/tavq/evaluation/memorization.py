"""Whether a task draws anew what it was trained on."""

from collections.abc import Sequence
from typing import Any

import torch

from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.loader import EvaluationLoader
from tavq.metrics.distances import ImageSet
from tavq.metrics.novelty import NearestDistances, novelty

BATCH = 32


@torch.no_grad()
def measure_novelty(
    drawn: Sequence[ImageSet],
    held_out: Sequence[ImageSet],
    train: FolderDataset,
    config: DataConfig,
    device: torch.device,
) -> dict[str, dict[str, Any]]:
    """`novelty/nearest_distance_NETWORK` and so on by each network's features, `drawn` and `held_out` of the same keys.

    One pass over the training images; of images that are themselves among them each is compared with the others.
    """
    networks = [image_set.network for image_set in drawn]
    ours = [NearestDistances(image_set.sample, apart=False) for image_set in drawn]
    theirs = [NearestDistances(image_set.sample, apart=True) for image_set in held_out]
    for batch in EvaluationLoader(train, config, BATCH):
        images = batch.images.to(device)
        for network, own, other in zip(networks, ours, theirs, strict=True):
            features = network(images)
            own.update(features, batch.keys)
            other.update(features, batch.keys)
    found = {}
    for network, own, other in zip(networks, ours, theirs, strict=True):
        for name, score in novelty(own.nearest, other.nearest).items():
            stem = name.removesuffix("_held_out")
            found[f"novelty/{network.title(stem)}{name[len(stem) :]}"] = score
    return found
