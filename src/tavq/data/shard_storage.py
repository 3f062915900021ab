"""Reads members of shards by offset, so that any image can be read at any time without unpacking."""

import os
from dataclasses import dataclass, field

import numpy as np

from tavq.core.addresses import hide_secrets, is_remote
from tavq.core.errors import FileError, StorageError
from tavq.core.remote import FileState, read_range
from tavq.data.records import hash_name
from tavq.data.shard_index import shard_state
from tavq.data.storage import StoredFile
from tavq.data.tars import Span, unpack_sparse

OPEN_FILES = 64  # far below any system's limit for a process

MEMBER = np.dtype([("name", "<u8"), ("shard", "<u4"), ("sparse", "?"), ("start", "<u8"), ("size", "<u8")])
"""A file of a collection: the hash of its name, and where it is; 29 bytes."""


class ShardStorage:
    """The files of a collection of shards, by the hashes of their names.

    Args:
        addresses: of the shards.
        states: what they were when they were indexed.
        members: a table of MEMBER, in any order.
    """

    def __init__(self, addresses: list[str], states: list[FileState], members: np.ndarray) -> None:
        self.addresses, self.states = addresses, states
        self.members = np.sort(members, order="name")
        self._files = _OpenFiles()

    def file(self, name: str) -> StoredFile:
        """The file of this name; FileError if there is none."""
        self._find(name)
        return StoredFile(self, name)

    def read(self, name: str) -> bytes:
        """The bytes of the file of this name; StorageError where its shard fails."""
        member = self._find(name)
        data = self._read(int(member["shard"]), int(member["start"]), int(member["size"]))
        return unpack_sparse(data) if member["sparse"] else data

    def _find(self, name: str) -> np.void:
        key = np.uint64(hash_name(name))
        row = int(np.searchsorted(self.members["name"], key))
        if row == len(self.members) or self.members["name"][row] != key:
            raise FileError(f"No shard holds {name!r}.")
        found: np.void = self.members[row]
        return found

    def _read(self, shard: int, start: int, size: int) -> bytes:
        address = self.addresses[shard]
        if is_remote(address):
            return read_range(address, start, size)
        try:
            data = os.pread(self._files.open(address, self.states[shard]), size, start)
        except OSError as error:
            raise StorageError(f"{address} cannot be read: {error.strerror or error}.") from error
        if len(data) != size:
            raise StorageError(f"{address} changed while it was read: it is shorter than it was.")
        return data

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_files": _OpenFiles()}


@dataclass
class _OpenFiles:
    """The open shards of this machine; forked processes may share them, because no position is used."""

    handles: dict[str, int] = field(default_factory=dict)

    def open(self, address: str, state: FileState) -> int:
        """The handle of a shard; StorageError if it is not what was indexed."""
        if address in self.handles:
            return self.handles[address]
        if shard_state(address) != state:
            raise StorageError(f"{hide_secrets(address)} changed since it was indexed; start the command again.")
        while len(self.handles) >= OPEN_FILES:
            os.close(self.handles.pop(next(iter(self.handles))))
        self.handles[address] = os.open(address, os.O_RDONLY | os.O_CLOEXEC)
        return self.handles[address]

    def __del__(self) -> None:
        for handle in self.handles.values():
            os.close(handle)


def make_members(rows: list[tuple[str, int, Span]]) -> np.ndarray:
    """The table of files given as (name, shard, span)."""
    table = np.empty(len(rows), MEMBER)
    for row, (name, shard, span) in enumerate(rows):
        table[row] = (hash_name(name), shard, span.sparse, span.start, span.size)
    return table
