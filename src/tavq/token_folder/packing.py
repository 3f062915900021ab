"""Indices as bits: each takes as many as the largest entry of its part of the codebook needs.

An image is its parts one after the other, each part its indices in raster order. Index i of a part of `b` bits is in
the bits `i * b` to `i * b + b - 1`, counted from the lowest bit of the first byte; each part begins at a byte. Eight
indices so take `b` whole bytes: the words in which they begin are read as arrays whose stride is `b` bytes or a half.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int, Shaped, UInt8

PADDING = 64
"""Zero bytes after the last image: what is read of it in whole words ends before them."""

CHUNK = 1 << 18
"""Indices that are unpacked at once; enough that calls of numpy cost little, few enough for a cache."""


def bits_per_index(entries: int) -> int:
    """The bits that an index of so many entries takes: ceil(log2), and 1 for a single entry."""
    return max(1, (entries - 1).bit_length())


def bytes_per_image(positions: int, entries: Sequence[int]) -> int:
    """The bytes of an image of so many positions."""
    return sum((positions * bits_per_index(size) + 7) // 8 for size in entries)


def index_type(entries: Sequence[int]) -> type[np.uint8] | type[np.uint16] | type[np.uint32]:
    """The narrowest type that holds an index of every part."""
    widest = max(map(bits_per_index, entries))
    if widest <= 8:
        return np.uint8
    return np.uint16 if widest <= 16 else np.uint32


def pack(indices: Int[np.ndarray, "n p c"], entries: Sequence[int]) -> UInt8[np.ndarray, "n bytes"]:
    """The bytes of images of the same number of positions.

    Args:
        indices: of each image, position and part; each below the entries of its part.
        entries: of each part.
    """
    parts, (images, positions) = [], indices.shape[:2]
    for part, size in enumerate(entries):
        width = bits_per_index(size)
        bits = indices[:, :, part, None].astype(np.uint32) >> np.arange(width, dtype=np.uint32) & 1
        flat = bits.astype(np.uint8).reshape(images, positions * width)
        parts.append(np.packbits(flat, axis=1, bitorder="little"))
    return np.concatenate(parts, axis=1)


def unpack(
    data: UInt8[np.ndarray, " bytes"], starts: Int[np.ndarray, " n"], positions: int, entries: Sequence[int]
) -> Shaped[np.ndarray, "n p c"]:
    """The indices of images of the same number of positions, in the narrowest type.

    Memory: the result; images that do not follow each other are copied together first.

    Args:
        data: the bytes of all images, and `PADDING` after the last.
        starts: where in them each image begins.
        positions: of each image.
        entries: of each part.
    """
    length = bytes_per_image(positions, entries)
    if len(starts) and not np.array_equal(starts, starts[0] + length * np.arange(len(starts))):
        taken = data[starts[:, None] + np.arange(length)].reshape(-1)
        data, starts = np.concatenate([taken, np.zeros(PADDING, np.uint8)]), length * np.arange(len(starts))
    made = np.empty((len(starts), positions, len(entries)), index_type(entries))
    begin = int(starts[0]) if len(starts) else 0
    for part, size in enumerate(entries):
        bits = bits_per_index(size)
        _unpack_part(data, begin, length, bits, made[:, :, part])
        begin += (positions * bits + 7) // 8
    return made


def _unpack_part(data: np.ndarray, begin: int, stride: int, bits: int, out: np.ndarray) -> None:
    """Fill `out` [n p] with the indices of one part, which begins `stride` bytes later in each image."""
    images, positions = out.shape
    if images and positions % 8 == 0 and stride * 8 == positions * bits and out.flags.c_contiguous:
        out, images, positions = out.reshape(1, -1), 1, images * positions  # one run of bits
    for first, last, start, stop in _blocks(images, positions):
        offset = begin + first * stride + start * bits // 8
        _unpack_block(data, offset, stride, bits, out[first:last, start:stop])


def _blocks(images: int, positions: int) -> Iterator[tuple[int, int, int, int]]:
    """First and last image, and first and last position, of blocks that fit the cache; positions begin at eights."""
    rows, columns = max(1, CHUNK // max(1, positions)), min(positions, CHUNK)
    for first in range(0, images, rows):
        for start in range(0, positions, columns):
            yield first, min(first + rows, images), start, min(start + columns, positions)


def _unpack_block(data: np.ndarray, offset: int, stride: int, bits: int, out: np.ndarray) -> None:
    """Fill `out` [n p] with indices: several of them fill a word of 64 bits, and its bits spread to as many slots."""
    slot, (images, positions) = 8 * out.itemsize, out.shape
    if slot == bits:
        out[...] = np.ndarray(out.shape, out.dtype.newbyteorder("<"), data, offset, (stride, out.itemsize))
    elif slot > 16:
        _unpack_wide(data, offset, stride, bits, out)
    elif positions % 8 == 0 and out.strides[1] == out.itemsize:
        _unpack_words(data, offset, stride, bits, slot, out.view(np.uint64))
    else:
        whole = np.empty((images, (positions + 7) // 8 * 8), out.dtype)
        _unpack_words(data, offset, stride, bits, slot, whole.view(np.uint64))
        out[...] = whole[:, :positions]


def _unpack_words(data: np.ndarray, offset: int, stride: int, bits: int, slot: int, words: np.ndarray) -> None:
    """Fill words [n w] of 8 slots of 8 bits each, or of 4 slots of 16."""
    every = 64 // slot * bits  # bits of the data in a word
    period = 1 if every % 8 == 0 else 2  # every second word may begin within a byte
    for first in range(period):
        own, at = words[:, first::period], first * every
        read = np.ndarray(own.shape, "<u8", data, offset + at // 8, (stride, period * every // 8))
        if period == 1:
            own[...] = read
        else:  # a shift by 0 too is faster than a copy between these strides
            np.right_shift(read, np.uint64(at % 8), out=own)
    _spread(words, bits, slot)


def _spread(words: np.ndarray, bits: int, slot: int) -> None:
    """Move the indices of each word, which follow each other from its lowest bit, to slots of as many bits; in place.

    Each round halves the runs of indices: of every run the upper half moves up.
    """
    moved, half = np.empty_like(words), 32 // slot
    while half:
        low = sum(((1 << half * bits) - 1) << at for at in range(0, 64, 2 * half * slot))
        np.bitwise_and(words, np.uint64(low << half * bits), out=moved)
        moved <<= np.uint64(half * (slot - bits))
        words &= np.uint64(low)
        words |= moved
        half //= 2


def _unpack_wide(data: np.ndarray, offset: int, stride: int, bits: int, out: np.ndarray) -> None:
    """Fill `out` with indices of 17 bits or more, the j-th of all eights at once."""
    images, positions = out.shape
    word, mask = ("<u4", np.uint32) if bits <= 25 else ("<u8", np.uint64)  # an index begins at any of 8 bits
    for j in range(min(8, positions)):
        count = (positions - j + 7) // 8
        words = np.ndarray((images, count), word, data, offset + j * bits // 8, (stride, bits))
        shifted = words >> mask(j * bits % 8) if j * bits % 8 else words
        np.bitwise_and(shifted, mask((1 << bits) - 1), out=out[:, j::8], casting="unsafe")
