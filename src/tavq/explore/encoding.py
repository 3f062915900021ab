"""The one pass over the images: grids of all levels, the distance of each feature to its code, aligned vectors."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tavq.core.files import read_json, write_json
from tavq.core.mmap_tensors import TensorFileWriter
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.loader import EvaluationLoader
from tavq.explore.store import GRIDS, PROGRESS, LevelShape, Source
from tavq.interfaces import Quantized
from tavq.metrics.codes import LEVEL_NAMES
from tavq.ops.grids import offset_indices
from tavq.tokenizer import Tokenizer

BATCH = 32
SAVE_SECONDS = 10.0
"""Seconds between two notes of how far the pass is."""

Progress = Callable[[int, int | None, str], None]
"""Called with (done, total, note)."""


def shapes_of(tokenizer: Tokenizer, size: int) -> tuple[LevelShape, ...]:
    """The grids of a model's levels, fine to coarse, for square images of `size` pixels."""
    with torch.no_grad():
        device = next(tokenizer.parameters()).device
        features = tokenizer.features(torch.zeros(1, 3, size, size, device=device))
    shapes = []
    for level in sorted(features):
        height, width = features[level].shape[-2:]
        sizes = tokenizer.codebooks[level].sizes
        shapes.append(LevelShape(name=LEVEL_NAMES[level], height=height, width=width, sizes=tuple(sizes)))
    return tuple(shapes)


def quantize_features(tokenizer: Tokenizer, features: Mapping[int, Float[Tensor, "b d _h _w"]]) -> dict[int, Quantized]:
    """Quantize the features of each level, without losses."""
    levels = {}
    for level, grid in features.items():
        codebook = tokenizer.codebooks[level]
        indices = tokenizer.quantizer.indices(grid, codebook)
        quantized = tokenizer.quantizer.lookup(indices, codebook)
        levels[level] = Quantized(quantized, quantized, indices, {})
    return levels


def dtype_of(shape: LevelShape) -> str:
    """The type of the codes of a level."""
    return "<i2" if shape.entries <= 1 << 15 else "<i4"


class Encoder:
    """Writes the grids of all images to a folder; a pass that was stopped continues where it was.

    Args:
        tokenizer: in evaluation mode.
        source: what the store is made of.
        levels: the grids.
        folder: of the store.
    """

    def __init__(self, tokenizer: Tokenizer, source: Source, levels: tuple[LevelShape, ...], folder: Path) -> None:
        self.tokenizer, self.source, self.levels, self.folder = tokenizer, source, levels, folder
        self.device = next(tokenizer.parameters()).device

    def run(self, dataset: FolderDataset, config: DataConfig, progress: Progress | None = None) -> None:
        """Encode all images of a data set in order; raises DataError where too many cannot be read."""
        header = {"source": json.dumps(self.source.model_dump(mode="json"), sort_keys=True)}
        file = TensorFileWriter(self.folder / GRIDS, self._tensors(), header)
        with closing(file):
            start = 0 if file.is_new else self._read_progress()
            saved = monotonic()
            for done in self._encode(file, dataset, config, start):
                if progress is not None:
                    progress(done, len(dataset), "encoding images")
                if monotonic() - saved > SAVE_SECONDS:
                    self._save_progress(file, done)
                    saved = monotonic()
            self._save_progress(file, len(dataset))

    def _tensors(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        count = self.source.images
        tensors: dict[str, tuple[str, tuple[int, ...]]] = {"readable": ("u1", (count,))}
        for level in self.levels:
            tensors[f"{level.name}/grid"] = (dtype_of(level), (count, level.cells * level.parts))
            tensors[f"{level.name}/distance"] = ("<f4", (count, level.cells))
        if width := self._embedding_width():
            tensors["embeddings"] = ("<f4", (count, width))
        return tensors

    def _embedding_width(self) -> int:
        if self.tokenizer.aligner is None:
            return 0
        blank = torch.zeros(1, 3, self.source.size, self.source.size, device=self.device)
        with torch.no_grad():
            features = self.tokenizer.features(blank)
            return int(self.tokenizer.aligner.embed_images(quantize_features(self.tokenizer, features)).shape[1])

    @torch.no_grad()
    def _encode(self, file: TensorFileWriter, dataset: FolderDataset, config: DataConfig, done: int) -> Iterator[int]:
        """Write the rows of all images from `done` on; yields how many images are done."""
        rest = dataset.subset(dataset.records[done:])
        row_of = {record.file_name: row for row, record in enumerate(dataset)}
        if not len(rest):
            return
        for batch in EvaluationLoader(rest, config, BATCH, whole=len(dataset)):
            rows = np.array([row_of[key] for key in batch.keys])
            for name, values in self._measure(batch.images.to(self.device)).items():
                for first, last in _consecutive(rows):
                    file.write(name, int(rows[first]), values[first:last])
            yield int(rows[-1]) + 1

    def _measure(self, images: Float[Tensor, "b 3 y x"]) -> dict[str, np.ndarray]:
        features = self.tokenizer.features(images)
        levels = quantize_features(self.tokenizer, features)
        count = len(images)
        rows: dict[str, np.ndarray] = {"readable": np.ones(count, np.uint8)}
        for level, quantized in levels.items():
            name = LEVEL_NAMES[level]
            codes = _codes(quantized.indices, self.tokenizer.codebooks[level].sizes)
            distances = (features[level] - quantized.quantized).square().sum(1)
            rows[f"{name}/grid"] = codes.reshape(count, -1)
            rows[f"{name}/distance"] = distances.float().cpu().numpy().reshape(count, -1)
        if self.tokenizer.aligner is not None:
            rows["embeddings"] = self.tokenizer.aligner.embed_images(levels).float().cpu().numpy()
        return rows

    def _save_progress(self, file: TensorFileWriter, done: int) -> None:
        file.flush()
        write_json(self.folder / PROGRESS, {"done": done})

    def _read_progress(self) -> int:
        path = self.folder / PROGRESS
        stored: Any = read_json(path) if path.is_file() else None
        done = stored.get("done") if isinstance(stored, dict) else None
        return done if type(done) is int and 0 <= done <= self.source.images else 0


def _codes(indices: Int[Tensor, "b h w *c"], sizes: tuple[int, ...]) -> Int[np.ndarray, "b h w *c"]:
    """Indices counted through all parts."""
    codes: np.ndarray = offset_indices(indices, sizes).cpu().numpy()
    return codes


def _consecutive(rows: Int[np.ndarray, " b"]) -> list[tuple[int, int]]:
    """First and last of each run of consecutive rows: an unreadable image leaves a gap."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    ends = [0, *breaks.tolist(), len(rows)]
    return list(pairwise(ends))
