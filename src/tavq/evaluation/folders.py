"""Two folders of images, or one and saved statistics, compared image by image and as sets."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from tavq.core.errors import DataError, TavqError, UsageError
from tavq.data.folder import FolderDataset
from tavq.data.images import load_image, read_shape
from tavq.data.loader import limit_batch
from tavq.data.transforms import crop_and_resize, to_float
from tavq.data.workers import iter_loaded
from tavq.metrics import intervals
from tavq.metrics.distances import ImageSet, compare_image_sets
from tavq.metrics.images import ImageScores, perceptual_metric
from tavq.metrics.record import Evaluation, Metric
from tavq.metrics.reference import ReferenceStatistics, SetDescription, describe_reference
from tavq.nets.features.extractors import FeatureNetwork, perceptual_distances
from tavq.ops.collective import rank, world_size
from tavq.ops.gathering import gather_values

BATCH = 32
AS_THEY_ARE = "none"
RESIZED = "centre square, Pillow bicubic with antialias"

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


class ImageFolder:
    """The images of a folder or of a data set's split, all of one size.

    Without `size` images are used as they are and must have one size; with it each is resized to a square, a
    JPEG from its full size. An image that cannot be read is an error, because the distance of an incomplete set is
    another one.
    """

    def __init__(self, folder: Path, split: str | None = None, size: int | None = None, workers: int = 0) -> None:
        self.folder, self.size, self.workers = folder, size, workers
        self.dataset = FolderDataset(folder, split)
        missing = [fault for fault in self.dataset.faults if fault.costs_image]
        if missing:
            raise DataError(f"{folder} cannot be measured as it is: {missing[0]}.")
        self.names = [record.file_name for record in self.dataset]
        self.title = f"{folder.name} ({split})" if split else folder.name
        self.shape: tuple[int, int] | None = None
        self._hashes: dict[str, str] = {}

    def read(self, names: Sequence[str]) -> Float[Tensor, "b 3 y x"]:
        """Some images in [-1, 1]."""
        return next(self.read_batches([names]))

    def read_batches(self, batches: Sequence[Sequence[str]]) -> Iterator[Float[Tensor, "b 3 y x"]]:
        """The images of each batch of names in turn, in [-1, 1], read ahead where there are workers."""
        workers = self.workers if len(batches) > 1 else 0
        reader = _FileReader(self.dataset, self.size)
        for names, files in zip(batches, iter_loaded(reader, batches, workers), strict=True):
            yield torch.stack([self._accept(name, file) for name, file in zip(names, files, strict=True)])

    def _accept(self, name: str, file: "_ReadFile") -> Float[Tensor, "3 y x"]:
        """The pixels of the next image, whose size must be that of the images before it."""
        if file.error is not None:
            raise file.error
        height, width, _ = file.pixels.shape
        if self.shape not in (None, (height, width)):
            raise DataError(
                f"{self.dataset.file(name)} has {_size((height, width))} pixels and those before it "
                f"{_size(self.shape)}; give --size to resize all images."
            )
        self.shape, self._hashes[name] = (height, width), file.sha256
        return to_float(torch.from_numpy(file.pixels).permute(2, 0, 1))

    def join(self) -> None:
        """Know the images that all processes read; raises DataError where they differ in size."""
        found = gather_values([self.shape, self._hashes])
        shapes = sorted({tuple(shape) for shape, _ in found if shape is not None})
        if len(shapes) > 1:
            raise DataError(
                f"The images of {self.folder} are {_size(shapes[0])} and {_size(shapes[1])} pixels; give --size to "
                "resize all images."
            )
        self.shape = shapes[0] if shapes else None
        self._hashes = {name: digest for _, hashes in found for name, digest in hashes.items()}

    def describe(self, network: FeatureNetwork) -> SetDescription:
        """Describe the images that were read, for statistics in the features of `network`."""
        assert self.shape is not None, "read images first"
        return SetDescription(
            network.metric_name("fd"), network.sha256, self.shape, self.resize, self.title, self.fingerprint()
        )

    def batches(self, items: Sequence[Any]) -> Iterator[list[Any]]:
        """Parts of `items`, one of which is read for an image, that fit into memory together."""
        height, width = (self.size, self.size) if self.size else read_shape(self.dataset.file(self.names[0]))[:2]
        count = limit_batch(BATCH, height * width)
        for start in range(0, len(items), count):
            yield list(items[start : start + count])

    @property
    def resize(self) -> str:
        """How images are resized."""
        return AS_THEY_ARE if self.size is None else RESIZED

    def fingerprint(self) -> str:
        """The SHA-256 of the names of the images that were read and of the hashes of their files."""
        lines = sorted(f"{digest} {name}" for name, digest in self._hashes.items())
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()

    def summary(self) -> dict[str, Any]:
        """The images as a result describes them."""
        return {
            "data": self.title,
            "count": len(self._hashes),
            "size": list(self.shape or ()),
            "resize": self.resize,
            "data_sha256": self.fingerprint(),
        }


class _ReadFile(NamedTuple):
    """The pixels of a file and the hash of its bytes, or the error that reading it raised."""

    pixels: UInt8[np.ndarray, "y x 3"]
    sha256: str
    error: TavqError | None = None


class _FileReader(Dataset[list[_ReadFile]]):
    """Reads batches of images by name; a copy lives in each worker."""

    def __init__(self, dataset: FolderDataset, size: int | None) -> None:
        self.dataset, self.size = dataset.subset([]), size

    def __getitems__(self, names: Sequence[str]) -> list[_ReadFile]:
        return [self._read(name) for name in names]

    def _read(self, name: str) -> _ReadFile:
        try:
            file = self.dataset.file(name)
            pixels, digest = load_image(file), hashlib.sha256(file.read_bytes()).hexdigest()
        except TavqError as error:  # returned, because torch would wrap it in a traceback
            return _ReadFile(np.empty((0, 0, 3), np.uint8), "", error)
        if self.size is not None:
            pixels = crop_and_resize(pixels, self.size).permute(1, 2, 0).numpy()
        return _ReadFile(np.array(pixels), digest)


def match_pairs(images: ImageFolder, reference: ImageFolder) -> list[tuple[str, str]]:
    """Pairs of images with the same name, or the same name but for the suffix; DataError if an image has no partner."""
    if set(images.names) == set(reference.names):
        return [(name, name) for name in sorted(images.names)]
    ours, theirs = _by_stem(images), _by_stem(reference)
    for folder, missing in ((images, theirs.keys() - ours.keys()), (reference, ours.keys() - theirs.keys())):
        if missing:
            other = reference if folder is images else images
            raise DataError(
                f"{folder.folder} ({len(folder.names):,} images) lacks {len(missing):,} of the "
                f"{len(other.names):,} images of {other.folder}, for example {min(missing)!r}; pairs are found by "
                "file name."
            )
    return [(ours[stem], theirs[stem]) for stem in sorted(ours)]


def _by_stem(folder: ImageFolder) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in folder.names:
        stem = str(PurePosixPath(name).with_suffix(""))
        if stem in found:
            raise DataError(f"{folder.folder} has both {found[stem]!r} and {name!r}; pairs are found by file name.")
        found[stem] = name
    return found


@dataclass
class FolderComparison:
    """The running comparison of one folder with another, or with saved statistics."""

    images: ImageFolder
    reference: ImageFolder | ReferenceStatistics | None
    networks: Sequence[FeatureNetwork]
    statistics_file: Path | None = None
    """The file of saved statistics, for errors."""

    def __post_init__(self) -> None:
        set_networks = [network for network in self.networks if not network.heads]  # LPIPS compares pairs alone
        self.own = [ImageSet(network) for network in set_networks]
        self.others = [ImageSet(network) for network in set_networks]
        self.device = next((p.device for n in self.networks for p in n.parameters()), torch.device("cpu"))
        distances = {perceptual_metric(n): partial(_perceptual_distances, n) for n in self.networks if n.heads}
        self.each = ImageScores(distances)

    def read(self, progress: Progress) -> None:
        """Read each folder by itself."""
        if isinstance(self.reference, ImageFolder):  # a difference in size must show before hours of reading
            for folder in (self.images, self.reference):
                folder.read(folder.names[:1])
            _check_same_size(self.images, self.reference)
        folders = [(self.images, self.own)]
        if isinstance(self.reference, ImageFolder):
            folders.append((self.reference, self.others))
        total, done = sum(len(folder.names) for folder, _ in folders), 0
        for folder, sets in folders:
            parts = list(folder.batches(folder.names))[rank() :: world_size()]
            for names, loaded in zip(parts, folder.read_batches(parts), strict=True):
                images = loaded.to(self.device)
                if done == 0:  # as above
                    self._check_reference()
                self._update(images, names, sets)
                done += len(names)
                progress(min(done * world_size(), total), total)

    def read_pairs(self, progress: Progress) -> None:
        """Read both folders in pairs, and compare each image with its partner."""
        assert isinstance(self.reference, ImageFolder), "pairs are of two folders"
        pairs = match_pairs(self.images, self.reference)
        own = list(self.images.batches(pairs))[rank() :: world_size()]
        parts = [[*zip(*part, strict=True)] for part in own]
        ours_read = self.images.read_batches([ours for ours, _ in parts])
        theirs_read = self.reference.read_batches([theirs for _, theirs in parts])
        for (ours, theirs), images, originals in zip(parts, ours_read, theirs_read, strict=True):
            _check_same_size(self.images, self.reference)
            images, originals = images.to(self.device), originals.to(self.device)
            self._update(images, ours, self.own)
            self._update(originals, theirs, self.others)
            self.each.update(ours, images, originals)
            progress(min(len(self.each.records) * world_size(), len(pairs)), len(pairs))

    def join(self) -> None:
        """Gather what all processes measured, in each of them; each read every n-th batch of n processes.

        Raises DataError if images that two of them read differ in size.
        """
        for folder in (self.images, self.reference):
            if isinstance(folder, ImageFolder):
                folder.join()
        for images in (*self.own, *self.others):
            images.join()
        self.each.join()

    def _check_reference(self) -> None:
        if isinstance(self.reference, ReferenceStatistics):
            for own in self.own:
                path = self.statistics_file or Path("reference")
                self.reference.check(path, self.images.describe(own.network))

    def _update(self, images: Tensor, names: Sequence[str], sets: Sequence[ImageSet]) -> None:
        for each in sets:
            each.update(images, names)

    def statistics(self) -> ReferenceStatistics:
        """The statistics of the images in the features of the only network that compares sets."""
        if len(self.own) != 1:
            raise UsageError(f"Statistics need exactly one feature network; got {len(self.own)}.")
        (own,) = self.own
        if own.moments.count < 2:
            raise DataError(f"{self.images.folder} contains one image; statistics need two or more.")
        return ReferenceStatistics(own.moments.gaussian(), self.images.describe(own.network))

    def result(self) -> Evaluation:
        """All metrics, with what they were measured on.

        A mean over image pairs has an interval over images; a kernel distance, which needs more than saved statistics,
        has a standard error.

        Details: `images` and `reference` say count, size, how they were resized and hashes; `feature_weights` are
        hashes by network; `per_image` the values of each pair.
        """
        if isinstance(self.reference, ImageFolder):
            _check_same_size(self.images, self.reference)
        weights = {n.metric_name("distance") if n.heads else n.name: n.sha256 for n in self.networks}
        details = {
            "images": self.images.summary(),
            "reference": self._described_reference(),
            "feature_weights": weights,
            "intervals": intervals.ABOUT,
            "per_image": dict(self.each.ordered()),
        }
        return Evaluation(tuple(self._metrics()), details)

    def _described_reference(self) -> dict[str, Any] | None:
        if isinstance(self.reference, ReferenceStatistics):
            return describe_reference(self.reference)
        return None if self.reference is None else self.reference.summary()

    def _metrics(self) -> list[Metric]:
        metrics = self.each.compute() if self.each.records else []
        for own, other in zip(self.own, self.others, strict=True):
            if isinstance(self.reference, ReferenceStatistics):
                frechet, _ = compare_image_sets(own, self.reference.gaussian)
                metrics.append(frechet)
            elif self.reference is not None:
                metrics += compare_image_sets(own, other)
        return metrics


def _perceptual_distances(network: FeatureNetwork, images: Tensor, originals: Tensor) -> Tensor:
    with torch.no_grad():
        return perceptual_distances(network, images, originals)


def _size(shape: tuple[int, int] | None) -> str:
    """(height, width) as `width x height`, the order in which every program names the sides of an image."""
    assert shape is not None, "an image was read"
    return f"{shape[1]} x {shape[0]}"


def _check_same_size(images: ImageFolder, reference: ImageFolder) -> None:
    if images.shape != reference.shape:
        sizes = [_size(folder.shape) for folder in (images, reference) if folder.shape]
        raise DataError(
            f"The images of {images.folder} are {sizes[0]} pixels and those of {reference.folder} {sizes[-1]}; "
            "give --size to resize all images."
        )


def is_same_set(result: Evaluation) -> bool:
    """Whether a set was compared with itself."""
    images, reference = result.details["images"], result.details["reference"]
    return bool(reference) and reference["data_sha256"] == images["data_sha256"]
