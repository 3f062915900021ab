"""The copying baseline: for each image, the training image whose condition is nearest.

Memory: the best candidate so far of each measured image; the training split is read in batches, and each of several
processes reads a part of it.
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
from tavq.ops.collective import all_gather_uneven, rank, world_size
from tavq.ops.gathering import gather_in_order, gather_rows, gather_values

BATCH = 32
TEXTS = 1024
"""Training texts in memory at a time."""

SIDE = 32
"""Side of the small images and maps that are compared."""

NearestNames = dict[str, str]
"""The file name of the nearest training image, by the image's own."""


class NearestNeighbours:
    """The most similar candidate of each query, of many candidates that come in batches."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = keys
        self.similarity = torch.full((len(keys),), -torch.inf, dtype=torch.float64)
        self.found: list[str | None] = [None] * len(keys)

    def update(self, similarity: Float[Tensor, "n b"], candidates: Sequence[str]) -> None:
        """Add a batch of candidates. The first of equal ones stays, and an image is not its own neighbour."""
        similarity = similarity.double().masked_fill(find_same_images(self.keys, candidates), -torch.inf)
        best, positions = similarity.max(dim=1)
        for row in (best > self.similarity).nonzero()[:, 0].tolist():
            self.similarity[row], self.found[row] = best[row], candidates[int(positions[row])]

    def join(self, order: Mapping[str, int]) -> None:
        """Take the best candidates of all processes, in each of them.

        Args:
            order: the place of each candidate among all; of equal ones the first stays.
        """
        if world_size() == 1 or not self.keys:
            return
        similarities = all_gather_uneven(self.similarity[None]).T.tolist()
        for row, found in enumerate(zip(*gather_values(self.found), strict=True)):
            ranked = [(-own, order[name], name) for own, name in zip(similarities[row], found, strict=True) if name]
            if ranked:
                self.similarity[row], self.found[row] = -min(ranked)[0], min(ranked)[2]

    def nearest_names(self) -> NearestNames:
        """The nearest candidate of each query that has one."""
        return {key: found for key, found in zip(self.keys, self.found, strict=True) if found is not None}


def find_same_images(keys: Sequence[str], candidates: Sequence[str]) -> Bool[Tensor, "n b"]:
    """True where query and candidate are the same image, which happens when the training split itself is measured."""
    columns = {key: column for column, key in enumerate(candidates)}
    found = torch.zeros(len(keys), len(candidates), dtype=torch.bool)
    for row, key in enumerate(keys):
        if key in columns:
            found[row, columns[key]] = True
    return found


# --- by text ----------------------------------------------------------------------------------------------------


def find_nearest_by_text(keys: Sequence[str], train: FolderDataset, text: TextSource) -> NearestNames:
    """The nearest training image by the cosine of mean sentence vectors.

    Images without text get training images in turn.

    Args:
        keys: file names of the images.
        train: the training split.
        text: the encoded text of both.
    """
    with_text, vectors = _mean_sentences(keys, text)
    found = NearestNeighbours(with_text)
    names = [record.file_name for record in train]
    for start in range(0, len(names), TEXTS):
        candidates, others = _mean_sentences(names[start : start + TEXTS], text)
        if with_text and candidates:
            found.update(vectors @ others.mT, candidates)
    return {key: names[i % len(names)] for i, key in enumerate(keys)} | found.nearest_names()


def _mean_sentences(keys: Sequence[str], text: TextSource) -> tuple[list[str], Float[Tensor, "n t"]]:
    """The images that have a sentence, and their mean sentence vectors, normalized."""
    sentences = {key: np.asarray(text.vectors(key)["sentences"]) for key in keys if key in text}
    means = {key: vectors.mean(axis=0) for key, vectors in sentences.items() if len(vectors)}
    vectors = torch.from_numpy(np.stack([*means.values()])) if means else torch.zeros(0, text.width)
    return list(means), F.normalize(vectors.double(), dim=1)


# --- by segmentation --------------------------------------------------------------------------------------------


def find_nearest_by_map(
    dataset: FolderDataset, train: FolderDataset, limit: int | None, config: DataConfig | None = None
) -> NearestNames:
    """The nearest training image by the fraction of pixels at which both maps, at 32 x 32, have the same class.

    Args:
        dataset: the images.
        train: the training split.
        limit: read at most this number of `dataset`.
        config: says how many maps may be unreadable.
    """
    small = (config or DataConfig()).for_segmentation(None).model_copy(update={"size": SIDE})
    mapped = train.subset(record for record in train if record.segmentation is not None)
    if not mapped.records:
        return {}
    keys: list[str] = []
    maps = []
    for names, classes in _read_maps(dataset, limit, small):
        keys += names
        maps.append(classes)
    keys, queries = _gather_queries(dataset, keys, maps)
    found = NearestNeighbours(keys)
    for names, classes in _read_maps(mapped, None, small):
        agreement = [(queries == one).double().mean(dim=1) for one in classes]
        found.update(torch.stack(agreement, dim=1), names)
    found.join(_places(mapped))
    return found.nearest_names()


def _places(dataset: FolderDataset) -> dict[str, int]:
    return {record.file_name: place for place, record in enumerate(dataset)}


def _gather_queries(dataset: FolderDataset, keys: Sequence[str], parts: Sequence[Tensor]) -> tuple[list[str], Tensor]:
    """The names and rows of the images of all processes, in the order of the split."""
    order = _places(dataset)
    places = [order[key] for key in keys]
    return gather_in_order(places, keys), gather_rows(places, parts)


def _read_maps(
    dataset: FolderDataset, limit: int | None, config: DataConfig
) -> Iterator[tuple[tuple[str, ...], Int[Tensor, "b p"]]]:
    """Names of this process's images and their class maps; a class is the 24-bit number of its palette colour."""
    for batch in EvaluationLoader(dataset, config, BATCH, None, limit, rank(), world_size()):
        red, green, blue = to_uint8(batch.images).int().unbind(1)
        yield batch.keys, (red << 16 | green << 8 | blue).flatten(1)


