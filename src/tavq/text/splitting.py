"""Splits texts in blocks of a few thousand, in several processes, into the tensors of a text store.

Nothing here imports torch, so that the worker processes start quickly.
"""

import hashlib
import itertools
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

import numpy as np

from tavq.core.errors import DataError, TavqError
from tavq.core.signals import end_with_parent
from tavq.text.granularity import MAX_CHARACTERS, Units, clean, load_splitter

BLOCK_TEXTS = 2048
BLOCK_CHARACTERS = 4_000_000
"""Upper limit for the texts of a block, so that very long ones do not fill the memory."""

BLOCKS_FOR_PROCESSES = 8
"""Fewer blocks are split in this process: starting workers takes seconds, as long as three blocks."""

NO_TEXT, EMPTY = "no usable text", "only white space or invisible characters in its text"
NO_WORD = "no word or number in its text"
"""Why an image is missing in a store."""

DROPPED = (NO_TEXT, EMPTY, NO_WORD, "empty text")
"""All such reasons; the last one is of work that was begun by the version before, which said it of both others."""

Pair = tuple[str, str]
"""The key of an image and its text."""

Array = np.ndarray


class Block(NamedTuple):
    """The split texts of a block."""

    tensors: dict[str, Array]  # of the images that have units; see `split_block`
    texts: list[str]  # of these images, cleaned
    dropped: list[tuple[str, str]]  # keys of the other images, each with the reason
    cut: list[str]  # keys of images whose text was longer than MAX_CHARACTERS


def group_texts(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    """Yield lists of BLOCK_TEXTS pairs, shorter ones if the texts are long; one empty list if there are no pairs."""
    block: list[Pair] = []
    characters = count = 0
    for pair in pairs:
        block.append(pair)
        characters += min(len(pair[1]), MAX_CHARACTERS)
        if len(block) == BLOCK_TEXTS or characters >= BLOCK_CHARACTERS:
            yield block
            block, characters, count = [], 0, count + 1
    if block or not count:
        yield block


def hash_pairs(block: Iterable[Pair]) -> str:
    """A hash of keys and texts, in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for pair in block:
        for part in pair:
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def hash_text(text: str) -> int:
    """A signed 64-bit hash of a text or a key."""
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)


def split_block(splitter: str, pairs: Sequence[Pair]) -> Block:
    """Split the texts of a block; each distinct unit of the block is kept once.

    The tensors are those of a text store without the vectors: `keys`, `key_offsets` and `text_hashes` of the images
    that have units; for each granularity `text` and `text_offsets` of the distinct units in order of their first
    appearance, and `ids` and `offsets` of the units of each image.

    Raises DataError for a key that cannot be stored.
    """
    load = load_splitter(splitter)
    kept: list[tuple[str, str, Units]] = []
    hashes: list[int] = []
    dropped: list[tuple[str, str]] = []
    cut: list[str] = []
    for key, text in pairs:
        _check_key(key)
        cleaned = clean(text)
        units = load.split(cleaned)
        if units.sentences:
            kept.append((key, cleaned, units))
            hashes.append(hash_text(text))
        else:
            dropped.append((key, _find_reason(text, cleaned)))
        if len(text) > MAX_CHARACTERS:
            cut.append(key)
    keys, key_offsets = concatenate_texts(key for key, _, _ in kept)
    tensors = {"keys": keys, "key_offsets": key_offsets, "text_hashes": np.array(hashes, np.int64)}
    for name in Units.__dataclass_fields__:
        tensors |= _make_table(name, [units[name] for _, _, units in kept])
    return Block(tensors, [text for _, text, _ in kept], dropped, cut)


def _find_reason(text: str, cleaned: str) -> str:
    """Why a text has no units; an image without a text has the empty one."""
    if not text:
        return NO_TEXT
    return NO_WORD if cleaned.strip() else EMPTY


def _check_key(key: str) -> None:
    try:
        usable = bool(key.encode("utf-8"))
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise DataError(f"The key {key!r} is not valid text.")


def _make_table(name: str, units: Sequence[Sequence[str]]) -> dict[str, Array]:
    """The tensors of one granularity."""
    known: dict[str, int] = {}
    ids = [known.setdefault(unit, len(known)) for image in units for unit in image]
    text, text_offsets = concatenate_texts(known)
    return {
        f"{name}/text": text,
        f"{name}/text_offsets": text_offsets,
        f"{name}/ids": np.array(ids, np.int32),
        f"{name}/offsets": offsets_of(map(len, units)),
    }


def concatenate_texts(texts: Iterable[str]) -> tuple[Array, Array]:
    """Texts as one array of UTF-8 bytes, and where each begins and ends."""
    parts = [text.encode("utf-8") for text in texts]
    return np.frombuffer(bytearray(b"".join(parts)), np.uint8), offsets_of(map(len, parts))


def offsets_of(lengths: Iterable[int]) -> Array:
    """Where runs of these lengths begin, and where the last one ends."""
    return np.fromiter(itertools.accumulate(lengths, initial=0), np.int64)


# --- several processes ------------------------------------------------------------------------------------------


def split_blocks(splitter: str, blocks: Iterable[list[Pair]], jobs: int) -> Iterator[Block]:
    """Yield `split_block` of each block in order, computed by `jobs` processes; few blocks are in memory at a time."""
    remaining = iter(blocks)
    first = list(itertools.islice(remaining, BLOCKS_FOR_PROCESSES))
    everything = itertools.chain(first, remaining)
    if jobs == 1 or len(first) < BLOCKS_FOR_PROCESSES:
        yield from (split_block(splitter, pairs) for pairs in everything)
        return
    # Not forked: this process holds a model and its threads.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=end_with_parent) as pool:

        def submit(pairs: list[Pair]) -> Future[Block]:
            return pool.submit(split_block, splitter, pairs)

        try:
            yield from _collect_in_order(everything, submit, 2 * jobs)
        except BrokenProcessPool as error:
            raise TavqError(
                "A process that splits texts was killed, most often because memory ran out; resume with the same "
                "command and fewer --jobs."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _collect_in_order(
    blocks: Iterable[list[Pair]], submit: Callable[[list[Pair]], "Future[Block]"], ahead: int
) -> Iterator[Block]:
    """Yield the results in order while at most `ahead` blocks are in work."""
    running: deque[Future[Any]] = deque()
    for pairs in blocks:
        running.append(submit(pairs))
        if len(running) == ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()
