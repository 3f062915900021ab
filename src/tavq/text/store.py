"""The text store: the encoded units of every image, each distinct unit once, read without loading the file."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field

from tavq.core.config import Config, rename_settings
from tavq.core.errors import DataError, FileError, UsageError
from tavq.core.files import (
    check_sha256,
    parse_json,
    read_json_lines,
    read_manifest,
)
from tavq.core.mmap_tensors import MappedTensors
from tavq.interfaces import FULL_TEXT, FULL_TEXT_IDS, GRANULARITIES, POOLED, TOKENS
from tavq.text.encoders import EncoderRecord, TextEncoder
from tavq.text.granularity import clean, load_splitter
from tavq.text.splitting import text_hash
from tavq.text.word_graph import RECORD, WordGraph, read_word_graph

STORE = "store.safetensors"
MANIFEST = "manifest.json"
FAULTS = "faults.jsonl"
FORMAT: Literal[2] = 2

TEXT_TABLE, TEXT_TABLE_IDS = "whole", "whole/ids"
"""Names of the token-level tensors in the file; they predate the name `full_text`, and format 2 keeps them."""


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

    RENAMED: ClassVar = {"pictures": "images", "whole": "full_text", "half": "float16"}

    format: Literal[2]
    encoder: EncoderRecord
    splitter: SplitterRecord
    full_text: bool
    """Token-level text is stored too."""
    float16: bool
    """Vectors are stored in half precision."""
    texts: str = ""
    """Hash of all keys and texts it was made from, in their order."""
    faults: dict[str, int] = Field(default_factory=dict)
    """Images that are not in it, or not with all their text, by reason; `faults.jsonl` names them."""
    images: int = 0
    units: dict[str, int] = Field(default_factory=dict)
    """Distinct units by granularity."""


class Manifest(Contents):
    """`manifest.json`: the contents and what the tensor file must be."""

    bytes: int
    sha256: str


class TextStore:
    """The encoded text of images by key (their `file_name`), mapped from a folder that `build_store` wrote.

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
    def find(cls, data: Path, named: Path | None = None, verify: bool = False) -> "TextStore | None":
        """The store that was named, else the data set's own (`text` in its folder), None where it has none."""
        own = data / "text"
        return None if named is None and not own.exists() else cls.open(named or own, verify)

    def __reduce__(self) -> tuple[Any, ...]:
        return TextStore.open, (self.folder,)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._find(key) is not None

    def __len__(self) -> int:
        return self.manifest.images

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all images, in the order in which their texts came."""
        return tuple(map(self.key, range(len(self))))

    def key(self, place: int) -> str:
        """The key of the image at a place."""
        return self._slice("keys", "key_offsets", place)

    def vectors(self, key: str) -> dict[str, Array]:
        """The float32 vectors [m t] of an image by granularity, units in order of appearance; m may be 0.

        A store with full texts adds `full_text` [m t], `full_text/ids` [m] (rows of the vocabulary `tokens`) and
        `pooled` [t].
        """
        place = self._place(key)
        found = {}
        for name, vectors, ids, offsets in self._tables:
            rows = vectors.take(ids[offsets[place] : offsets[place + 1]], axis=0)
            found[name] = rows if rows.dtype == np.float32 else rows.astype(np.float32)
        if self.manifest.full_text:
            start, end = self._arrays[f"{TEXT_TABLE}/offsets"][place : place + 2]
            found[FULL_TEXT] = self._arrays[f"{TEXT_TABLE}/vectors"][start:end].astype(np.float32)
            found[FULL_TEXT_IDS] = self._arrays[TEXT_TABLE_IDS][start:end].astype(np.int64)
            found[POOLED] = self._arrays[POOLED][place].astype(np.float32)
        return found

    def units(self, key: str) -> dict[str, tuple[str, ...]]:
        """The units of an image as text by granularity, in the order of `vectors`."""
        place = self._place(key)
        found = {}
        for name, _, ids, offsets in self._tables:
            rows = ids[offsets[place] : offsets[place + 1]]
            found[name] = tuple(self.unit(name, int(row)) for row in rows)
        return found

    def vocabulary(self, granularity: str) -> tuple[list[str], Float[np.ndarray, "u t"]]:
        """Every distinct unit of a granularity, or of `tokens`, and its vector; the vectors are mapped, not read."""
        if granularity == TOKENS and not self.manifest.full_text:
            raise UsageError(
                f"The text store {self.folder} holds no token-level text; rebuild it with: tavq text DIR --full-text"
            )
        vectors = self._arrays[f"{granularity}/vectors"]
        return [self.unit(granularity, row) for row in range(len(vectors))], vectors

    def counts(self, granularity: str) -> Int[np.ndarray, "u"]:
        """In how many images each distinct unit stands, in the order of `vocabulary`."""
        return np.bincount(self._arrays[f"{granularity}/ids"], minlength=self.manifest.units[granularity])

    def sizes(self, granularity: str) -> Int[np.ndarray, "p"]:
        """How many units each image has, in the order of `keys`."""
        return np.diff(self._arrays[f"{granularity}/offsets"])

    @property
    def has_word_graph(self) -> bool:
        """Whether a word graph lies beside it."""
        return (self.folder / RECORD).is_file()

    def word_graph(self) -> WordGraph:
        """The adjectives and nouns of the texts with their vectors and edges; UsageError where it was not made."""
        return read_word_graph(self.folder, self.manifest.encoder)

    def matches(self, texts: Iterable[tuple[str, str]], encoder: TextEncoder, splitter: str, full_text: bool) -> bool:
        """Whether it was made of these keys and texts, in any order, in this way.

        A store of whole texts holds what is asked of one without.
        """
        made = self.manifest
        if (made.encoder, made.splitter) != (encoder.record, splitter_record(splitter)) or (
            full_text and not made.full_text
        ):
            return False
        load = load_splitter(splitter)
        found = 0
        for key, text in texts:
            place = self._find(key)
            if place is None and load.split(clean(text)).sentences:
                return False
            if place is not None and self._arrays["text_hashes"][place] != text_hash(text):
                return False
            found += place is not None
        return found == len(self)

    def find_changed(self, texts: Iterable[tuple[str, str]]) -> list[str]:
        """The keys of those whose text is another one than it was when the store was made; strangers are left out."""
        hashes = self._arrays["text_hashes"]
        places = ((key, text, self._find(key)) for key, text in texts)
        return [key for key, text, place in places if place is not None and hashes[place] != text_hash(text)]

    def check_encoder(self, trained_with: Any) -> None:
        """Raises UsageError unless its encoder is the one of the record in a model's facts, where that tells one."""
        told = trained_with.get("encoder") if isinstance(trained_with, dict) else None
        own = self.manifest.encoder
        if isinstance(told, dict) and (told.get("sha256"), told.get("width")) != (own.sha256, own.width):
            raise UsageError(
                f"The text store {self.folder} was made by the encoder {own.name!r}, the model was trained with "
                f"{told.get('name')!r}; make another store with: tavq text DATA --out STORE "
                f"--encoder {told.get('name')}"
            )

    def faults(self) -> list[tuple[str, str]]:
        """The images that are not in it, or not with all their text, each with the reason."""
        found = read_json_lines(self.folder / FAULTS) if self.manifest.faults else []
        return [(str(fault.get("file_name")), str(fault.get("reason"))) for fault in found if isinstance(fault, dict)]

    def _place(self, key: str) -> int:
        place = self._find(key)
        if place is None:
            raise DataError(f"The text store {self.folder} has no text for {key!r}; it holds {len(self)} images.")
        return place

    def _find(self, key: str) -> int | None:
        """The image's place; found by 64 bits of hash, so that no list of all keys is in memory."""
        hashed, own = text_hash(key), key.encode("utf-8", "surrogatepass")
        hashes = self._arrays["index/hashes"]
        for row in range(int(hashes.searchsorted(np.int64(hashed))), len(hashes)):
            if hashes[row] != hashed:
                break
            place = int(self._arrays["index/places"][row])
            if self._bytes("keys", "key_offsets", place) == own:
                return place
        return None

    def unit(self, granularity: str, row: int) -> str:
        """A distinct unit as text."""
        return self._slice(f"{granularity}/text", f"{granularity}/text_offsets", row)

    def _bytes(self, blob: str, offsets: str, row: int) -> bytes:
        start, end = self._arrays[offsets][row : row + 2]
        return self._arrays[blob][start:end].tobytes()

    def _slice(self, blob: str, offsets: str, row: int) -> str:
        try:
            return self._bytes(blob, offsets, row).decode("utf-8")
        except UnicodeDecodeError as error:
            raise FileError(f"{self.folder / STORE} was altered: entry {row} of {blob!r} is not text.") from error


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not path.is_file():
        raise FileError(f"{folder} is no text store: it has no {MANIFEST}. `tavq text` makes one.")
    return read_manifest(path, Manifest, FORMAT, "text store", "tavq text DIR")


