"""A tokenizer that is explored: its statistics, its decoder and its aligned space, for one request at a time."""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import normalize

from tavq.core.errors import TavqError
from tavq.explore.answers.base import Missing
from tavq.explore.building import find_counted, levels_of, shares_decoder_entries
from tavq.explore.encoding import quantize_features
from tavq.explore.errors import Busy, NotFound
from tavq.explore.level import LevelStatistics, open_units
from tavq.explore.pixels import Pixels
from tavq.explore.store import StatisticsStore
from tavq.explore.units import UnitTable
from tavq.inspection.aligned import text_of_units
from tavq.inspection.entries import decode_alone
from tavq.inspection.pixels import as_bytes
from tavq.interfaces import DEEP, GRANULARITIES, Codebook, Quantized
from tavq.metrics.codes import LEVEL_NAMES
from tavq.metrics.word_codes import measure_cosines
from tavq.ops.grids import offset_indices
from tavq.tasks.model_folder import TaskModel
from tavq.tasks.prompts import PromptEncoder
from tavq.text.store import TextStore
from tavq.tokenizer import Tokenizer

WAIT_SECONDS = 10.0
"""How long a request waits for the model before it is refused as busy."""

THUMBNAIL, THUMBNAILS = 8, 1024
"""Side in pixels at which tiles are compared, and how many are made smaller at a time."""

KEPT = 64
"""Decoded images that are kept."""

AROUND = 2
"""Cells on each side of a code in the mean context."""


@dataclass(frozen=True)
class Sources:
    """What a model is loaded from.

    Attributes:
        name: for people.
        metadata: its config.json.
        store: its statistics.
        text: the text store; None without one.
        encoder: folder of the text encoder, where its name is not enough.
        tasks: tasks on this tokenizer, by name.
    """

    name: str
    metadata: Mapping[str, Any]
    store: StatisticsStore
    text: TextStore | None = None
    encoder: str | None = None
    tasks: Mapping[str, TaskModel] = field(default_factory=dict)


