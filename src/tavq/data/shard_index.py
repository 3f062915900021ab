"""What a shard holds and where: read from its headers once, and kept in the user's cache for as long as it is the same.

One file a shard, named by the shard's address. Its first line has the shard's size and the time of its last change (or
its ETag), and the hash of the other lines, one a sample. It is written atomically, so that indexing a collection goes
on where it was stopped, and processes that start together share the work.
"""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tavq.core.addresses import cache_folder, hide_secrets, is_remote
from tavq.core.errors import FileError, StorageError, TavqError
from tavq.core.files import parse_json, read_bytes, write_bytes
from tavq.core.remote import FileState, open_stream, read_state, retry
from tavq.data.foreign_text import decode_foreign
from tavq.data.samples import IndexedSample, index_samples
from tavq.data.tars import Span, iter_members

FORMAT = 1
THREADS = 8
"""Shards of a remote storage that are indexed at once."""

_logger = logging.getLogger("tavq")


@dataclass(frozen=True)
class ShardEntry:
    """A shard and its samples.

    Attributes:
        address: where it is.
        state: of the file that was indexed.
        sha256: of the samples, whatever the address and the time.
        lines: one for each sample, see `parse_sample`.
    """

    address: str
    state: FileState
    sha256: str
    lines: tuple[bytes, ...]


@dataclass(frozen=True)
class StoredSample:
    """One sample of a shard, as it is kept."""

    key: str
    suffix: str
    image: Span | None
    segmentation: Span | None
    json: str | None
    text: str | None
    images_too_large: int
    parts_too_large: int
    more_images: int


def parse_sample(line: bytes) -> StoredSample:
    """Read a sample from its line."""
    fields = parse_json(line.decode("ascii"), "A sample of the index of a shard")
    image, segmentation = (None if span is None else Span(*span) for span in fields[2:4])
    return StoredSample(fields[0], fields[1], image, segmentation, *fields[4:])


def _to_line(sample: IndexedSample) -> bytes:
    json_text, text = (None if part is None else decode_foreign(part) for part in (sample.json, sample.text))
    fields = [
        sample.key, sample.suffix, sample.image, sample.segmentation, json_text, text, sample.images_too_large,
        sample.parts_too_large, sample.more_images,
    ]  # fmt: skip
    # ASCII, because the name of a member may hold half of a surrogate pair
    return json.dumps(fields).encode("ascii")


def index_shards(addresses: Sequence[str], first: int = 0) -> list[ShardEntry]:
    """Index shards, or read what is kept of them.

    Args:
        addresses: of the shards.
        first: the shard to begin with; processes that begin with different ones share the work.

    Raises:
        DataError: a shard is truncated, or is not a tar file.
        StorageError: a shard cannot be read.
    """
    remote = bool(addresses) and is_remote(addresses[0])
    with ThreadPoolExecutor(THREADS if remote else 1) as pool:
        states = list(pool.map(shard_state, addresses))
        pairs = list(zip(addresses, states, strict=True))
        known = [_read_kept(address, state) for address, state in pairs]
        missing = [index for index, entry in enumerate(known) if entry is None]
        if missing:
            _logger.info("%s", f"Indexing {len(missing):,} of {len(addresses):,} shards, which is done once.")
        start = next((position for position, index in enumerate(missing) if index >= first), 0)
        order = missing[start:] + missing[:start]
        for index, entry in zip(order, pool.map(lambda index: _index_kept(*pairs[index]), order), strict=True):
            known[index] = entry
    return [entry for entry in known if entry is not None]


def shard_state(address: str) -> FileState:
    """The size of a shard, and what changes with its content."""
    if is_remote(address):
        return read_state(address)
    try:
        found = os.stat(address)
    except OSError as error:
        raise StorageError(f"{address} cannot be read: {error.strerror or error}.") from error
    return FileState(found.st_size, str(found.st_mtime_ns))


def _index_kept(address: str, state: FileState) -> ShardEntry:
    """Index a shard that another process may have indexed meanwhile."""
    entry = _read_kept(address, state)
    if entry is not None:
        return entry
    with _open_shard(address) as file:
        shown = hide_secrets(address)
        lines = tuple(map(_to_line, index_samples(shown, iter_members(shown, file))))
    digest = hashlib.sha256(b"\n".join(lines)).hexdigest()
    if shard_state(address) != state:
        raise StorageError(f"{shown} changed while it was indexed; start again once it is written.")
    entry = ShardEntry(address, state, digest, lines)
    _keep(entry)
    return entry


@contextlib.contextmanager
def _open_shard(address: str) -> Iterator[Any]:
    if not is_remote(address):
        try:
            file: BinaryIO = open(address, "rb")  # noqa: SIM115  # closed below
        except OSError as error:
            raise StorageError(f"{address} cannot be read: {error.strerror or error}.") from error
        with file:
            yield file
        return
    with contextlib.closing(_RemoteFile(address)) as remote:
        yield remote


class _RemoteFile:
    """A remote file, each read of which is tried again where the network fails."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._file = retry(address, lambda: open_stream(address))

    def read(self, size: int = -1) -> bytes:
        """Read `size` bytes, or up to the end."""
        position = self._file.tell()

        def attempt() -> bytes:
            self._file.seek(position)
            return bytes(self._file.read(size))

        return retry(self._address, attempt)

    def seek(self, position: int, whence: int = 0) -> int:
        """Go to a position."""
        return int(self._file.seek(position, whence))

    def tell(self) -> int:
        """The position."""
        return int(self._file.tell())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


# --- the cache --------------------------------------------------------------------------------------------------


def _kept_at(address: str) -> Path:
    return cache_folder() / "shards" / f"{hashlib.sha256(hide_secrets(address).encode()).hexdigest()[:32]}.jsonl"


def _keep(entry: ShardEntry) -> None:
    head = {"format": FORMAT, "shard": hide_secrets(entry.address), "size": entry.state.size}
    head |= {"stamp": entry.state.stamp, "sha256": entry.sha256}
    path = _kept_at(entry.address)
    try:
        write_bytes(path, b"\n".join([json.dumps(head).encode(), *entry.lines]))
    except FileError as error:
        _logger.warning("%s", f"{error} The index of the shards is not kept; set TAVQ_CACHE to a folder for it.")


def _read_kept(address: str, state: FileState) -> ShardEntry | None:
    """What is kept of a shard; None if it is another shard by now, or the file is damaged."""
    try:
        first, *lines = read_bytes(_kept_at(address)).split(b"\n")
        head = parse_json(first.decode("ascii"), "The index of a shard")
        digest = hashlib.sha256(b"\n".join(lines)).hexdigest()
        same = (head["format"], head["size"], head["stamp"], head["sha256"]) == (
            FORMAT, state.size, state.stamp, digest
        )  # fmt: skip
    except (TavqError, ValueError, KeyError, TypeError):
        return None
    return ShardEntry(address, state, digest, tuple(lines)) if same else None
