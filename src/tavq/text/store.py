"""The text store: the encoded units of every picture, each distinct unit once, read without loading the file."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from tavq.core.config import Config, build
from tavq.core.errors import DataError, FileError, UsageError
from tavq.core.files import (
    MappedTensors,
    check_sha256,
    parse_json,
    read_json,
)
from tavq.interfaces import GRANULARITIES, POOLED, TOKENS, WHOLE, WHOLE_IDS
from tavq.text.encoders import EncoderRecord, TextEncoder
from tavq.text.granularity import clean, load_splitter
from tavq.text.wordgraph import RECORD, WordGraph, read_word_graph

STORE = "store.safetensors"
MANIFEST = "manifest.json"


Array = np.ndarray


class SplitterRecord(Config):
    """Which splitter made the units."""

    name: str
    version: str


def splitter_record(name: str) -> SplitterRecord:
    """What is written of a splitter."""
    return SplitterRecord(name=name, version=load_splitter(name).version)


class Contents(Config):
    """What a store holds; written in the manifest and, against mixed-up files, in the header of the tensors too."""

    format: Literal[1]
    encoder: EncoderRecord
    splitter: SplitterRecord
    pictures: int
    units: dict[str, int]
    """Distinct units by granularity."""
    whole: bool
    half: bool


class Manifest(Contents):
    """`manifest.json`: the contents and what the tensor file must be."""

    bytes: int
    sha256: str


class TextStore:
    """The encoded text of pictures by key (their `file_name`), mapped from a folder that `build_store` wrote.

    Opening reads the manifest, the index and no vectors, so memory stays bounded by what is touched. A reader may be
    sent to another process: it opens the folder again there.
    """

    def __init__(self, folder: Path, manifest: Manifest, tensors: MappedTensors) -> None:
        self.folder = folder
        self.manifest = manifest
        self.width = manifest.encoder.width
        # Plain views of the mapping: an index into np.memmap itself costs several times as much.
        self._arrays = {name: np.asarray(tensors[name]) for name in tensors}
        self._tables: list[tuple[str, Array, Array, Array]] = [
            (name, self._arrays[f"{name}/vectors"], self._arrays[f"{name}/ids"], self._arrays[f"{name}/offsets"])
            for name in GRANULARITIES
        ]

    @classmethod
    def open(cls, folder: Path | str, verify: bool = False) -> "TextStore":
        """The store in `folder`; with `verify` its SHA-256 is checked too, which reads the file once.

        Raises FileError with the file and the reason when a file is missing, cut short, altered or of another store.
        """
        folder = Path(folder)
        manifest = _read_manifest(folder)
        path = folder / STORE
        tensors = MappedTensors(path)
        if path.stat().st_size != manifest.bytes:
            raise FileError(f"{path} was cut or altered: {path.stat().st_size} bytes, expected {manifest.bytes}.")
        if verify:
            check_sha256(path, manifest.sha256)
        _check(path, manifest, tensors)
        return cls(folder, manifest, tensors)

    @classmethod
    def of(cls, data: Path, named: Path | None = None, verify: bool = False) -> "TextStore | None":
        """The store that was named, else the data set's own (`text` in its folder), None where it has none."""
        own = data / "text"
        return None if named is None and not own.exists() else cls.open(named or own, verify)

    def __reduce__(self) -> tuple[Any, ...]:
        return TextStore.open, (self.folder,)

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return self.manifest.pictures

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all pictures, sorted."""
        return tuple(self._places)

    def vectors(self, key: str) -> dict[str, Array]:
        """The float32 vectors [m t] of a picture by granularity, units in order of appearance; m may be 0.

        A store of whole texts adds `whole` [m t], `whole/ids` [m] (rows of the vocabulary `tokens`), `pooled` [t].
        """
        place = self._place(key)
        found = {}
        for name, vectors, ids, offsets in self._tables:
            rows = vectors.take(ids[offsets[place] : offsets[place + 1]], axis=0)
            found[name] = rows if rows.dtype == np.float32 else rows.astype(np.float32)
        if self.manifest.whole:
            start, end = self._arrays["whole/offsets"][place : place + 2]
            found[WHOLE] = self._arrays["whole/vectors"][start:end].astype(np.float32)
            found[WHOLE_IDS] = self._arrays[WHOLE_IDS][start:end].astype(np.int64)
            found[POOLED] = self._arrays[POOLED][place].astype(np.float32)
        return found

    def units(self, key: str) -> dict[str, tuple[str, ...]]:
        """The units of a picture as text by granularity, in the order of `vectors`."""
        place = self._place(key)
        found = {}
        for name, _, ids, offsets in self._tables:
            rows = ids[offsets[place] : offsets[place + 1]]
            found[name] = tuple(self._text(name, int(row)) for row in rows)
        return found

    def vocabulary(self, granularity: str) -> tuple[list[str], Float[np.ndarray, "u t"]]:
        """Every distinct unit of a granularity, or of `tokens`, and its vector; the vectors are mapped, not read."""
        if granularity == TOKENS and not self.manifest.whole:
            raise UsageError(
                f"The text store {self.folder} holds no whole texts; make it anew with: tavq text DIR --whole"
            )
        vectors = self._arrays[f"{granularity}/vectors"]
        return [self._text(granularity, row) for row in range(len(vectors))], vectors

    def counts(self, granularity: str) -> Int[np.ndarray, "u"]:
        """In how many pictures each distinct unit stands, in the order of `vocabulary`."""
        return np.bincount(self._arrays[f"{granularity}/ids"], minlength=self.manifest.units[granularity])

    @property
    def has_word_graph(self) -> bool:
        """Whether a word graph lies beside it."""
        return (self.folder / RECORD).is_file()

    def word_graph(self) -> WordGraph:
        """The adjectives and nouns of the texts with their vectors and edges; UsageError where it was not made."""
        return read_word_graph(self.folder, self.manifest.encoder)

    def holds(self, texts: Mapping[str, str], encoder: TextEncoder, splitter: str, whole: bool) -> bool:
        """Whether it has every text's picture, made in this way; the texts themselves are not compared.

        A store of whole texts holds what is asked of one without.
        """
        made = self.manifest
        if (made.encoder, made.splitter) != (encoder.record, splitter_record(splitter)) or (whole and not made.whole):
            return False
        without = [text for key, text in texts.items() if key not in self]
        load = load_splitter(splitter)
        return all(key in texts for key in self.keys) and not any(load.split(clean(text)).sentences for text in without)

    def _place(self, key: str) -> int:
        place = self._places.get(key)
        if place is None:
            raise DataError(f"The text store {self.folder} has no text for {key!r}; it holds {len(self)} pictures.")
        return place

    @cached_property
    def _places(self) -> dict[str, int]:
        return {self._slice("keys", "key_offsets", row): row for row in range(len(self))}

    def _text(self, granularity: str, row: int) -> str:
        return self._slice(f"{granularity}/text", f"{granularity}/text_offsets", row)

    def _slice(self, blob: str, offsets: str, row: int) -> str:
        start, end = self._arrays[offsets][row : row + 2]
        try:
            return self._arrays[blob][start:end].tobytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise FileError(f"{self.folder / STORE} was altered: entry {row} of {blob!r} is not text.") from error


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not path.is_file():
        raise FileError(f"{folder} is no text store: it has no {MANIFEST}. `tavq text` makes one.")
    told = read_json(path)
    if not isinstance(told, dict):
        raise FileError(f"{path} is not the manifest of a text store: it holds no settings.")
    try:
        return build(Manifest, told, str(path))
    except UsageError as error:
        raise FileError(f"{path} is not the manifest of a text store: {error}") from error


def _check(path: Path, manifest: Manifest, tensors: MappedTensors) -> None:
    """Raises FileError unless the tensors are the ones the manifest tells of and fit together.

    Reads offsets and ids once (some 30 MB for 100,000 pictures), so that no look-up can leave its table.
    """
    told = parse_json(tensors.metadata.get("contents", "null"), f"The header of {path}")
    if told != manifest.model_dump(include=set(Contents.model_fields)):
        raise FileError(f"{path} belongs to another manifest than the {MANIFEST} beside it; build the store again.")
    if set(manifest.units) != set(GRANULARITIES) or min(manifest.units.values()) < 0:
        raise FileError(f"{path.parent / MANIFEST} counts the units of {sorted(manifest.units)}, not {GRANULARITIES}.")
    real = "<f2" if manifest.half else "<f4"
    keys = _typed(path, tensors, "keys", "u1")
    _check_offsets(path, tensors, "key_offsets", manifest.pictures, len(keys))
    for name, count in manifest.units.items():
        text = _typed(path, tensors, f"{name}/text", "u1")
        _check_offsets(path, tensors, f"{name}/text_offsets", count, len(text))
        _check_shape(path, tensors, f"{name}/vectors", real, (count, manifest.encoder.width))
        ids = _typed(path, tensors, f"{name}/ids", "<i4")
        _check_offsets(path, tensors, f"{name}/offsets", manifest.pictures, len(ids))
        if len(ids) and not (ids.min() >= 0 and ids.max() < count):
            raise FileError(f"{path} was altered: {name}/ids leaves its {count} units.")
    if manifest.whole:
        _check_whole(path, manifest, tensors, real)


def _check_whole(path: Path, manifest: Manifest, tensors: MappedTensors, real: str) -> None:
    if TOKENS + "/vectors" not in tensors:
        raise FileError(f"{path} was made before stores kept tokens; make it anew with: tavq text DIR --whole")
    total, count = (len(_typed(path, tensors, f"{name}/vectors", real, 2)) for name in (WHOLE, TOKENS))
    width = manifest.encoder.width
    for name, rows in ((f"{WHOLE}/vectors", total), (f"{TOKENS}/vectors", count), (POOLED, manifest.pictures)):
        _check_shape(path, tensors, name, real, (rows, width))
    _check_offsets(path, tensors, "whole/offsets", manifest.pictures, total)
    _check_offsets(path, tensors, "tokens/text_offsets", count, len(_typed(path, tensors, "tokens/text", "u1")))
    ids = _typed(path, tensors, WHOLE_IDS, "<i4")
    if len(ids) != total or (total and not 0 <= ids.min() <= ids.max() < count):
        raise FileError(f"{path} was altered: {WHOLE_IDS} leaves its {count} tokens.")


def _typed(path: Path, tensors: MappedTensors, name: str, dtype: str, axes: int = 1) -> Array:
    array = np.asarray(tensors[name])
    if array.dtype != np.dtype(dtype) or array.ndim != axes:
        raise FileError(f"{path} was altered: {name} holds {array.dtype} of shape {array.shape}.")
    return array


def _check_shape(path: Path, tensors: MappedTensors, name: str, dtype: str, shape: tuple[int, ...]) -> None:
    found = _typed(path, tensors, name, dtype, len(shape)).shape
    if found != shape:
        raise FileError(f"{path} was altered: {name} has shape {found}, expected {shape}.")


def _check_offsets(path: Path, tensors: MappedTensors, name: str, rows: int, end: int) -> None:
    offsets = _typed(path, tensors, name, "<i8")
    if len(offsets) != rows + 1 or offsets[0] != 0 or offsets[-1] != end or (offsets[1:] < offsets[:-1]).any():
        raise FileError(f"{path} was altered: {name} does not divide {end} entries among {rows}.")
