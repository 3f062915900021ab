"""The effect of choices that papers rarely state on PSNR, SSIM and Fréchet distances of one trained tokenizer.

Each table starts with the protocol of `tavq evaluate` and changes one thing at a time: how images are resized, how
reconstructions are stored, which images are the reference, and how many images there are. Differences of PSNR and SSIM
are paired by image, with 95 % bootstrap intervals; differences of distances have 95 % intervals from a jackknife that
leaves out a twentieth of the images at a time.

Run: OMP_NUM_THREADS=1 python benchmarks/protocol.py RUN --data flickr8k --squeezenet squeezenet1_1_caffe_fp16.npz \
    [--wide FOLDER] [--seed 0] [--json protocol.json]

`--wide` is a folder of images that are not square, for the crop.
"""

import argparse
import io
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import interpolate

from tavq.api.tokenizers import image_settings, open_network
from tavq.core.files import write_json
from tavq.data.folder import FolderDataset
from tavq.data.images import load_image
from tavq.data.transforms import crop_and_resize, to_float, to_uint8
from tavq.evaluation.protocol import versions
from tavq.metrics import intervals
from tavq.metrics.distances import Gaussian, frechet_distance
from tavq.metrics.images import psnr, ssim
from tavq.model_folder import find_model, read_model_config
from tavq.nets.features.extractors import FeatureNetwork
from tavq.tokenizer import Tokenizer

BATCH = 32
GROUPS = 20
STUDENT = 2.093  # the 97.5th percentile of Student's t with 19 degrees of freedom
SIZES = (250, 500, 1000, 2000, 5000)

Prepare = Callable[[Path, int], Tensor]
"""Loads an image file at a size, as uint8 [3 y x]."""


# --- what is measured -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """A network's features of reconstructions and of reference images."""

    reconstructions: Tensor
    reference: Tensor

    @cached_property
    def distance(self) -> float:
        return distance(self.reconstructions, self.reference)

    @cached_property
    def jackknife_distances(self) -> list[float]:
        """The distance without every GROUPS-th image of both sets, starting at the first, the second and so on."""
        own, other = self.reconstructions, self.reference
        return [distance(without(own, group), without(other, group)) for group in range(GROUPS)]


def distance(a: Tensor, b: Tensor) -> float:
    return frechet_distance(*(Gaussian(len(x), x.mean(0), x.mT.cov()) for x in (a, b)))


def without(features: Tensor, group: int) -> Tensor:
    return features[torch.arange(len(features)) % GROUPS != group]


@dataclass(frozen=True)
class Measured:
    """The scores of each image, and the features by network."""

    scores: dict[str, Tensor]
    features: dict[str, Pair]

    def subset(self, rows: Tensor) -> "Measured":
        """The same for some of the images."""
        features = {
            name: Pair(pair.reconstructions[rows], pair.reference[rows]) for name, pair in self.features.items()
        }
        return Measured({name: values[rows] for name, values in self.scores.items()}, features)

    def metrics(self) -> dict[str, float]:
        means = {name: float(values.mean()) for name, values in self.scores.items()}
        return means | {f"fd_{name}": pair.distance for name, pair in self.features.items()}


