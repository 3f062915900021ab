"""The text store: the encoded text of every image, each distinct unit once, memory-mapped."""

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field, model_serializer

from tavq.core.caption_keys import image_key
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
from tavq.text.encoder_record import EncoderRecord
from tavq.text.encoders import TextEncoder
from tavq.text.granularity import clean, load_splitter
from tavq.text.splitting import hash_text
from tavq.text.word_graph import RECORD, WordGraph, read_word_graph

STORE = "store.safetensors"
MANIFEST = "manifest.json"
FAULTS = "faults.jsonl"
FORMAT: Literal[2] = 2

TEXT_TABLE, TEXT_TABLE_IDS = "whole", "whole/ids"
"""Names of the token-level tensors in the file; format 2 is older than the name `full_text` and keeps them."""

Array = np.ndarray


class SplitterRecord(Config):
    """The splitter that made the units."""

    name: str
    version: str


def record_splitter(name: str) -> SplitterRecord:
    """The record of a splitter as it is installed now."""
    return SplitterRecord(name=name, version=load_splitter(name).version)


class Contents(Config):
    """What a store holds; written in the manifest and in the header of the tensors, so that a mix-up is found."""

    RENAMED: ClassVar = {"pictures": "images", "whole": "full_text", "half": "float16"}

    format: Literal[2]
    encoder: EncoderRecord
    splitter: SplitterRecord
    full_text: bool
    """Token-level text is stored too."""
    float16: bool
    """Vectors are stored in half precision."""
    each_caption: bool = False
    """Each caption of an image is a text of its own, with a key of `core.caption_keys`; else they are joined."""
    texts: str = ""
    """Hash of all keys and texts, in their order."""
    faults: dict[str, int] = Field(default_factory=dict)
    """Number of images that are missing, cut, or have units read in parts, by reason; `faults.jsonl` names them."""
    images: int = 0
    """Number of texts: of images, or with `each_caption` of captions."""
    units: dict[str, int] = Field(default_factory=dict)
    """Number of distinct units by granularity."""

    @model_serializer(mode="wrap")
    def _leave_out_default(self, serialize: Callable[[Any], Any]) -> dict[str, Any]:
        """Write `each_caption` only if it is true: other stores and runs stay as they were before it existed."""
        settings: dict[str, Any] = serialize(self)
        return settings if self.each_caption else {key: settings[key] for key in settings if key != "each_caption"}


class Manifest(Contents):
    """`manifest.json`: the contents, and the size and hash of the tensor file."""

    bytes: int
    sha256: str


