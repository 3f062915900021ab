"""Edits of the codes of an image, and the strings that hold them."""

import base64
import binascii
import hashlib
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from tavq.explore.errors import BadRequest
from tavq.explore.requests import MAX_SHARE, Copy, Open, Operation, Paint, Remove, RemoveCode, Replace, Swap

Codes = Int[np.ndarray, "h w c"]
"""A deep grid, codes counted through all parts."""

SHARE_VERSION = 1
HEADER = struct.Struct("<B12sH")
"""Version, the first bytes of the model's hash, and the length of the image's id."""

MAX_BYTES = 1 << 20
"""Of an unpacked share string."""

KEY_BYTES = 8
"""Of the hash of an image's file name."""


@dataclass(frozen=True)
class Editor:
    """Applies operations to a deep grid.

    Args:
        part_of: the part of each code.
        read: the grid of another image, by its id.
        open: the grid after the edit of a share string.
    """

    part_of: Int[np.ndarray, " k"]
    read: Callable[[str], Codes]
    open: Callable[[str], Codes]

    def apply(self, codes: Codes, operations: Sequence[Operation]) -> Codes:
        """The grid after all operations, in order. Raises BadRequest where one names a code or position too many."""
        edited = codes.copy()
        for operation in operations:
            edited = self._apply(edited, operation)
        return edited

    def _apply(self, codes: Codes, operation: Operation) -> Codes:
        if isinstance(operation, Paint):
            cells = self._cells(codes, operation.cells)
            codes[cells, self._part(operation.code)] = operation.code
        elif isinstance(operation, Remove):
            return remove_cells(codes, self._cells(codes, operation.cells))
        elif isinstance(operation, RemoveCode):
            self._part(operation.code)
            return remove_code(codes, np.ones(codes.shape[:2], bool), self.part_of, operation.code)
        elif isinstance(operation, Replace):
            self._check_same_part(operation.code, operation.by)
            codes[codes == operation.code] = operation.by
        elif isinstance(operation, Swap):
            self._check_same_part(operation.first, operation.second)
            first, second = codes == operation.first, codes == operation.second
            codes[first], codes[second] = operation.second, operation.first
        elif isinstance(operation, Open):
            return self.open(operation.share)
        else:
            _copy(codes, codes.copy() if operation.image is None else self.read(operation.image), operation)
        return codes

    def _part(self, code: int) -> int:
        if code >= len(self.part_of):
            raise BadRequest(f"There is no code {code}; codes are 0 to {len(self.part_of) - 1}.")
        return int(self.part_of[code])

    def _check_same_part(self, first: int, second: int) -> None:
        if self._part(first) != self._part(second):
            raise BadRequest(f"Codes {first} and {second} are of different parts of the codebook; choose two of one.")

    def _cells(self, codes: Codes, cells: Sequence[tuple[int, int]]) -> Bool[np.ndarray, "h w"]:
        chosen = np.zeros(codes.shape[:2], bool)
        for row, column in cells:
            if row >= codes.shape[0] or column >= codes.shape[1]:
                raise BadRequest(
                    f"There is no position {row}, {column}; the grid has {codes.shape[0]} x {codes.shape[1]}."
                )
            chosen[row, column] = True
        return chosen


def _copy(codes: Codes, source: Codes, operation: Copy) -> None:
    if source.shape[2] != codes.shape[2]:
        raise BadRequest("The two images have a different number of codes at a position.")
    block = source[operation.row : operation.row + operation.height, operation.column :][:, : operation.width]
    if not block.size or operation.to_row >= codes.shape[0] or operation.to_column >= codes.shape[1]:
        raise BadRequest("The rectangle to copy, or where it should go, lies outside the grid.")
    target = codes[operation.to_row :, operation.to_column :][: block.shape[0], : block.shape[1]]
    target[:] = block[: target.shape[0], : target.shape[1]]


def remove_code(codes: Codes, cells: Bool[np.ndarray, "h w"], part_of: Int[np.ndarray, " k"], code: int) -> Codes:
    """Replace a code in some cells by the code of its part most frequent around each; other parts stay."""
    if code >= len(part_of):
        raise BadRequest(f"There is no code {code}; codes are 0 to {len(part_of) - 1}.")
    part = int(part_of[code])
    edited = codes.copy()
    edited[:, :, part] = _fill(codes[:, :, part], cells & (codes[:, :, part] == code))
    return edited