# --- by the known part ------------------------------------------------------------------------------------------


def find_nearest_by_known_part(
    dataset: FolderDataset,
    train: FolderDataset,
    masks: Mapping[str, Bool[Tensor, "y x"]],
    config: DataConfig,
    limit: int | None,
) -> dict[str, NearestNames]:
    """For each mask the nearest training image by the squared difference of the known parts, at 32 x 32.

    A cell of the small images counts only if none of its pixels is hidden, so that the hidden part has no influence.

    Args:
        dataset: the images.
        train: the training split.
        masks: True where hidden, by name.
        config: how the images are prepared.
        limit: read at most this number of `dataset`.
    """
    known = {name: _find_known_cells(mask) for name, mask in masks.items()}
    keys: list[str] = []
    parts = []
    for batch in EvaluationLoader(dataset, config, BATCH, None, limit, rank(), world_size()):
        keys += batch.keys
        parts.append(_shrink(batch.images))
    keys, queries = _gather_queries(dataset, keys, parts)
    found = {name: NearestNeighbours(keys) for name in masks}
    for batch in EvaluationLoader(train, config, BATCH, rank=rank(), world=world_size()):
        others = _shrink(batch.images)
        for name, neighbours in found.items():
            one, other = queries[:, :, known[name]].flatten(1), others[:, :, known[name]].flatten(1)
            neighbours.update(-torch.cdist(one, other), batch.keys)
    for neighbours in found.values():
        neighbours.join(_places(train))
    return {name: neighbours.nearest_names() for name, neighbours in found.items()}


def _shrink(images: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b 3 h w"]:
    return F.adaptive_avg_pool2d(images.double(), min(SIDE, images.shape[2]))


def _find_known_cells(mask: Bool[Tensor, "y x"]) -> Bool[Tensor, "h w"]:
    return F.adaptive_max_pool2d(mask[None].float().cpu(), min(SIDE, mask.shape[0]))[0] == 0