@torch.no_grad()
def in_batches(work: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return torch.cat([work(part) for part in images.split(BATCH)])


class Bench:
    """A tokenizer and the feature networks that measure it."""

    def __init__(self, model: str, networks: Sequence[str]) -> None:
        self.folder = find_model(model)
        self.tokenizer = Tokenizer.from_pretrained(self.folder)
        self.size = image_settings(self.folder, None).size
        self.networks: list[FeatureNetwork] = [open_network(name) for name in networks]

    def reconstruct(self, originals: Tensor) -> Tensor:
        """Reconstruct uint8 images [n 3 y x]; clamped, as in `tavq evaluate`."""
        return in_batches(lambda x: self.tokenizer(to_float(x)).images.clamp(-1, 1), originals)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        floats = (lambda x: to_float(x)) if images.dtype == torch.uint8 else (lambda x: x)
        return {n.name: in_batches(lambda x, n=n: n(floats(x)).double(), images) for n in self.networks}

    def measure(self, reconstructions: Tensor, originals: Tensor, features: Mapping[str, Tensor]) -> Measured:
        """Measure reconstructions; `features` are those of the originals."""
        scores: dict[str, list[Tensor]] = {"psnr": [], "ssim": []}
        for made, original in zip(reconstructions.split(BATCH), originals.split(BATCH), strict=True):
            images = as_float(made), to_float(original)
            scores["psnr"].append(psnr(*images))
            scores["ssim"].append(ssim(*images))
        own = self.features(reconstructions)
        pairs = {name: Pair(own[name], features[name]) for name in own}
        return Measured({name: torch.cat(values) for name, values in scores.items()}, pairs)

    def of(self, originals: Tensor) -> Measured:
        return self.measure(self.reconstruct(originals), originals, self.features(originals))


def as_float(images: Tensor) -> Tensor:
    return to_float(images) if images.dtype == torch.uint8 else images


# --- differences ------------------------------------------------------------------------------------------------


def differences(base: Measured, other: Measured) -> dict[str, dict[str, Any]]:
    """The value of every metric, and its difference with an interval; both sets have the same images in order."""
    rows = {}
    for name, values in other.scores.items():
        gap = torch.stack([torch.ones_like(values), values - base.scores[name]], dim=1)
        [difference] = intervals.mean(gap.double().sum(dim=0, keepdim=True))[0].tolist()
        [interval] = intervals.as_pairs(intervals.bootstrap(gap, intervals.mean))
        rows[name] = {"value": float(values.mean()), "difference": difference, "interval": interval}
    for name in other.features:
        rows[f"fd_{name}"] = jackknifed(base.features[name], other.features[name])
    return rows


def jackknifed(base: Pair, other: Pair) -> dict[str, Any]:
    """The difference of two distances; sets of different images leave out different images."""
    difference = other.distance - base.distance
    parts = [b - a for a, b in zip(base.jackknife_distances, other.jackknife_distances, strict=True)]
    half = STUDENT * (GROUPS - 1) ** 0.5 * statistics.pstdev(parts)
    return {"value": other.distance, "difference": difference, "interval": [difference - half, difference + half]}


# --- variants ---------------------------------------------------------------------------------------------------


def evaluated(path: Path, size: int) -> Tensor:
    """Load an image as `tavq evaluate` does."""
    return crop_and_resize(load_image(path, size), size)


def by_pillow(path: Path, size: int, how: Image.Resampling) -> Tensor:
    return channels_first(Image.fromarray(centre(path)).resize((size, size), how))


def by_torch(path: Path, size: int, how: str, antialias: bool) -> Tensor:
    image = torch.from_numpy(centre(path).copy()).permute(2, 0, 1)[None].float()
    return interpolate(image, (size, size), mode=how, antialias=antialias)[0].round().clamp(0, 255).to(torch.uint8)


def squashed(path: Path, size: int) -> Tensor:
    return channels_first(Image.fromarray(load_image(path)).resize((size, size), Image.Resampling.BICUBIC))


def channels_first(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())


def centre(path: Path) -> np.ndarray:
    """The centre square of a file that is decoded at full size."""
    image = load_image(path)
    height, width = image.shape[:2]
    side = min(height, width)
    y, x = (height - side) // 2, (width - side) // 2
    return image[y : y + side, x : x + side]


RESIZES: dict[str, Prepare] = {
    "as evaluated": evaluated,
    "whole JPEG, Pillow bicubic": partial(by_pillow, how=Image.Resampling.BICUBIC),
    "whole JPEG, Pillow bilinear": partial(by_pillow, how=Image.Resampling.BILINEAR),
    "whole JPEG, Pillow Lanczos": partial(by_pillow, how=Image.Resampling.LANCZOS),
    "whole JPEG, torch bicubic, antialiasing": partial(by_torch, how="bicubic", antialias=True),
    "whole JPEG, torch bilinear, antialiasing": partial(by_torch, how="bilinear", antialias=True),
    "whole JPEG, torch bicubic": partial(by_torch, how="bicubic", antialias=False),
    "whole JPEG, torch bilinear": partial(by_torch, how="bilinear", antialias=False),
}


def jpeg(images: Tensor, quality: int) -> Tensor:
    """uint8 images [n 3 y x], written to JPEG with Pillow's defaults (chroma at half the resolution) and read back."""
    found = []
    for image in images.permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        found.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous()


def cut(images: Tensor) -> Tensor:
    """uint8 images by truncation, as `astype(uint8)` does."""
    return images.add(1).mul(127.5).clamp(0, 255).to(torch.uint8)


def read(paths: Iterable[Path], size: int, how: Prepare) -> Tensor:
    return torch.stack([how(path, size) for path in paths])


# --- the tables -------------------------------------------------------------------------------------------------

Rows = dict[str, dict[str, dict[str, Any]]]


def resizing(bench: Bench, paths: Sequence[Path]) -> tuple[Rows, Rows]:
    """The effect of resizing on the whole pipeline, and on the images themselves compared with those evaluated."""
    base_images = read(paths, bench.size, evaluated)
    base_features = bench.features(base_images)
    base = bench.measure(bench.reconstruct(base_images), base_images, base_features)
    pipeline, themselves = {}, {}
    for name, how in RESIZES.items():
        images = read(paths, bench.size, how)
        pipeline[name] = differences(base, bench.of(images))
        same = bench.measure(images, base_images, base_features)
        themselves[name] = {metric: {"value": value} for metric, value in same.metrics().items()}
    return pipeline, themselves


def storing(bench: Bench, paths: Sequence[Path]) -> Rows:
    """The effect of storing reconstructions: as floats, in 8 bits, and as JPEG files."""
    originals = read(paths, bench.size, evaluated)
    made, known = bench.reconstruct(originals), bench.features(originals)
    base = bench.measure(made, originals, known)
    eight = to_uint8(made)
    stored = {"as evaluated: not rounded": made, "8 bits, rounded (PNG)": eight, "8 bits, truncated": cut(made)}
    stored |= {f"JPEG of quality {quality}": jpeg(eight, quality) for quality in (95, 75)}
    rows = {name: differences(base, bench.measure(images, originals, known)) for name, images in stored.items()}
    for quality in (95, 75):
        both = jpeg(originals, quality)
        measured = bench.measure(jpeg(eight, quality), both, bench.features(both))
        rows[f"JPEG of quality {quality}, originals too"] = differences(base, measured)
    return rows


def references(parts: Mapping[str, Measured], seed: int) -> Rows:
    """Distances of the test split's reconstructions to originals of other splits, and between originals."""
    test = parts["test"]
    some = shuffled(len(parts["train"].scores["psnr"]), seed)[: len(test.scores["psnr"])]
    train = parts["train"].subset(some)
    sets = {
        "as evaluated: test, its own originals": test.features,
        "test, originals of val": crossed(test, parts["val"]),
        f"test, originals of {len(some):,} of train": crossed(test, train),
        "test, originals of all of train": crossed(test, parts["train"]),
        f"{len(some):,} of train, their own originals": train.features,
        "originals of test, originals of val": crossed(originals_of(test), parts["val"]),
        "originals of test, originals of all of train": crossed(originals_of(test), parts["train"]),
    }
    rows: Rows = {}
    for name, features in sets.items():
        rows[name] = {f"fd_{n}": jackknifed(test.features[n], pair) for n, pair in features.items()}
    return rows


def crossed(measured: Measured, reference: Measured) -> dict[str, Pair]:
    """Pairs of the reconstructions of one set with the originals of another."""
    return {
        name: Pair(pair.reconstructions, reference.features[name].reference) for name, pair in measured.features.items()
    }


def originals_of(measured: Measured) -> Measured:
    """The originals in place of the reconstructions."""
    features = {name: Pair(pair.reference, pair.reference) for name, pair in measured.features.items()}
    return Measured(measured.scores, features)


def shuffled(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def counting(train: Measured, seed: int) -> dict[str, dict[str, Any]]:
    """Metrics of disjoint subsets of the training split, by size: mean, standard deviation, minimum and maximum."""
    order = shuffled(len(train.scores["psnr"]), seed)[: SIZES[-1]]
    table = {}
    for size in SIZES:
        subsets = [train.subset(part).metrics() for part in order.split(size) if len(part) == size]
        row = {}
        for name in subsets[0]:
            values = [metrics[name] for metrics in subsets]
            deviation = statistics.stdev(values) if len(values) > 1 else None
            row[name] = {"value": statistics.mean(values), "deviation": deviation}
            row[name] |= {"least": min(values), "greatest": max(values)}
        table[f"{size:,} images ({len(subsets)} {'subsets' if len(subsets) > 1 else 'set'})"] = row
    return table


def cropping(bench: Bench, folder: Path) -> Rows:
    """Images that are not square: cropped or squashed from full-size JPEGs by Pillow's bicubic, and as evaluated."""
    dataset = FolderDataset(folder)
    paths = [dataset.path(record.file_name) for record in dataset]
    variants = {
        "whole JPEG, centre square": RESIZES["whole JPEG, Pillow bicubic"],
        "whole JPEG, squashed to a square": squashed,
        "as evaluated: centre square": evaluated,
    }
    measured = {name: bench.of(read(paths, bench.size, how)) for name, how in variants.items()}
    base = next(iter(measured.values()))
    return {f"{name} ({len(paths)} images)": differences(base, one) for name, one in measured.items()}


def measure(bench: Bench, data: Path, wide: Path | None, seed: int) -> dict[str, Rows]:
    paths: dict[str, list[Path]] = {}
    for name in ("train", "val", "test"):
        split = FolderDataset(data, name)
        paths[name] = [split.path(record.file_name) for record in split]
    tables: dict[str, Rows] = {}
    tables["resizing: the whole pipeline"], tables["resizing: the images themselves"] = resizing(bench, paths["test"])
    tables["storing the reconstructions"] = storing(bench, paths["test"])
    parts = {name: bench.of(read(found, bench.size, evaluated)) for name, found in paths.items()}
    tables["reference"] = references(parts, seed)
    tables["number of images, of train"] = counting(parts["train"], seed)
    if wide is not None:
        tables["crop or squash"] = cropping(bench, wide)
    return tables


# --- the page ---------------------------------------------------------------------------------------------------


def shown(title: str, rows: Rows) -> Table:
    metrics = list(next(iter(rows.values())))
    table = Table("", *metrics, title=title, title_justify="left")
    for name, row in rows.items():
        table.add_row(name, *(cell(row[metric]) for metric in metrics))
    return table


def cell(found: Mapping[str, Any]) -> str:
    value = number(found["value"])
    if found.get("difference"):
        low, high = found["interval"]
        return f"{value}  {found['difference']:+.3g} ({low:+.3g} to {high:+.3g})"
    if found.get("deviation"):
        return f"{value}  sd {found['deviation']:.2g} ({number(found['least'])} to {number(found['greatest'])})"
    return value


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def main() -> None:
    parser = argparse.ArgumentParser(description="The effect of unstated choices on metrics.")
    parser.add_argument("model", help="a run or model folder")
    parser.add_argument("--data", type=Path, required=True, help="a folder data set with train, val and test")
    parser.add_argument("--squeezenet", type=Path, required=True, help="its .npz file of Caffe weights")
    parser.add_argument("--wide", type=Path, help="a folder of images that are not square")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(options.model, ["scenes", f"squeezenet={options.squeezenet}"])
    tables = measure(bench, options.data, options.wide, options.seed)
    metadata = {
        "model_sha256": read_model_config(bench.folder).get("sha256"),
        "data": options.data.resolve().name,
        "data_sha256": FolderDataset(options.data).fingerprint,
        "size": bench.size,
        "seed": options.seed,
        "feature_weights": {network.name: network.sha256 for network in bench.networks},
        "machine": {"processor": platform.processor() or platform.machine(), "threads": 1},
        "versions": versions("numpy", "pillow", "torch"),
    }
    console = Console(width=170)
    for name, value in metadata.items():
        console.print(f"{name}: {value}", highlight=False, soft_wrap=True)
    for title, rows in tables.items():
        console.print(shown(title, rows))
    if options.json:
        write_json(options.json, {**metadata, "tables": tables})


if __name__ == "__main__":
    main()