class TextStore:
    """The encoded text of images by key (their `file_name`), memory-mapped from a folder that `build_store` wrote.

    Opening reads the manifest and the index but no vectors, so memory use is bounded by what is accessed. A pickled
    store opens its folder again, so it can be sent to a data loader's worker.
    """

    def __init__(self, folder: Path, manifest: Manifest, tensors: MappedTensors) -> None:
        self.folder = folder
        self.manifest = manifest
        self.width = manifest.encoder.width
        # Plain views of the mapping: indexing an np.memmap itself costs several times as much.
        self._arrays = {name: np.asarray(tensors[name]) for name in tensors}
        self._tables: list[tuple[str, Array, Array, Array]] = [
            (name, self._arrays[f"{name}/vectors"], self._arrays[f"{name}/ids"], self._arrays[f"{name}/offsets"])
            for name in GRANULARITIES
        ]

    @classmethod
    def open(cls, folder: Path | str, verify: bool = True) -> "TextStore":
        """Open the store in `folder`; `verify` checks its SHA-256, which reads the file once.

        Raises FileError with the file and the reason when a file is missing, truncated, altered or from another store.
        """
        folder = Path(folder)
        manifest = _read_manifest(folder)
        path = folder / STORE
        tensors = MappedTensors(path)
        if path.stat().st_size != manifest.bytes:
            raise FileError(f"{path} was cut or altered: {path.stat().st_size} bytes, expected {manifest.bytes}.")
        if verify:
            check_sha256(path, manifest.sha256)
        _check_tensors(path, manifest, tensors)
        return cls(folder, manifest, tensors)

    @classmethod
    def find(cls, data: Path, path: Path | None = None, verify: bool = True) -> "TextStore | None":
        """Open the store at `path`, or by default the data set's own (`data/text`); None when there is neither.

        A folder `text` that holds no file of a store is somebody else's.
        """
        own = data / "text"
        if path is None and own.is_dir() and not any((own / name).exists() for name in (MANIFEST, STORE)):
            return None
        return None if path is None and not own.exists() else cls.open(path or own, verify)

    def contains_any(self, keys: Iterable[str]) -> bool:
        """Whether the store has a text of at least one of the images."""
        return any(key in self for key in keys)

    def __reduce__(self) -> tuple[Any, ...]:
        return TextStore.open, (self.folder, False)  # it was checked when it was opened first

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._find(key) is not None

    def __len__(self) -> int:
        return self.manifest.images

    @property
    def each_caption(self) -> bool:
        """Whether each caption of an image is a text of its own; the image's own key then has the first one."""
        return self.manifest.each_caption

    @property
    def images(self) -> int:
        """The number of images with a text; `len` counts texts."""
        if not self.each_caption:
            return len(self)
        names = (image_key(self.key(index)) for index in range(len(self)))
        return sum(1 for _ in itertools.groupby(names))  # the captions of an image follow each other

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all images, in the order in which their texts were read."""
        return tuple(map(self.key, range(len(self))))

    def key(self, index: int) -> str:
        """The key of an image."""
        return self._text("keys", "key_offsets", index)

    def vectors(self, key: str) -> dict[str, Array]:
        """The float32 vectors [m t] of an image by granularity, units in order of first appearance; m may be 0.

        A store with full texts adds `full_text` [m t], `full_text/ids` [m] (rows of the vocabulary `tokens`) and
        `pooled` [t].
        """
        image = self._index(key)
        result = {}
        for name, vectors, ids, offsets in self._tables:
            own = vectors.take(ids[offsets[image] : offsets[image + 1]], axis=0)
            result[name] = own if own.dtype == np.float32 else own.astype(np.float32)
        if self.manifest.full_text:
            start, end = self._arrays[f"{TEXT_TABLE}/offsets"][image : image + 2]
            result[FULL_TEXT] = self._arrays[f"{TEXT_TABLE}/vectors"][start:end].astype(np.float32)
            result[FULL_TEXT_IDS] = self._arrays[TEXT_TABLE_IDS][start:end].astype(np.int64)
            result[POOLED] = self._arrays[POOLED][image].astype(np.float32)
        return result

    def units(self, key: str) -> dict[str, tuple[str, ...]]:
        """The units of an image as text by granularity, in the order of `vectors`."""
        image = self._index(key)
        result = {}
        for name, _, ids, offsets in self._tables:
            own = ids[offsets[image] : offsets[image + 1]]
            result[name] = tuple(self.unit(name, int(unit)) for unit in own)
        return result

    def unit(self, granularity: str, index: int) -> str:
        """A distinct unit as text."""
        return self._text(f"{granularity}/text", f"{granularity}/text_offsets", index)

    def vocabulary(self, granularity: str) -> tuple[list[str], Float[np.ndarray, "u t"]]:
        """Every distinct unit of a granularity, or of `tokens`, and its vector; vectors are mapped, not read."""
        if granularity == TOKENS and not self.manifest.full_text:
            raise UsageError(
                f"The text store {self.folder} holds no token-level text; rebuild it with: tavq text DIR --full-text"
            )
        vectors = self._arrays[f"{granularity}/vectors"]
        return [self.unit(granularity, index) for index in range(len(vectors))], vectors

    def counts(self, granularity: str) -> Int[np.ndarray, "u"]:
        """In how many images each distinct unit occurs, in the order of `vocabulary`."""
        return np.bincount(self._arrays[f"{granularity}/ids"], minlength=self.manifest.units[granularity])

    def units_per_image(self, granularity: str) -> Int[np.ndarray, "p"]:
        """How many units each image has, in the order of `keys`."""
        return np.diff(self._arrays[f"{granularity}/offsets"])

    @property
    def has_word_graph(self) -> bool:
        """Whether the store's folder holds a word graph."""
        return (self.folder / RECORD).is_file()

    def word_graph(self) -> WordGraph:
        """The adjectives and nouns of the texts with their vectors and edges; UsageError if it was not built."""
        return read_word_graph(self.folder, self.manifest.encoder)

    def matches(self, texts: Iterable[tuple[str, str]], encoder: TextEncoder, splitter: str, full_text: bool) -> bool:
        """Whether the store was built from these keys and texts, in any order, with this encoder and splitter.

        A store with full texts also matches a request without them.

        Args:
            texts: key and text of each image.
            encoder: the text encoder asked for.
            splitter: a registered name.
            full_text: token-level text is needed.
        """
        manifest = self.manifest
        if (manifest.encoder, manifest.splitter) != (encoder.record, record_splitter(splitter)):
            return False
        if full_text and not manifest.full_text:
            return False
        load = load_splitter(splitter)
        found = 0
        for key, text in texts:
            image = self._find(key)
            if image is None and load.split(clean(text)).sentences:
                return False
            if image is not None and self._arrays["text_hashes"][image] != hash_text(text):
                return False
            found += image is not None
        return found == len(self)

    def find_changed(self, texts: Iterable[tuple[str, str]]) -> list[str]:
        """The keys of images whose text differs from the one that was encoded; unknown keys are ignored."""
        hashes = self._arrays["text_hashes"]
        located = ((key, text, self._find(key)) for key, text in texts)
        return [key for key, text, image in located if image is not None and hashes[image] != hash_text(text)]

    def check_encoder(self, trained_with: Any) -> None:
        """Raise UsageError if a model was trained with the vectors of another encoder.

        `trained_with` is the text store's manifest in the model's metadata; without an encoder nothing is checked.
        """
        expected = trained_with.get("encoder") if isinstance(trained_with, dict) else None
        own = self.manifest.encoder
        if not isinstance(expected, dict):
            return
        projected = expected.get("projected") is True
        flag = "--projection" if projected else "--no-projection"
        make = f"make another store with: tavq text DATA --out STORE --encoder {expected.get('name')}"
        if (expected.get("sha256"), expected.get("width")) != (own.sha256, own.width):
            raise UsageError(
                f"The text store {self.folder} was made by the encoder {own.name!r}, the model was trained with "
                f"{expected.get('name')!r}; {make}{' --projection' if projected else ''}"
            )
        if projected != own.projected:
            raise UsageError(
                f"The text store {self.folder} has CLIP's vectors {'after' if own.projected else 'before'} the text "
                f"projection, the model was trained with those {'after' if projected else 'before'} it; {make} {flag}"
            )

    def faults(self) -> list[tuple[str, str]]:
        """The images that are missing, whose text was cut, or that have units read in parts, each with the reason."""
        lines = read_json_lines(self.folder / FAULTS) if self.manifest.faults else []
        return [(str(line.get("file_name")), str(line.get("reason"))) for line in lines if isinstance(line, dict)]

    def _index(self, key: str) -> int:
        image = self._find(key)
        if image is None:
            raise DataError(f"The text store {self.folder} has no text for {key!r}; it holds {len(self)} images.")
        return image

    def _find(self, key: str) -> int | None:
        """The image's index, found by a 64-bit hash so that no list of all keys is kept in memory."""
        wanted, encoded = hash_text(key), key.encode("utf-8", "surrogatepass")
        hashes = self._arrays["index/hashes"]
        for row in range(int(hashes.searchsorted(np.int64(wanted))), len(hashes)):
            if hashes[row] != wanted:
                break
            image = int(self._arrays["index/places"][row])
            if self._bytes("keys", "key_offsets", image) == encoded:  # else two keys share a hash
                return image
        return None

    def _bytes(self, blob: str, offsets: str, index: int) -> bytes:
        start, end = self._arrays[offsets][index : index + 2]
        return self._arrays[blob][start:end].tobytes()

    def _text(self, blob: str, offsets: str, index: int) -> str:
        try:
            return self._bytes(blob, offsets, index).decode("utf-8")
        except UnicodeDecodeError as error:
            raise FileError(f"{self.folder / STORE} was altered: entry {index} of {blob!r} is not text.") from error


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not path.is_file():
        raise FileError(f"{folder} is not a text store: it has no {MANIFEST}. Build one with: tavq text DIR")
    return read_manifest(path, Manifest, FORMAT, "text store", "tavq text DIR")