def remove_cells(codes: Codes, cells: Bool[np.ndarray, "h w"]) -> Codes:
    """Replace all codes of some cells by those most frequent around them, part by part."""
    return np.stack([_fill(codes[:, :, part], cells) for part in range(codes.shape[2])], axis=2)


def _fill(grid: Int[np.ndarray, "h w"], holes: Bool[np.ndarray, "h w"]) -> Int[np.ndarray, "h w"]:
    """Fill holes from their border inwards, each with the code most frequent among its eight neighbours.

    Of equally frequent ones the smallest is taken. A grid of holes only stays as it is.
    """
    filled, left = grid.copy(), holes.copy()
    while left.any() and not left.all():
        known, values = ~left, filled.copy()
        for row, column in np.argwhere(left).tolist():
            near = slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2)
            around = values[near][known[near]]
            if len(around):
                found, counts = np.unique(around, return_counts=True)
                filled[row, column] = found[counts.argmax()]
                left[row, column] = False
    return filled


# --- share strings ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SharedEdit:
    """What a share string holds: a model, an image, and the codes that differ from its own.

    Attributes:
        model: the first 12 bytes of the SHA-256 of the model's weights.
        image: its id.
        key: a hash of its file name, so that another data set is found out.
        places: positions in the flat grid.
        codes: the code at each of them.
    """

    model: bytes
    image: str
    key: bytes
    places: Int[np.ndarray, " e"]
    codes: Int[np.ndarray, " e"]

    def apply(self, grid: Codes, part_of: Int[np.ndarray, " k"]) -> Codes:
        """The edited grid; BadRequest where the edit does not fit it."""
        flat, parts = grid.copy().ravel(), grid.shape[2]
        inside = len(self.places) == 0 or (self.places.max() < flat.size and self.codes.max() < len(part_of))
        if not inside or (part_of[self.codes] != self.places % parts).any():
            raise BadRequest("The share string does not fit this model's grid; it was altered.")
        flat[self.places] = self.codes
        return flat.reshape(grid.shape)


def hash_key(file_name: str) -> bytes:
    """The hash of a file name in share strings."""
    return hashlib.blake2b(file_name.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


def pack_edit(sha256: str, image: str, file_name: str, before: Codes, after: Codes) -> str:
    """The share string of an edited grid; BadRequest where it would be too long."""
    places = np.flatnonzero(before.ravel() != after.ravel())
    name = image.encode()
    steps = np.diff(places, prepend=0).astype("<u4")
    body = name + hash_key(file_name) + steps.tobytes() + after.ravel()[places].astype("<u4").tobytes()
    packed = zlib.compress(HEADER.pack(SHARE_VERSION, bytes.fromhex(sha256[:24]), len(name)) + body, 9)
    share = base64.urlsafe_b64encode(packed).decode().rstrip("=")
    if len(share) > MAX_SHARE:
        raise BadRequest(f"The edit changes {len(places)} codes, more than a share string of {MAX_SHARE} holds.")
    return share


def unpack_edit(share: str) -> SharedEdit:
    """What a share string holds; BadRequest where it is not one."""
    try:
        packed = base64.b64decode(share + "=" * (-len(share) % 4), altchars=b"-_", validate=True)
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(packed, MAX_BYTES)
        version, model, length = HEADER.unpack_from(data)
        body = data[HEADER.size :]
        image, key, rest = body[:length].decode("ascii"), body[length : length + KEY_BYTES], body[length + KEY_BYTES :]
    except (binascii.Error, zlib.error, struct.error, ValueError) as error:
        raise BadRequest("The share string is damaged; copy all of it.") from error
    if version != SHARE_VERSION or unpacker.unconsumed_tail or len(rest) % 8 or len(key) != KEY_BYTES:
        raise BadRequest("The share string is damaged, or of another version of tavq.")
    steps, codes = np.frombuffer(rest, "<u4").astype(np.int64).reshape(2, -1)
    return SharedEdit(model, image, key, np.cumsum(steps), codes)
