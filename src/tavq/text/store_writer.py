"""A text store that is being made: joins pieces into tables in which each distinct unit stands once.

A piece is a safetensors file with the units of some images: a block of split texts, or a whole store that is merged.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from tavq.core.errors import DataError, FileError
from tavq.core.files import read_json, replace_folder, sha256, write_json, write_json_lines
from tavq.core.mmap_tensors import MappedTensors, TensorFileWriter
from tavq.interfaces import GRANULARITIES, POOLED, TOKENS
from tavq.text.deduplication import Deduplicator
from tavq.text.splitting import text_hash
from tavq.text.store import FAULTS, MANIFEST, STORE, TEXT_TABLE, TEXT_TABLE_IDS, Array, Contents

STATE = "state.json"


class Table(NamedTuple):
    """Distinct texts, and where it is written which of them each image has."""

    name: str
    ids: str
    offsets: str


UNITS = tuple(Table(name, f"{name}/ids", f"{name}/offsets") for name in GRANULARITIES)
TOKEN_TABLE = Table(TOKENS, TEXT_TABLE_IDS, f"{TEXT_TABLE}/offsets")


def tables(full_text: bool) -> tuple[Table, ...]:
    """The tables of a store, with or without token-level text."""
    return (*UNITS, TOKEN_TABLE) if full_text else UNITS


STORE_FOLDER = "store"


class StoreWriter:
    """The store in a folder of its own, `store` in the working folder, until `finish` gives it its name.

    Everything but vectors is written when it is made; whoever made it writes the vectors and marks how far they are.
    """

    def __init__(self, work: Path, shapes: Mapping[str, Any], contents: Contents, done: Mapping[str, int]) -> None:
        self.folder = work / STORE_FOLDER
        self.state = work / STATE
        self.contents = contents
        self.shapes = shapes
        self.done = dict(done)
        """Rows of each tensor of vectors that were written."""
        self.file = TensorFileWriter(self.folder / STORE, shapes, {"contents": contents.model_dump_json()})

    @property
    def tensors(self) -> MappedTensors:
        """What was written so far."""
        return MappedTensors(self.folder / STORE)

    def mark(self, **rows: int) -> None:
        """Notes, once it is on the disk, how many `rows` of which tables have their vectors."""
        self.file.flush()
        self.done |= rows
        write_json(self.state, {"done": self.done, "shapes": self.shapes, "contents": self.contents.model_dump()})

    def finish(self, out: Path, faults: Iterator[tuple[str, str]]) -> None:
        """Puts the store in the place `out`, with the images that are not in it, or not whole, and why."""
        self.file.flush()
        path = self.folder / STORE
        write_json_lines(self.folder / FAULTS, ({"file_name": key, "reason": reason} for key, reason in faults))
        told = self.contents.model_dump() | {"bytes": path.stat().st_size, "sha256": sha256(path)}
        write_json(self.folder / MANIFEST, told)
        replace_folder(self.folder, out)


def resume_writer(work: Path, expected: Contents) -> StoreWriter | None:
    """The draft that an ended process left in `work`, where it is of the same texts; else None."""
    if not (work / STATE).is_file() or not (work / STORE_FOLDER / STORE).is_file():
        return None
    try:
        state = read_json(work / STATE)
        contents, done = Contents.model_validate(state["contents"]), dict(state["done"])
        shapes = {name: (kind, list(shape)) for name, (kind, shape) in state["shapes"].items()}
    except (FileError, ValidationError, KeyError, TypeError, ValueError, AttributeError):  # altered: it is made again
        return None
    if contents.model_copy(update={"images": 0, "units": {}}) != expected:
        return None
    draft = StoreWriter(work, shapes, contents, done)
    if draft.file.is_new:
        draft.file.close()
        return None
    return draft


def start_writer(work: Path, pieces: Sequence[Path], contents: Contents, copy_vectors: bool = False) -> StoreWriter:
    """A draft of the images of all pieces, in their order; with their vectors where they have such.

    `contents` is completed by the counts. Memory: a piece, and 32 bytes an image.

    Raises DataError where an image is in two pieces, or twice in one.
    """
    (work / STATE).unlink(missing_ok=True)
    chosen = tables(contents.full_text)
    sizes = _Sizes.of(pieces, chosen)
    with ExitStack() as opened:
        numberings = {}
        for table in chosen:
            numbering = Deduplicator(work / f"unique-{table.name}", sum(sizes.units(table)))
            numberings[table.name] = opened.enter_context(closing(numbering))
            _number(numbering, pieces, table)
        shapes, counted = _shapes(contents, sizes, numberings, pieces)
        (work / STORE_FOLDER).mkdir(parents=True, exist_ok=True)
        (work / STORE_FOLDER / STORE).unlink(missing_ok=True)
        draft = StoreWriter(work, shapes, counted, {})
        with ExitStack() as failed:
            failed.callback(draft.file.close)
            _fill(draft, pieces, sizes, numberings, copy_vectors)
            draft.mark()
            failed.pop_all()
    return draft


class _Sizes(NamedTuple):
    """Of each tensor the rows that each piece has."""

    rows: dict[str, list[int]]

    @classmethod
    def of(cls, pieces: Sequence[Path], chosen: Sequence[Table]) -> "_Sizes":
        names = ["keys", "text_hashes", *(table.ids for table in chosen), *(f"{t.name}/text_offsets" for t in chosen)]
        rows: dict[str, list[int]] = {name: [] for name in names}
        for piece in pieces:
            tensors = MappedTensors(piece)
            for name in names:
                rows[name].append(len(tensors[name]))
        return cls(rows)

    def units(self, table: Table) -> list[int]:
        """The distinct texts of each piece."""
        return [rows - 1 for rows in self.rows[f"{table.name}/text_offsets"]]


def _number(numbering: Deduplicator, pieces: Sequence[Path], table: Table) -> None:
    for piece in pieces:
        tensors = MappedTensors(piece)
        numbering.add(np.asarray(tensors[f"{table.name}/text"]), np.asarray(tensors[f"{table.name}/text_offsets"]))
    numbering.solve()


def _shapes(
    contents: Contents, sizes: _Sizes, numberings: Mapping[str, Deduplicator], pieces: Sequence[Path]
) -> tuple[dict[str, Any], Contents]:
    """The tensors of the store and its contents with what was counted."""
    images = sum(sizes.rows["text_hashes"])
    width, real = contents.encoder.width, "<f2" if contents.float16 else "<f4"
    shapes: dict[str, Any] = {
        "keys": ("u1", [sum(sizes.rows["keys"])]),
        "key_offsets": ("<i8", [images + 1]),
        "text_hashes": ("<i8", [images]),
        "index/hashes": ("<i8", [images]),
        "index/places": ("<i4", [images]),
    }
    for table in tables(contents.full_text):
        count = numberings[table.name].count
        occurrences = sum(sizes.rows[table.ids])
        shapes |= {
            f"{table.name}/text": ("u1", [_bytes_of_new(pieces, table, sizes, numberings[table.name])]),
            f"{table.name}/text_offsets": ("<i8", [count + 1]),
            f"{table.name}/vectors": (real, [count, width]),
            table.ids: ("<i4", [occurrences]),
            table.offsets: ("<i8", [images + 1]),
        }
        if table is TOKEN_TABLE:
            shapes |= {
                f"{TOKENS}/numbers": ("<i4", [count]),
                f"{TEXT_TABLE}/vectors": (real, [occurrences, width]),
                POOLED: (real, [images, width]),
            }
    units = {name: numberings[name].count for name in GRANULARITIES}
    return shapes, contents.model_copy(update={"images": images, "units": units})


def _new(
    pieces: Sequence[Path], table: Table, sizes: Sequence[int], numbering: Deduplicator
) -> Iterator[tuple[MappedTensors, Array, Array]]:
    """Each piece with the numbers of its distinct texts, and which of these no piece before it has."""
    start = known = 0
    for piece, count in zip(pieces, sizes, strict=True):
        numbers = numbering.ids(start, start + count)
        new = numbers >= known  # numbers follow the order of first appearance, so that new ones are the next ones
        yield MappedTensors(piece), numbers, new
        start += count
        known += int(new.sum())


def _bytes_of_new(pieces: Sequence[Path], table: Table, sizes: _Sizes, numbering: Deduplicator) -> int:
    found = _new(pieces, table, sizes.units(table), numbering)
    return sum(int(np.diff(tensors[f"{table.name}/text_offsets"])[new].sum()) for tensors, _, new in found)


def _fill(
    draft: StoreWriter,
    pieces: Sequence[Path],
    sizes: "_Sizes",
    numberings: Mapping[str, Deduplicator],
    copy_vectors: bool,
) -> None:
    """Writes everything that the pieces hold."""
    hashes, key_hashes = _write_images(draft, pieces, copy_vectors and draft.contents.full_text)
    for table in tables(draft.contents.full_text):
        found = _new(pieces, table, sizes.units(table), numberings[table.name])
        _write_table(draft, table, found, copy_vectors)
    order = np.argsort(key_hashes, kind="stable")
    draft.file.write("text_hashes", 0, hashes)
    draft.file.write("index/hashes", 0, key_hashes[order])
    draft.file.write("index/places", 0, order.astype(np.int32))
    draft.file.flush()
    _check_keys(draft.tensors, key_hashes[order], order)


def _write_images(draft: StoreWriter, pieces: Sequence[Path], copy_vectors: bool) -> tuple[Array, Array]:
    """Writes keys and, of stores, what they have of each image; the hashes of all texts and of all keys."""
    hashes, key_hashes = [], []
    byte = image = token = 0
    for piece in pieces:
        tensors = MappedTensors(piece)
        keys, offsets = np.asarray(tensors["keys"]), np.asarray(tensors["key_offsets"])
        draft.file.write("keys", byte, keys)
        draft.file.write("key_offsets", image, offsets + byte)
        hashes.append(np.array(tensors["text_hashes"]))
        key_hashes.append(np.array([text_hash(key) for key in texts_of(keys, offsets)], np.int64))
        if copy_vectors:
            draft.file.write(POOLED, image, tensors[POOLED])
            draft.file.write(f"{TEXT_TABLE}/vectors", token, tensors[f"{TEXT_TABLE}/vectors"])
            token += len(tensors[f"{TEXT_TABLE}/vectors"])
        byte += len(keys)
        image += len(offsets) - 1
    return np.concatenate(hashes), np.concatenate(key_hashes)


def _write_table(
    draft: StoreWriter, table: Table, found: Iterator[tuple[MappedTensors, Array, Array]], copy_vectors: bool
) -> None:
    name = table.name
    image = occurrence = row = byte = 0
    for tensors, numbers, new in found:
        ids, offsets = np.asarray(tensors[table.ids]), np.asarray(tensors[table.offsets])
        draft.file.write(table.ids, occurrence, numbers[ids])
        draft.file.write(table.offsets, image, offsets + occurrence)
        text_offsets = np.asarray(tensors[f"{name}/text_offsets"])
        lengths = np.diff(text_offsets)
        draft.file.write(f"{name}/text", byte, np.asarray(tensors[f"{name}/text"])[np.repeat(new, lengths)])
        ends = byte + np.cumsum(lengths[new])
        draft.file.write(f"{name}/text_offsets", row + 1, ends)
        if table is TOKEN_TABLE:
            draft.file.write(f"{name}/numbers", row, np.asarray(tensors[f"{name}/numbers"])[new])
        if copy_vectors:
            draft.file.write(f"{name}/vectors", row, np.asarray(tensors[f"{name}/vectors"])[new])
        image += len(offsets) - 1
        occurrence += len(ids)
        row += int(new.sum())
        byte = int(ends[-1]) if len(ends) else byte


def texts_of(text: Array, offsets: Array) -> list[str]:
    """The texts that stand in one run of bytes."""
    data, places = text.tobytes(), (offsets - offsets[0]).tolist()
    return [data[start:end].decode("utf-8") for start, end in itertools.pairwise(places)]


def _check_keys(tensors: MappedTensors, hashes: Array, places: Array) -> None:
    """Raises DataError where two keys are equal."""
    keys, offsets = tensors["keys"], tensors["key_offsets"]

    def key(place: int) -> bytes:
        return keys[offsets[place] : offsets[place + 1]].tobytes()

    seen: set[bytes] = set()
    last = -2
    for row in np.flatnonzero(hashes[1:] == hashes[:-1]).tolist():
        seen = seen if row == last + 1 else {key(int(places[row]))}
        following, last = key(int(places[row + 1])), row
        if following in seen:  # else their hashes agree by chance
            raise DataError(f"The key {following.decode()!r} comes twice.")
        seen.add(following)
