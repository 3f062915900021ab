"""Encodes the units and full texts of a text store, chunk by chunk, so that a stopped run loses one chunk."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import pairwise

import numpy as np
import torch

from tavq.core.errors import DataError
from tavq.core.mmap_tensors import MappedTensors
from tavq.interfaces import POOLED, TOKENS
from tavq.ops.checks import is_finite
from tavq.text.encoders import TextEncoder
from tavq.text.sharing import chunks_at_once, encode_chunks
from tavq.text.store import TEXT_TABLE, TEXT_TABLE_IDS, Array
from tavq.text.store_writer import StoreWriter, list_tables, split_bytes

UNITS_CHUNK = 2048
"""Units encoded between two saves; units of similar length share a batch, and a resumed run repeats the last chunk."""

TEXTS_CHUNK = 256
"""Full texts encoded between two saves."""

Bars = Callable[[str, int | None], AbstractContextManager[Callable[..., None]]]
"""Opens a progress bar with a title and a total; the bar is called with how much is done."""


def encode_tables(writer: StoreWriter, encoder: TextEncoder, bars: Bars, shared: bool = False) -> None:
    """Compute and write every vector that is still missing.

    Args:
        writer: the store, with everything but vectors.
        encoder: makes the vectors.
        bars: shows the progress.
        shared: whether other processes encode with this one.

    Raises:
        DataError: the encoder gives a vector that is not finite.
    """
    tensors = writer.tensors
    counts = {table.name: len(tensors[f"{table.name}/vectors"]) for table in list_tables(writer.contents.full_text)}
    images = writer.contents.images if writer.contents.full_text else 0
    with bars("Encoding text", sum(counts.values()) + images) as bar:
        before = 0
        for name, count in counts.items():
            for starts in _rounds(writer.done.get(name, 0), count, UNITS_CHUNK, shared):
                _encode_units(writer, encoder, name, tensors, [*pairwise(starts)], shared)
                writer.mark(**{name: starts[-1]})
                bar(before + starts[-1])
            before += count
        for starts in _rounds(writer.done.get(TEXT_TABLE, 0), images, TEXTS_CHUNK, shared):
            _encode_full_texts(writer, encoder, tensors, [*pairwise(starts)], shared)
            writer.mark(**{TEXT_TABLE: starts[-1]})
            bar(before + starts[-1])


Ranges = list[tuple[int, int]]
"""Where chunks start and stop."""


def _rounds(done: int, count: int, chunk: int, shared: bool) -> Iterator[list[int]]:
    """Yield the borders of the chunks that are encoded at once."""
    starts = range(done, count, chunk)
    at_once = chunks_at_once(shared)
    for first in range(0, len(starts), at_once):
        own = starts[first : first + at_once]
        yield [*own, min(own[-1] + chunk, count)]


def _encode_units(
    writer: StoreWriter, encoder: TextEncoder, name: str, tensors: MappedTensors, ranges: Ranges, shared: bool
) -> None:
    """Write the vectors of chunks of units of a table."""
    kind = name if name in (TOKENS, "words") else "units"
    if name == TOKENS:
        chunks = [tensors[f"{TOKENS}/numbers"][start:stop].tolist() for start, stop in ranges]
    else:
        chunks = [_read_units(name, tensors, start, stop) for start, stop in ranges]
    encoded = encode_chunks(encoder, kind, chunks, shared)
    for (start, _), (vectors,) in zip(ranges, encoded, strict=True):
        writer.file.write(f"{name}/vectors", start, _check_finite(vectors, encoder))


def _read_units(name: str, tensors: MappedTensors, start: int, stop: int) -> list[str]:
    offsets = np.asarray(tensors[f"{name}/text_offsets"][start : stop + 1])
    return list(split_bytes(np.asarray(tensors[f"{name}/text"][offsets[0] : offsets[-1]]), offsets))


def _encode_full_texts(
    writer: StoreWriter, encoder: TextEncoder, tensors: MappedTensors, ranges: Ranges, shared: bool
) -> None:
    """Write the token vectors and pooled vectors of chunks of images."""
    offsets = [np.asarray(tensors[f"{TEXT_TABLE}/offsets"][start : stop + 1]) for start, stop in ranges]
    chunks = [_read_full_texts(tensors, own) for own in offsets]
    encoded = encode_chunks(encoder, "full texts", chunks, shared)
    for (start, _), own, (vectors, pooled) in zip(ranges, offsets, encoded, strict=True):
        writer.file.write(f"{TEXT_TABLE}/vectors", int(own[0]), _check_finite(vectors, encoder))
        writer.file.write(POOLED, start, _check_finite(pooled, encoder))


def _read_full_texts(tensors: MappedTensors, offsets: Array) -> list[list[int]]:
    """The token ids of each text, in the encoder's own vocabulary."""
    ids = np.asarray(tensors[f"{TOKENS}/numbers"])[tensors[TEXT_TABLE_IDS][offsets[0] : offsets[-1]]]
    return [text.tolist() for text in np.split(ids, offsets[1:-1] - offsets[0])]


def _check_finite(vectors: torch.Tensor, encoder: TextEncoder) -> Array:
    if not is_finite(vectors):
        raise DataError(f"The text encoder {encoder.name!r} gave a vector that is not finite; its weights are broken.")
    return vectors.numpy()
