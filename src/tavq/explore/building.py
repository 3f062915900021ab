"""Builds the store of a model's statistics on a data set: one pass over the images, then counts from the grids."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from tavq.core.errors import DataError
from tavq.core.files import sha256, write_json
from tavq.core.locks import lock
from tavq.core.mmap_tensors import MappedTensors, TensorFileWriter
from tavq.core.temporary import remove_leftovers
from tavq.core.version import __version__
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.records import hash_name
from tavq.explore.answers.base import HeldOutScore
from tavq.explore.encoding import Encoder, Progress, shapes_of
from tavq.explore.statistics.codes import (
    CodeColumns,
    LabelCounts,
    guess_words,
    measure_held_out,
    measure_labels,
    measure_use,
)
from tavq.explore.statistics.counting import CLOSEST, Grids, count_codes, find_closest, find_prominent, iter_positions
from tavq.explore.statistics.rows import Rows, offsets_of, transpose
from tavq.explore.store import (
    FORMAT,
    GRIDS,
    LOCK,
    MANIFEST,
    TABLES,
    LevelShape,
    Manifest,
    Source,
    StatisticsStore,
    StoredFile,
    is_finished,
)
from tavq.explore.units import UnitTable, build_tables, iter_units
from tavq.inspection.entries import decode_alone
from tavq.interfaces import DEEP
from tavq.metrics.codes import LEVEL_NAMES
from tavq.text.store import TextStore
from tavq.tokenizer import Tokenizer

HELD_OUT = 5
"""One image in so many is kept apart, by a hash of its name."""

MAX_TILES = 1 << 15
"""Entries that are decoded alone; of a larger codebook none are in advance."""

Arrays = dict[str, np.ndarray]


def build_store(
    tokenizer: Tokenizer,
    source: Source,
    dataset: FolderDataset,
    store: TextStore | None,
    folder: Path,
    config: DataConfig,
    progress: Progress | None = None,
) -> StatisticsStore:
    """Open the finished store of a source in `folder`, or build it there; an interrupted pass continues.

    Memory: the units of the texts, the counts of one level at a time, and a few million positions.

    Args:
        tokenizer: in evaluation mode.
        source: what the store is made of.
        dataset: the images.
        store: their text; without one, captions are split.
        folder: of the store.
        config: how images are read.
        progress: called with (done, total, note).

    Raises:
        DataError: too many images, or all of them, cannot be read.
        FileError: the store is damaged or cannot be written, or another process writes it.
    """
    if not is_finished(folder):
        with lock(folder / LOCK, folder, "choose another folder with --store"):
            remove_leftovers(folder)
            if not is_finished(folder):  # else another process has just built it
                _build(tokenizer, source, dataset, store, folder, config, progress)
                return StatisticsStore.open(folder, source, verify=False)
    return StatisticsStore.open(folder, source)


def _build(
    tokenizer: Tokenizer,
    source: Source,
    dataset: FolderDataset,
    store: TextStore | None,
    folder: Path,
    config: DataConfig,
    progress: Progress | None,
) -> None:
    levels = shapes_of(tokenizer, source.size)
    Encoder(tokenizer, source, levels, folder).run(dataset, config, progress)
    mapped = MappedTensors(folder / GRIDS)
    readable = np.asarray(mapped["readable"]) > 0
    if not readable.any():
        raise DataError(f"No image in {dataset.folder} can be read; list the reasons with: tavq data check")
    if progress is not None:
        progress(len(dataset), len(dataset), "counting words")
    units = build_tables(iter_units(dataset, store), readable)
    counted = find_counted(units, readable)
    held_out = np.array([is_held_out(record.file_name) for record in dataset])
    arrays: Arrays = {"held_out": held_out.astype(np.uint8), "tiles": _decode_tiles(tokenizer)}
    arrays |= _unit_arrays(units)
    scores = []
    for level in levels:
        if progress is not None:
            progress(len(dataset), len(dataset), f"counting the codes of level {level.name}")
        grids = Grids(mapped[f"{level.name}/grid"], mapped[f"{level.name}/distance"], readable, level.entries)
        scores += _add_level(arrays, level, grids, units["words"], counted, held_out)
    _write_tables(folder, arrays)
    files = {name: _seal(folder / name) for name in (GRIDS, TABLES)}
    manifest = Manifest(
        format=FORMAT, source=source, tavq=__version__, levels=levels, unreadable=int((~readable).sum()),
        held_out=tuple(scores), files=files,
    )  # fmt: skip
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def is_held_out(file_name: str) -> bool:
    """Whether an image is kept apart for the held-out scores."""
    return (hash_name(file_name) >> 7) % HELD_OUT == 0


def find_counted(units: Mapping[str, UnitTable], readable: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """The images that statistics count: readable ones with a frequent unit; all readable ones where none has text."""
    with_text = np.zeros(len(readable), bool)
    for table in units.values():
        with_text |= table.of_images.lengths > 0
    return with_text & readable if with_text.any() else readable


def _unit_arrays(units: Mapping[str, UnitTable]) -> Arrays:
    arrays: Arrays = {}
    for name, table in units.items():
        encoded = [text.encode() for text in table.texts]
        arrays[f"{name}/text"] = np.frombuffer(b"".join(encoded), np.uint8)
        arrays[f"{name}/text_offsets"] = offsets_of(np.array([len(text) for text in encoded], np.int64))
        arrays |= _row_arrays(f"{name}/of_images", table.of_images) | _row_arrays(f"{name}/images", table.images)
    return arrays


def _row_arrays(name: str, rows: Rows) -> Arrays:
    return {f"{name}/offsets": rows.offsets, f"{name}/values": np.asarray(rows.values, np.int32)}


def _decode_tiles(tokenizer: Tokenizer) -> UInt8[np.ndarray, "k y x 3"]:
    if tokenizer.entries > MAX_TILES:
        return np.zeros((0, 1, 1, 3), np.uint8)
    return np.stack(decode_alone(tokenizer, range(tokenizer.entries)))


def _add_level(
    arrays: Arrays,
    level: LevelShape,
    grids: Grids,
    words: UnitTable,
    counted: Bool[np.ndarray, " n"],
    held_out: Bool[np.ndarray, " n"],
) -> list[HeldOutScore]:
    """Add the counts of a level; returns its held-out score where there is text."""
    prominent = find_prominent(grids, counted)
    prominent_images = transpose(prominent, level.entries)
    columns = CodeColumns.empty(level.entries)
    columns.with_code[:] = prominent_images.lengths
    arrays |= _add_positions(columns, level, grids)
    arrays |= _row_arrays(f"{level.name}/prominent", prominent)
    arrays |= _row_arrays(f"{level.name}/prominent_images", prominent_images)
    scores = []
    profiles = np.zeros((level.entries, 0), np.float16)
    if len(words):
        counts = LabelCounts(words.of_images, len(words), counted, held_out)
        profiles = measure_labels(columns, prominent_images, counts)
        labels = measure_held_out(columns, prominent_images, counts)
        guessed = guess_words(prominent, prominent_images, counts)
        if guessed is not None:
            own, chance = guessed
            scores = [HeldOutScore(
                level=level.name, images=len(counts.held_images), words=own.words, auc=own.auc, interval=own.interval,
                shuffled=chance.auc, shuffled_interval=chance.interval, codes=labels[0], confirmed=labels[1],
                confirmed_shuffled=labels[2],
            )]  # fmt: skip
    arrays[f"{level.name}/profiles"] = profiles
    arrays |= {f"{level.name}/{field.name}": getattr(columns, field.name) for field in fields(columns)}
    return scores


def _add_positions(columns: CodeColumns, level: LevelShape, grids: Grids) -> Arrays:
    """The positions of each code in order of image, and its closest ones."""
    counts = count_codes(grids)
    offsets = offsets_of(counts)
    positions = np.empty(int(offsets[-1]), np.int32 if grids.codes.size < 1 << 31 else np.int64)
    start = 0
    for part in iter_positions(grids, counts):
        positions[start : start + len(part)] = part
        start += len(part)
    closest = np.full((level.entries, CLOSEST), -1, np.int64)
    for code in np.flatnonzero(counts).tolist():
        own = positions[offsets[code] : offsets[code + 1]].astype(np.int64)
        measure_use(columns, code, own, level.cells, level.parts)
        best = find_closest(grids, own)
        closest[code, : len(best)] = best
    name = f"{level.name}/positions"
    return {f"{name}/offsets": offsets, f"{name}/values": positions, f"{level.name}/closest": closest}


def _write_tables(folder: Path, arrays: Arrays) -> None:
    kinds = {name: np.dtype(kind) for name, kind in MappedTensors.DTYPES.items() if name != "BOOL"}
    names = {dtype: MappedTensors.DTYPES[name] for name, dtype in kinds.items()}
    shapes = {name: (names[array.dtype], array.shape) for name, array in arrays.items()}
    with closing(TensorFileWriter(folder / TABLES, shapes, {})) as file:
        for name, array in arrays.items():
            if array.size:
                file.write(name, 0, array)
        file.flush()


def _seal(path: Path) -> StoredFile:
    return StoredFile(bytes=path.stat().st_size, sha256=sha256(path))


def levels_of(tokenizer: Tokenizer) -> dict[str, int]:
    """The levels of a model by name."""
    return {LEVEL_NAMES[level]: level for level in sorted(tokenizer.codebooks)}


def shares_decoder_entries(tokenizer: Tokenizer, level: int) -> bool:
    """Whether the entries of a level are those that the decoder reads."""
    return level == DEEP or tokenizer.codebooks[level] is tokenizer.codebook