def _check_tensors(path: Path, manifest: Manifest, tensors: MappedTensors) -> None:
    """Raise FileError unless the tensors belong to the manifest and are consistent.

    Reads offsets and ids once (about 30 MB for 100,000 images), so that no later lookup can leave its table.
    """
    stored = parse_json(tensors.metadata.get("contents", "null"), f"The header of {path}")
    if isinstance(stored, dict):
        stored = rename_settings(stored, Contents.RENAMED, warn=False)
    if stored != manifest.model_dump(include=set(Contents.model_fields)):
        raise FileError(f"{path} does not belong to the {MANIFEST} beside it; rebuild the store with: tavq text DIR")
    if set(manifest.units) != set(GRANULARITIES) or min(manifest.units.values()) < 0:
        raise FileError(f"{path.parent / MANIFEST} counts the units of {sorted(manifest.units)}, not {GRANULARITIES}.")
    keys = _check_dtype(path, tensors, "keys", "u1")
    _check_offsets(path, tensors, "key_offsets", manifest.images, len(keys))
    for name, dtype in (("text_hashes", "<i8"), ("index/hashes", "<i8"), ("index/places", "<i4")):
        _check_shape(path, tensors, name, dtype, (manifest.images,))
    images = np.asarray(tensors["index/places"])
    if len(images) and not 0 <= images.min() <= images.max() < manifest.images:
        raise FileError(f"{path} was altered: index/places is not below the number of images, {manifest.images}.")
    for name, count in manifest.units.items():
        text = _check_dtype(path, tensors, f"{name}/text", "u1")
        _check_offsets(path, tensors, f"{name}/text_offsets", count, len(text))
        _check_shape(path, tensors, f"{name}/vectors", _float_dtype(manifest), (count, manifest.encoder.width))
        ids = _check_dtype(path, tensors, f"{name}/ids", "<i4")
        _check_offsets(path, tensors, f"{name}/offsets", manifest.images, len(ids))
        if len(ids) and not (ids.min() >= 0 and ids.max() < count):
            raise FileError(f"{path} was altered: {name}/ids is not below the number of units, {count}.")
    if manifest.full_text:
        _check_full_text(path, manifest, tensors)