def _check(path: Path, manifest: Manifest, tensors: MappedTensors) -> None:
    """Raises FileError unless the tensors are the ones the manifest tells of and fit together.

    Reads offsets and ids once (some 30 MB for 100,000 images), so that no look-up can leave its table.
    """
    stored = parse_json(tensors.metadata.get("contents", "null"), f"The header of {path}")
    if isinstance(stored, dict):
        stored = rename_settings(stored, Contents.RENAMED, warn=False)
    if stored != manifest.model_dump(include=set(Contents.model_fields)):
        raise FileError(f"{path} belongs to another manifest than the {MANIFEST} beside it; build the store again.")
    if set(manifest.units) != set(GRANULARITIES) or min(manifest.units.values()) < 0:
        raise FileError(f"{path.parent / MANIFEST} counts the units of {sorted(manifest.units)}, not {GRANULARITIES}.")
    real = "<f2" if manifest.float16 else "<f4"
    keys = _typed(path, tensors, "keys", "u1")
    _check_offsets(path, tensors, "key_offsets", manifest.images, len(keys))
    for name, kind in (("text_hashes", "<i8"), ("index/hashes", "<i8"), ("index/places", "<i4")):
        _check_shape(path, tensors, name, kind, (manifest.images,))
    places = np.asarray(tensors["index/places"])
    if len(places) and not 0 <= places.min() <= places.max() < manifest.images:
        raise FileError(f"{path} was altered: index/places leaves its {manifest.images} images.")
    for name, count in manifest.units.items():
        text = _typed(path, tensors, f"{name}/text", "u1")
        _check_offsets(path, tensors, f"{name}/text_offsets", count, len(text))
        _check_shape(path, tensors, f"{name}/vectors", real, (count, manifest.encoder.width))
        ids = _typed(path, tensors, f"{name}/ids", "<i4")
        _check_offsets(path, tensors, f"{name}/offsets", manifest.images, len(ids))
        if len(ids) and not (ids.min() >= 0 and ids.max() < count):
            raise FileError(f"{path} was altered: {name}/ids leaves its {count} units.")
    if manifest.full_text:
        _check_full_text(path, manifest, tensors, real)


def _check_full_text(path: Path, manifest: Manifest, tensors: MappedTensors, real: str) -> None:
    total, count = (len(_typed(path, tensors, f"{name}/vectors", real, 2)) for name in (TEXT_TABLE, TOKENS))
    width = manifest.encoder.width
    for name, rows in ((f"{TEXT_TABLE}/vectors", total), (f"{TOKENS}/vectors", count), (POOLED, manifest.images)):
        _check_shape(path, tensors, name, real, (rows, width))
    _check_shape(path, tensors, f"{TOKENS}/numbers", "<i4", (count,))
    _check_offsets(path, tensors, f"{TEXT_TABLE}/offsets", manifest.images, total)
    _check_offsets(path, tensors, "tokens/text_offsets", count, len(_typed(path, tensors, "tokens/text", "u1")))
    ids = _typed(path, tensors, TEXT_TABLE_IDS, "<i4")
    if len(ids) != total or (total and not 0 <= ids.min() <= ids.max() < count):
        raise FileError(f"{path} was altered: {TEXT_TABLE_IDS} leaves its {count} tokens.")


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
