"""Writes a text store: merges blocks of split texts into tables in which each distinct unit occurs once.

A part is a safetensors file with the units of some images: a block of split texts, or a complete store to merge.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from tavq.core.errors import DataError, FileError, UsageError
from tavq.core.files import MAX_JSON, read_json, replace_folder, sha256, write_json, write_json_lines
from tavq.core.mmap_tensors import MappedTensors, TensorFileWriter
from tavq.core.temporary import remove_leftovers_of
from tavq.interfaces import GRANULARITIES, POOLED, TOKENS
from tavq.text.deduplication import Deduplicator
from tavq.text.splitting import hash_text
from tavq.text.store import FAULTS, MANIFEST, STORE, TEXT_TABLE, TEXT_TABLE_IDS, Array, Contents

STATE = "state.json"
STORE_FOLDER = "store"


class Table(NamedTuple):
    """Distinct texts, and the tensors that say which of them each image has."""

    name: str
    ids: str
    offsets: str


UNITS = tuple(Table(name, f"{name}/ids", f"{name}/offsets") for name in GRANULARITIES)
TOKEN_TABLE = Table(TOKENS, TEXT_TABLE_IDS, f"{TEXT_TABLE}/offsets")


def list_tables(full_text: bool) -> tuple[Table, ...]:
    """The tables of a store, with or without token-level text."""
    return (*UNITS, TOKEN_TABLE) if full_text else UNITS


def check_out(out: Path) -> None:
    """Raise UsageError if `out` is something that a store must not replace."""
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file()):
        raise UsageError(f"{out} exists and is not a text store; nothing was replaced. Choose another --out.")
    remove_leftovers_of(out)


class StoreWriter:
    """A store in the working folder until `finish` moves it to its place.

    Everything but the vectors is written when the writer is created; the caller writes the vectors and marks progress.
    """

    def __init__(self, work: Path, shapes: Mapping[str, Any], contents: Contents, done: Mapping[str, int]) -> None:
        self.folder = work / STORE_FOLDER
        self.state = work / STATE
        self.contents = contents
        self.shapes = shapes
        self.done = dict(done)
        """Vectors written so far, by table."""
        self.file = TensorFileWriter(self.folder / STORE, shapes, {"contents": contents.model_dump_json()})

    @property
    def tensors(self) -> MappedTensors:
        """What was written so far."""
        return MappedTensors(self.folder / STORE)

    def mark(self, **counts: int) -> None:
        """Record how many vectors of which tables are safely on the disk."""
        self.file.flush()
        self.done |= counts
        write_json(self.state, {"done": self.done, "shapes": self.shapes, "contents": self.contents.model_dump()})

    def finish(self, out: Path, faults: Iterator[tuple[str, str]]) -> None:
        """Move the store to `out`, with the list of images that are missing or whose text was cut.

        Raises UsageError where `out` holds something else than a store.
        """
        self.file.flush()
        path = self.folder / STORE
        write_json_lines(self.folder / FAULTS, ({"file_name": key, "reason": reason} for key, reason in faults))
        manifest = self.contents.model_dump() | {"bytes": path.stat().st_size, "sha256": sha256(path)}
        write_json(self.folder / MANIFEST, manifest)
        check_out(out)  # again, because another process may have written something else there
        replace_folder(self.folder, out)


def resume_writer(work: Path, expected: Contents) -> StoreWriter | None:
    """The writer that a killed process left in `work`; None if there is none, or one of other texts."""
    if not (work / STATE).is_file() or not (work / STORE_FOLDER / STORE).is_file():
        return None
    try:
        state = read_json(work / STATE, MAX_JSON)
        contents, done = Contents.model_validate(state["contents"]), dict(state["done"])
        shapes = {name: (kind, list(shape)) for name, (kind, shape) in state["shapes"].items()}
    except (FileError, ValidationError, KeyError, TypeError, ValueError, AttributeError):  # altered: start over
        return None
    if contents.model_copy(update={"images": 0, "units": {}}) != expected:
        return None
    writer = StoreWriter(work, shapes, contents, done)
    if writer.file.is_new:
        writer.file.close()
        return None
    return writer


def start_writer(work: Path, parts: Sequence[Path], contents: Contents, copy_vectors: bool = False) -> StoreWriter:
    """A writer for the images of all parts, in their order, with everything but the vectors written.

    Memory: one part, and 32 bytes per image.

    Args:
        work: the working folder.
        parts: files of split texts, or of stores.
        contents: completed by what is counted.
        copy_vectors: the parts are stores, whose vectors are copied.

    Raises DataError if an image is in two parts, or twice in one.
    """
    (work / STATE).unlink(missing_ok=True)
    tables = list_tables(contents.full_text)
    lengths = _Lengths.read(parts, tables)
    with ExitStack() as opened:
        deduplicators = {}
        for table in tables:
            deduplicator = Deduplicator(work / f"unique-{table.name}", sum(lengths.units(table)))
            deduplicators[table.name] = opened.enter_context(closing(deduplicator))
            _assign_ids(deduplicator, parts, table)
        shapes, counted = _plan_tensors(contents, lengths, deduplicators, parts)
        (work / STORE_FOLDER).mkdir(parents=True, exist_ok=True)
        (work / STORE_FOLDER / STORE).unlink(missing_ok=True)
        writer = StoreWriter(work, shapes, counted, {})
        with ExitStack() as on_error:
            on_error.callback(writer.file.close)
            _fill(writer, parts, lengths, deduplicators, copy_vectors)
            writer.mark()
            on_error.pop_all()
    return writer


class _Lengths(NamedTuple):
    """The length of each tensor in each part."""

    lengths: dict[str, list[int]]

    @classmethod
    def read(cls, parts: Sequence[Path], tables: Sequence[Table]) -> "_Lengths":
        names = ["keys", "text_hashes", *(table.ids for table in tables)]
        names += [f"{table.name}/text_offsets" for table in tables]
        lengths: dict[str, list[int]] = {name: [] for name in names}
        for part in parts:
            tensors = MappedTensors(part)
            for name in names:
                lengths[name].append(len(tensors[name]))
        return cls(lengths)

    def total(self, name: str) -> int:
        """The length of a tensor in all parts together."""
        return sum(self.lengths[name])

    def units(self, table: Table) -> list[int]:
        """The number of distinct texts of each part."""
        return [length - 1 for length in self.lengths[f"{table.name}/text_offsets"]]


def _assign_ids(deduplicator: Deduplicator, parts: Sequence[Path], table: Table) -> None:
    for part in parts:
        tensors = MappedTensors(part)
        text, offsets = tensors[f"{table.name}/text"], tensors[f"{table.name}/text_offsets"]
        deduplicator.add(np.asarray(text), np.asarray(offsets))
    deduplicator.solve()


def _plan_tensors(
    contents: Contents, lengths: _Lengths, deduplicators: Mapping[str, Deduplicator], parts: Sequence[Path]
) -> tuple[dict[str, Any], Contents]:
    """Dtype and shape of every tensor of the store, and its contents with what was counted."""
    images = lengths.total("text_hashes")
    width, dtype = contents.encoder.width, "<f2" if contents.float16 else "<f4"
    shapes: dict[str, Any] = {
        "keys": ("u1", [lengths.total("keys")]),
        "key_offsets": ("<i8", [images + 1]),
        "text_hashes": ("<i8", [images]),
        "index/hashes": ("<i8", [images]),
        "index/places": ("<i4", [images]),
    }
    for table in list_tables(contents.full_text):
        count = deduplicators[table.name].count
        occurrences = lengths.total(table.ids)
        shapes |= {
            f"{table.name}/text": ("u1", [_count_new_bytes(parts, table, lengths, deduplicators[table.name])]),
            f"{table.name}/text_offsets": ("<i8", [count + 1]),
            f"{table.name}/vectors": (dtype, [count, width]),
            table.ids: ("<i4", [occurrences]),
            table.offsets: ("<i8", [images + 1]),
        }
        if table is TOKEN_TABLE:
            shapes |= {
                f"{TOKENS}/numbers": ("<i4", [count]),
                f"{TEXT_TABLE}/vectors": (dtype, [occurrences, width]),
                POOLED: (dtype, [images, width]),
            }
    units = {name: deduplicators[name].count for name in GRANULARITIES}
    return shapes, contents.model_copy(update={"images": images, "units": units})


PartIds = tuple[MappedTensors, Array, Array]
"""A part, the ids of its distinct texts, and whether each of them is new: in no part before."""


def _iterate_ids(
    parts: Sequence[Path], table: Table, lengths: _Lengths, deduplicator: Deduplicator
) -> Iterator[PartIds]:
    start = known = 0
    for part, count in zip(parts, lengths.units(table), strict=True):
        ids = deduplicator.ids(start, start + count)
        is_new = ids >= known  # ids follow the order of first appearance
        yield MappedTensors(part), ids, is_new
        start += count
        known += int(is_new.sum())


def _count_new_bytes(parts: Sequence[Path], table: Table, lengths: _Lengths, deduplicator: Deduplicator) -> int:
    found = _iterate_ids(parts, table, lengths, deduplicator)
    return sum(int(np.diff(tensors[f"{table.name}/text_offsets"])[is_new].sum()) for tensors, _, is_new in found)


def _fill(
    writer: StoreWriter,
    parts: Sequence[Path],
    lengths: _Lengths,
    deduplicators: Mapping[str, Deduplicator],
    copy_vectors: bool,
) -> None:
    """Write everything that the parts hold."""
    hashes, key_hashes = _write_images(writer, parts, copy_vectors and writer.contents.full_text)
    for table in list_tables(writer.contents.full_text):
        found = _iterate_ids(parts, table, lengths, deduplicators[table.name])
        _write_table(writer, table, found, copy_vectors)
    order = np.argsort(key_hashes, kind="stable")
    writer.file.write("text_hashes", 0, hashes)
    writer.file.write("index/hashes", 0, key_hashes[order])
    writer.file.write("index/places", 0, order.astype(np.int32))
    writer.file.flush()
    _check_keys(writer.tensors, key_hashes[order], order)


def _write_images(writer: StoreWriter, parts: Sequence[Path], copy_vectors: bool) -> tuple[Array, Array]:
    """Write the keys, and with `copy_vectors` the full texts; returns the hashes of all texts and of all keys."""
    hashes, key_hashes = [], []
    byte = image = token = 0
    for part in parts:
        tensors = MappedTensors(part)
        keys, offsets = np.asarray(tensors["keys"]), np.asarray(tensors["key_offsets"])
        writer.file.write("keys", byte, keys)
        writer.file.write("key_offsets", image, offsets + byte)
        hashes.append(np.array(tensors["text_hashes"]))
        key_hashes.append(np.array([hash_text(key) for key in split_bytes(keys, offsets)], np.int64))
        if copy_vectors:
            writer.file.write(POOLED, image, tensors[POOLED])
            writer.file.write(f"{TEXT_TABLE}/vectors", token, tensors[f"{TEXT_TABLE}/vectors"])
            token += len(tensors[f"{TEXT_TABLE}/vectors"])
        byte += len(keys)
        image += len(offsets) - 1
    return np.concatenate(hashes), np.concatenate(key_hashes)


def _write_table(writer: StoreWriter, table: Table, found: Iterator[PartIds], copy_vectors: bool) -> None:
    name = table.name
    image = occurrence = unit = byte = 0  # where each kind of entry of the next part goes
    for tensors, unique_ids, is_new in found:
        ids, offsets = np.asarray(tensors[table.ids]), np.asarray(tensors[table.offsets])
        writer.file.write(table.ids, occurrence, unique_ids[ids])
        writer.file.write(table.offsets, image, offsets + occurrence)
        lengths = np.diff(np.asarray(tensors[f"{name}/text_offsets"]))
        writer.file.write(f"{name}/text", byte, np.asarray(tensors[f"{name}/text"])[np.repeat(is_new, lengths)])
        ends = byte + np.cumsum(lengths[is_new])
        writer.file.write(f"{name}/text_offsets", unit + 1, ends)
        if table is TOKEN_TABLE:
            writer.file.write(f"{name}/numbers", unit, np.asarray(tensors[f"{name}/numbers"])[is_new])
        if copy_vectors:
            writer.file.write(f"{name}/vectors", unit, np.asarray(tensors[f"{name}/vectors"])[is_new])
        image += len(offsets) - 1
        occurrence += len(ids)
        unit += int(is_new.sum())
        byte = int(ends[-1]) if len(ends) else byte


def split_bytes(text: Array, offsets: Array) -> list[str]:
    """The texts that are concatenated in an array of bytes."""
    data, bounds = text.tobytes(), (offsets - offsets[0]).tolist()
    return [data[start:end].decode("utf-8") for start, end in itertools.pairwise(bounds)]


def _check_keys(tensors: MappedTensors, hashes: Array, images: Array) -> None:
    """Raise DataError if two keys are equal; `hashes` are sorted, and `images` are the images they belong to."""
    keys, offsets = tensors["keys"], tensors["key_offsets"]

    def read_key(image: int) -> bytes:
        return keys[offsets[image] : offsets[image + 1]].tobytes()

    seen: set[bytes] = set()
    last = -2
    for row in np.flatnonzero(hashes[1:] == hashes[:-1]).tolist():
        if row != last + 1:  # another hash begins
            seen = {read_key(int(images[row]))}
        key, last = read_key(int(images[row + 1])), row
        if key in seen:  # otherwise the hashes collide
            raise DataError(f"The key {key.decode()!r} occurs twice.")
        seen.add(key)