class ExploredModel:
    """A tokenizer with its statistics.

    Args:
        id: its name in addresses.
        tokenizer: in evaluation mode.
        sources: the rest.
    """

    def __init__(self, id: str, tokenizer: Tokenizer, sources: Sources) -> None:
        self.id, self.tokenizer, self.sources = id, tokenizer, sources
        self.store = sources.store
        self.size = sources.store.manifest.source.size
        self.device = next(tokenizer.parameters()).device
        self.units: dict[str, UnitTable] = {name: open_units(self.store, name) for name in GRANULARITIES}
        self.readable = np.asarray(self.store.grids["readable"]) > 0
        self.counted: Bool[np.ndarray, " n"] = find_counted(self.units, self.readable)
        self.held_out = np.asarray(self.store.tables["held_out"]) > 0
        count = int(self.counted.sum())
        self.levels: dict[str, LevelStatistics] = {
            shape.name: LevelStatistics(self.store, shape, self.units, count) for shape in self.store.manifest.levels
        }
        self.tiles: UInt8[np.ndarray, "k y x 3"] = self.store.tables["tiles"]
        self._lock, self._kept_lock, self._text_lock = threading.Lock(), threading.Lock(), threading.Lock()
        self._decoded: OrderedDict[bytes, Pixels] = OrderedDict()
        self._prompt_encoder: PromptEncoder | None = None

    @contextmanager
    def working(self) -> Iterator[None]:
        """Use the networks alone; raises Busy after WAIT_SECONDS."""
        if not self._lock.acquire(timeout=WAIT_SECONDS):
            raise Busy("The model is busy with other requests; try again.")
        try:
            with torch.no_grad():
                yield
        finally:
            self._lock.release()

    def level(self, name: str) -> LevelStatistics:
        """The statistics of a level; NotFound where the model has no such level."""
        if name not in self.levels:
            raise NotFound(f"{self.id} has no level {name!r}; it has: {', '.join(self.levels)}.")
        return self.levels[name]

    def check_code(self, level: str, code: int) -> LevelStatistics:
        """The level, of which `code` must be one; else NotFound."""
        found = self.level(level)
        if not 0 <= code < found.shape.entries:
            raise NotFound(f"Level {level} has no code {code}; codes are 0 to {found.shape.entries - 1}.")
        return found

    def check_decodes(self, level: str, code: int) -> None:
        """Raise NotFound unless the decoder reads the entry `code` of a level."""
        self.check_code(level, code)
        if not self.decodes_entries(level):
            raise NotFound(f"The decoder does not read the entries of level {level}, so they are not decoded alone.")

    def unit(self, granularity: str, unit: int) -> str:
        """A unit of text; NotFound where there is none."""
        table = self.units[granularity]
        if not 0 <= unit < len(table):
            raise NotFound(f"There is no unit {unit} of {granularity}; there are {len(table)}.")
        return table.texts[unit]

    @cached_property
    def unit_ids(self) -> dict[str, dict[str, int]]:
        """The id of each unit by granularity and text."""
        return {name: {text: unit for unit, text in enumerate(table.texts)} for name, table in self.units.items()}

    def decodes_entries(self, level: str) -> bool:
        """Whether the decoder reads the entries of a level."""
        return shares_decoder_entries(self.tokenizer, levels_of(self.tokenizer)[level])

    def codebook(self, level: str) -> Codebook:
        """The codebook of a level."""
        return self.tokenizer.codebooks[levels_of(self.tokenizer)[level]]

    def entries(self, level: str) -> Float[Tensor, "k d"]:
        """The entries of a level as they are compared with features."""
        if level not in self._entries:
            with self.working():
                self._entries[level] = self.codebook(level)().detach().float().cpu()
        return self._entries[level]

    @cached_property
    def _entries(self) -> dict[str, Float[Tensor, "k d"]]:
        return {}

    @cached_property
    def missing(self) -> list[Missing]:
        """What this model lacks on this data set."""
        missing = []
        if not any(len(table) for table in self.units.values()):
            missing.append(missing_text())
        if self.tokenizer.aligner is None and self.sources.metadata.get("tokenizer") is not None:
            remedy = "Name the folder of the tokenizer, too, if it has an aligner."
            missing.append(
                Missing(part="alignment", reason="A task keeps its tokenizer without aligner.", remedy=remedy)
            )
        elif self.tokenizer.aligner is None:
            missing.append(Missing(part="alignment", reason="The tokenizer was trained without an aligner."))
        elif self.sources.text is None:
            remedy = "Build a text store with: tavq text DATA"
            missing.append(Missing(part="alignment", reason="The data set has no text store.", remedy=remedy))
        elif not self.aligned_levels:
            name = self.tokenizer.aligner.name
            missing.append(
                Missing(part="alignment", reason=f"The aligner {name!r} gives single codes no place in text.")
            )
        return missing

    @cached_property
    def code_norms(self) -> Float[np.ndarray, " n"]:
        """The length of each image's vector of weighted codes, for `similar_images`."""
        level = self.levels["deep"]
        squares = np.log(len(self.readable) / level.columns.images.clip(1)) ** 2
        sums = np.zeros(len(self.readable))
        width = level.shape.cells * level.shape.parts
        for code in np.flatnonzero(level.columns.count).tolist():
            sums[np.unique(level.positions[code] // width)] += squares[code]
        return np.sqrt(sums)

    # --- pixels -------------------------------------------------------------------------------------------------

    def encode(self, images: Float[Tensor, "1 3 y x"]) -> dict[str, Int[np.ndarray, "h w c"]]:
        """The codes of an image at each level, counted through all parts."""
        with self.working():
            levels = quantize_features(self.tokenizer, self.tokenizer.features(images.to(self.device)))
        grids = {}
        for level, quantized in levels.items():
            codes = offset_indices(quantized.indices, self.tokenizer.codebooks[level].sizes)[0].cpu().numpy()
            grids[LEVEL_NAMES[level]] = codes.reshape(*codes.shape[:2], -1).astype(np.int64)
        return grids

    def to_indices(self, codes: Int[np.ndarray, "h w c"]) -> Int[Tensor, "1 h w *c"]:
        """Codes of the deep grid as the tokenizer counts them, within each part."""
        sizes = self.tokenizer.codebook.sizes
        starts = np.cumsum([0, *sizes[:-1]])
        indices = torch.from_numpy(codes - starts)[None].to(self.device)
        return indices if len(sizes) > 1 else indices[..., 0]

    def decode(self, codes: Int[np.ndarray, "h w c"]) -> Pixels:
        """The image of a deep grid; the last ones are kept."""
        key = codes.tobytes()
        with self._kept_lock:
            if key in self._decoded:
                self._decoded.move_to_end(key)
                return self._decoded[key]
        indices = self.to_indices(codes)
        with self.working():
            image = as_bytes(self.tokenizer.decode(indices)[0])
        with self._kept_lock:
            self._decoded[key] = image
            while len(self._decoded) > KEPT:
                self._decoded.popitem(last=False)
        return image

    @cached_property
    def thumbnails(self) -> UInt8[np.ndarray, "k p"]:
        """The tiles at 8 x 8 pixels, or at their own size where that is smaller, flattened."""
        side = self.tiles.shape[1]
        step = max(side // THUMBNAIL, 1)
        small = np.zeros((len(self.tiles), (side // step) ** 2 * 3), np.uint8)
        for start in range(0, len(self.tiles), THUMBNAILS):
            part = np.asarray(self.tiles[start : start + THUMBNAILS], np.float32)[:, : side // step * step]
            cells = part[:, :, : side // step * step].reshape(len(part), side // step, step, side // step, step, 3)
            small[start : start + len(part)] = cells.mean(axis=(2, 4)).round().reshape(len(part), -1)
        return small

    def tile(self, code: int) -> Pixels:
        """An entry of the decoder's codebook decoded alone."""
        if len(self.tiles):
            return np.asarray(self.tiles[code])
        with self.working():
            return decode_alone(self.tokenizer, [code])[0]

    def decode_in_mean(self, code: int) -> Pixels:
        """A code amid the mean of the entries that surround it in the data set."""
        level = self.levels["deep"]
        around = np.zeros(level.shape.entries)
        part = int(level.part_of[code])
        for image, row, column in level.spread(code, 64):
            window = level.grid(image)[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2, part]
            around += np.bincount(window[window != code].ravel(), minlength=len(around))
        with self.working():
            entries = self.tokenizer.lookup_entries().float()
            weights = torch.from_numpy(around).to(entries)
            total = weights.sum()
            mean = entries[code] if not total else (weights @ entries) / total
            side = 2 * AROUND + 1
            grid = mean.view(1, -1, 1, 1).repeat(1, 1, side, side)
            grid[0, :, AROUND, AROUND] = entries[code]
            return as_bytes(self.tokenizer.decoder(grid)[0])

    def warm_up(self) -> None:
        """Compute what later requests need and what takes longer than one should wait."""
        _ = self.code_norms, self.thumbnails
        for name, level in self.levels.items():
            _ = level.profiles, self.entries(name)
            for granularity in self.aligned_levels:
                if self.is_aligned(name, granularity):
                    self.cosines(name, granularity)
        if self.tokenizer.aligner is not None:
            with contextlib.suppress(TavqError):  # a search by text says what is wrong
                _ = self.prompt_encoder

    # --- the aligned space --------------------------------------------------------------------------------------

    @cached_property
    def aligned_levels(self) -> dict[str, str]:
        """The level whose entries are ranked against each granularity in the aligned space."""
        aligner = self.tokenizer.aligner
        if aligner is None or self.sources.text is None:
            return {}
        return {
            name: LEVEL_NAMES[level]
            for name, level in aligner.entry_levels.items()
            if name in GRANULARITIES and len(self.units[name]) and LEVEL_NAMES[level] in self.levels
        }

    def is_aligned(self, level: str, granularity: str) -> bool:
        """Whether units of a granularity are ranked against the entries of a level."""
        own = self.aligned_levels.get(granularity)
        if own is None:
            return False
        of = levels_of(self.tokenizer)
        return own == level or self.tokenizer.codebooks[of[own]] is self.tokenizer.codebooks[of[level]]

    def vectors(self, granularity: str) -> Float[Tensor, "u t"]:
        """The text encoder's vectors of the units of a granularity."""
        assert self.sources.text is not None
        texts, vectors = self.sources.text.vocabulary(granularity)
        row_of = {text: row for row, text in enumerate(texts)}
        rows = [row_of[text] for text in self.units[granularity].texts]
        return torch.from_numpy(np.asarray(vectors[rows], np.float32)) if rows else torch.zeros(0, vectors.shape[1])

    def cosines(self, level: str, granularity: str) -> Float[np.ndarray, "u k"]:
        """The cosine of each unit and each entry of a level, after centring (`metrics.word_codes.find_codes`)."""
        key = (level, granularity)
        if key not in self._cosines:
            self._cosines[key] = self._measure_cosines(level, granularity)
        return self._cosines[key]

    @cached_property
    def _cosines(self) -> dict[tuple[str, str], Float[np.ndarray, "u k"]]:
        return {}

    def _measure_cosines(self, level: str, granularity: str) -> Float[np.ndarray, "u k"]:
        aligner = self.tokenizer.aligner
        assert aligner is not None
        codebook = self.codebook(level)
        with self.working():
            entries = aligner.embed_entries(self.tokenizer.quantizer.lookup_entries(codebook), granularity)
        assert entries is not None, "entry_levels names what embed_entries maps"
        used = torch.from_numpy(self.levels[level].columns.count > 0)
        return measure_cosines(entries.float().cpu(), used, self.vectors(granularity)).numpy().astype(np.float16)

    @property
    def scores_text(self) -> bool:
        """Whether images and units of text have a cosine in the aligned space."""
        return self.tokenizer.aligner is not None and self.sources.text is not None

    def embed_grids(
        self, grids: Sequence[Int[np.ndarray, "h w c"]], image: Float[Tensor, "1 3 y x"]
    ) -> Float[Tensor, "g e"]:
        """The aligned vectors of an image whose deep grid is replaced by each of some grids.

        Other levels keep the codes of the image: only the deep grid is edited.
        """
        aligner = self.tokenizer.aligner
        assert aligner is not None
        indices = torch.cat([self.to_indices(codes) for codes in grids])
        with self.working():
            levels = quantize_features(self.tokenizer, self.tokenizer.features(image.to(self.device)))
            deep = self.tokenizer.quantizer.lookup(indices, self.tokenizer.codebook)
            repeated = {level: _repeat(quantized, len(grids)) for level, quantized in levels.items()}
            repeated[DEEP] = Quantized(deep, deep, indices, {})
            return aligner.embed_images(repeated).float().cpu()

    def embed_units(self, units: Sequence[tuple[str, int]]) -> Float[Tensor, "u e"]:
        """The aligned vectors of units, each as a text of its own."""
        aligner = self.tokenizer.aligner
        assert aligner is not None
        vectors = torch.stack([self._vectors_of(granularity)[unit] for granularity, unit in units])
        with self.working():
            return normalize(aligner.embed_text(text_of_units(vectors.to(self.device))).float().cpu(), dim=1)

    def _vectors_of(self, granularity: str) -> Float[Tensor, "u t"]:
        if granularity not in self._unit_vectors:
            self._unit_vectors[granularity] = self.vectors(granularity)
        return self._unit_vectors[granularity]

    @cached_property
    def _unit_vectors(self) -> dict[str, Float[Tensor, "u t"]]:
        return {}

    @property
    def prompt_encoder(self) -> PromptEncoder:
        """Encodes typed text as in training; loading it takes seconds. UsageError where the encoder is not found."""
        with self._text_lock:
            if self._prompt_encoder is None:
                self._prompt_encoder = PromptEncoder(self.sources.metadata, self.sources.encoder, self.device)
            return self._prompt_encoder

    def embed_query(self, text: str) -> tuple[Float[Tensor, " e"], tuple[str, ...]]:
        """The aligned vector of a typed text, and notes about it; UsageError where it cannot be read."""
        aligner = self.tokenizer.aligner
        assert aligner is not None
        encoder = self.prompt_encoder  # not while the networks are held: loading it takes seconds
        with self.working():
            prompt = encoder([text])
            return aligner.embed_text(prompt.features)[0].float().cpu(), prompt.notes


def _repeat(quantized: Quantized, count: int) -> Quantized:
    vectors = quantized.quantized.expand(count, -1, -1, -1)
    return Quantized(vectors, vectors, quantized.indices.expand(count, *quantized.indices.shape[1:]), {})


def missing_text() -> Missing:
    """That no image has a text which statistics could count."""
    reason = "No word is in the captions of enough images."
    return Missing(part="text", reason=reason, remedy="Add captions to the data set (docs/files.md).")
