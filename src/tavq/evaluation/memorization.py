"""Whether a task repeats its training images."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.loader import EvaluationLoader
from tavq.metrics.distances import ImageSet
from tavq.metrics.memorization import NearestDistances, memorization
from tavq.metrics.record import Metric
from tavq.ops.collective import rank, world_size

BATCH = 32


@torch.no_grad()
def measure_copying(
    generated: Sequence[ImageSet],
    held_out: Sequence[ImageSet],
    train: FolderDataset,
    config: DataConfig,
    device: torch.device,
) -> list[Metric]:
    """`nearest_distance_NETWORK` and `data_copying_NETWORK` by each network's features.

    One pass over the training images, of which each process reads a part. A held-out image that is itself a training
    image is compared with the others.

    Args:
        generated: a set for each network, by the keys of the images whose condition was given.
        held_out: the same for images of the split.
        train: the training images.
        config: how they are prepared.
        device: of the networks.
    """
    networks = [image_set.network for image_set in generated]
    ours = [NearestDistances(image_set.sample, exclude_same_key=False) for image_set in generated]
    theirs = [NearestDistances(image_set.sample, exclude_same_key=True) for image_set in held_out]
    for batch in EvaluationLoader(train, config, BATCH, rank=rank(), world=world_size()):
        images = batch.images.to(device)
        for network, own, other in zip(networks, ours, theirs, strict=True):
            features = network(images)
            own.update(features, batch.keys)
            other.update(features, batch.keys)
    for distances in (*ours, *theirs):
        distances.join()
    return [
        replace(metric, name=network.metric_name(metric.name), title=f"{metric.title} ({network.name})")
        for network, own, other in zip(networks, ours, theirs, strict=True)
        for metric in memorization(own.nearest, other.nearest)
    ]
