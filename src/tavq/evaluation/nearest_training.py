"""What copying gives: for each image the one of the training split that is nearest to what is known of it.

Nothing of the training split is kept but the best candidate so far of each image that is measured.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.loader import EvaluationLoader
from tavq.data.transforms import to_uint8
from tavq.interfaces import TextSource

BATCH = 32
TEXTS = 1024
"""Texts of the training split that are compared at a time."""

SIDE = 32
"""Of the small images and maps that are compared."""

Copies = dict[str, str]
"""The name of the training image that is nearest to each image."""


class NearestNeighbours:
    """The candidate most like each query, of many that come in batches."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = keys
        self.likeness = torch.full((len(keys),), -torch.inf, dtype=torch.float64)
        self.found: list[str | None] = [None] * len(keys)

    def update(self, likeness: Float[Tensor, "n b"], candidates: Sequence[str]) -> None:
        """Counts a batch of candidates; of equal ones the first stays, and no image is its own neighbour."""
        likeness = likeness.double().masked_fill(same(self.keys, candidates), -torch.inf)
        best, places = likeness.max(dim=1)
        for row in (best > self.likeness).nonzero()[:, 0].tolist():
            self.likeness[row], self.found[row] = best[row], candidates[int(places[row])]

    def copies(self) -> Copies:
        """Of the queries for which there is one."""
        return {key: found for key, found in zip(self.keys, self.found, strict=True) if found is not None}


def same(keys: Sequence[str], candidates: Sequence[str]) -> Bool[Tensor, "n b"]:
    """Where a query and a candidate are the same image, as they are where the training split itself is measured."""
    places = {key: place for place, key in enumerate(candidates)}
    found = torch.zeros(len(keys), len(candidates), dtype=torch.bool)
    for row, key in enumerate(keys):
        if key in places:
            found[row, places[key]] = True
    return found


# --- by text ----------------------------------------------------------------------------------------------------


def find_nearest_by_text(keys: Sequence[str], train: FolderDataset, text: TextSource) -> Copies:
    """By the cosine of the means of the sentence vectors; who has no sentence is given training images in turn."""
    asking, vectors = _sentences(keys, text)
    found = NearestNeighbours(asking)
    names = [record.file_name for record in train]
    for start in range(0, len(names), TEXTS):
        candidates, others = _sentences(names[start : start + TEXTS], text)
        if asking and candidates:
            found.update(vectors @ others.mT, candidates)
    return {key: names[place % len(names)] for place, key in enumerate(keys)} | found.copies()


def _sentences(keys: Sequence[str], text: TextSource) -> tuple[list[str], Float[Tensor, "n t"]]:
    found = {key: np.asarray(text.vectors(key)["sentences"]) for key in keys if key in text}
    told = {key: rows.mean(axis=0) for key, rows in found.items() if len(rows)}
    rows = torch.from_numpy(np.stack([*told.values()])) if told else torch.zeros(0, text.width)
    return list(told), F.normalize(rows.double(), dim=1)


# --- by segmentation --------------------------------------------------------------------------------------------


def find_nearest_by_map(dataset: FolderDataset, train: FolderDataset, limit: int | None) -> Copies:
    """By the share of places at which both maps, brought to 32 x 32, have the same class."""
    mapped = train.subset(record for record in train if record.segmentation is not None)
    if not mapped.records:
        return {}
    keys: list[str] = []
    maps = []
    for names, classes in _maps(dataset, limit):
        keys += names
        maps.append(classes)
    found, asked = NearestNeighbours(keys), torch.cat(maps)
    for names, classes in _maps(mapped, None):
        agreement = [(asked == one).double().mean(dim=1) for one in classes]
        found.update(torch.stack(agreement, dim=1), names)
    return found.copies()


def _maps(dataset: FolderDataset, limit: int | None) -> Iterator[tuple[tuple[str, ...], Int[Tensor, "b p"]]]:
    """Names of images and their classes, as the numbers of the palette's colours."""
    config = DataConfig(size=SIDE, images="segmentation")
    for batch in EvaluationLoader(dataset, config, BATCH, None, limit):
        red, green, blue = to_uint8(batch.images).int().unbind(1)
        yield batch.keys, (red << 16 | green << 8 | blue).flatten(1)


# --- by the known part ------------------------------------------------------------------------------------------


def find_nearest_by_known_part(
    dataset: FolderDataset,
    train: FolderDataset,
    masks: Mapping[str, Bool[Tensor, "y x"]],
    config: DataConfig,
    limit: int | None,
) -> dict[str, Copies]:
    """For each mask by the squared difference of what it leaves of the images, both brought to 32 x 32.

    The means of small squares are compared of which no pixel is hidden: nothing hidden has any influence.
    """
    known = {name: _known(mask) for name, mask in masks.items()}
    keys: list[str] = []
    parts = []
    for batch in EvaluationLoader(dataset, config, BATCH, None, limit):
        keys += batch.keys
        parts.append(_small(batch.images))
    asked, found = torch.cat(parts), {name: NearestNeighbours(keys) for name in masks}
    for batch in EvaluationLoader(train, config, BATCH):
        others = _small(batch.images)
        for name, neighbours in found.items():
            one, other = asked[:, :, known[name]].flatten(1), others[:, :, known[name]].flatten(1)
            neighbours.update(-torch.cdist(one, other), batch.keys)
    return {name: neighbours.copies() for name, neighbours in found.items()}


def _small(images: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b 3 h w"]:
    return F.adaptive_avg_pool2d(images.double(), min(SIDE, images.shape[2]))


def _known(mask: Bool[Tensor, "y x"]) -> Bool[Tensor, "h w"]:
    return F.adaptive_max_pool2d(mask[None].float().cpu(), min(SIDE, mask.shape[0]))[0] == 0