def _check_full_text(path: Path, manifest: Manifest, tensors: MappedTensors) -> None:
    dtype, width = _float_dtype(manifest), manifest.encoder.width
    total = len(_check_dtype(path, tensors, f"{TEXT_TABLE}/vectors", dtype, 2))
    count = len(_check_dtype(path, tensors, f"{TOKENS}/vectors", dtype, 2))
    for name, length in ((f"{TEXT_TABLE}/vectors", total), (f"{TOKENS}/vectors", count), (POOLED, manifest.images)):
        _check_shape(path, tensors, name, dtype, (length, width))
    _check_shape(path, tensors, f"{TOKENS}/numbers", "<i4", (count,))
    _check_offsets(path, tensors, f"{TEXT_TABLE}/offsets", manifest.images, total)
    text = _check_dtype(path, tensors, f"{TOKENS}/text", "u1")
    _check_offsets(path, tensors, f"{TOKENS}/text_offsets", count, len(text))
    ids = _check_dtype(path, tensors, TEXT_TABLE_IDS, "<i4")
    if len(ids) != total or (total and not 0 <= ids.min() <= ids.max() < count):
        raise FileError(f"{path} was altered: {TEXT_TABLE_IDS} is not below the number of tokens, {count}.")


def _float_dtype(contents: Contents) -> str:
    return "<f2" if contents.float16 else "<f4"


def _check_dtype(path: Path, tensors: MappedTensors, name: str, dtype: str, axes: int = 1) -> Array:
    array = np.asarray(tensors[name])
    if array.dtype != np.dtype(dtype) or array.ndim != axes:
        raise FileError(f"{path} was altered: {name} holds {array.dtype} of shape {array.shape}.")
    return array


def _check_shape(path: Path, tensors: MappedTensors, name: str, dtype: str, shape: tuple[int, ...]) -> None:
    found = _check_dtype(path, tensors, name, dtype, len(shape)).shape
    if found != shape:
        raise FileError(f"{path} was altered: {name} has shape {found}, expected {shape}.")


def _check_offsets(path: Path, tensors: MappedTensors, name: str, count: int, end: int) -> None:
    """Raise FileError unless `name` divides `end` items into `count` runs."""
    offsets = _check_dtype(path, tensors, name, "<i8")
    if len(offsets) != count + 1 or offsets[0] != 0 or offsets[-1] != end or (offsets[1:] < offsets[:-1]).any():
        raise FileError(f"{path} was altered: {name} does not divide {end} items into {count} parts.")
