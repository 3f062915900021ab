"""Texts split in blocks of some thousands, by several processes: what a text store is made from.

Nothing here loads torch, which a process that only splits does without.
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
from tavq.text.granularity import MAX_CHARACTERS, Units, clean, load_splitter

BLOCK_TEXTS = 2048
BLOCK_CHARACTERS = 4_000_000
"""Of the texts of a block, so that very long ones bound the memory too."""

BLOCKS_FOR_PROCESSES = 8
"""Fewer blocks are split in this process: starting others takes seconds, as long as three blocks do."""

Pair = tuple[str, str]
"""The key of an image and its text."""

Array = np.ndarray


class Block(NamedTuple):
    """What came of a block of texts."""

    tensors: dict[str, Array]  # of the images that have units; see `split_block`
    kept: list[str]  # their cleaned texts
    dropped: list[tuple[str, str]]  # the keys of the others, each with the reason
    cut: list[str]  # the keys whose text was longer than MAX_CHARACTERS


def blocks(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    """The pairs in lists of BLOCK_TEXTS, or fewer where they are long; where there is no pair, one empty list."""
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


def fingerprint(block: Iterable[Pair]) -> str:
    """A hash of keys and texts, in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for key, text in block:
        for part in (key, text):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def text_hash(text: str) -> int:
    """64 bits that tell a text, or a key, from others."""
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)


def split_block(splitter: str, pairs: Sequence[Pair]) -> Block:
    """The units of a block of texts, each distinct unit of the block once.

    The tensors are those of a text store without the vectors: `keys`, `key_offsets` and `text_hashes` of the
    images that have units, and for each granularity `text` and `text_offsets` of the distinct units in order of
    their first appearance, `ids` and `offsets` of the units of each image.

    Raises DataError for a key that cannot be stored.
    """
    load = load_splitter(splitter)
    found: list[tuple[str, str, Units]] = []
    hashes: list[int] = []
    dropped: list[tuple[str, str]] = []
    cut: list[str] = []
    for key, text in pairs:
        _check_key(key)
        cleaned = clean(text)
        units = load.split(cleaned)
        if units.sentences:
            found.append((key, cleaned, units))
            hashes.append(text_hash(text))
        else:
            dropped.append((key, "no word or number in its text" if cleaned.strip() else "empty text"))
        if len(text) > MAX_CHARACTERS:
            cut.append(key)
    keys, key_offsets = blob(key for key, _, _ in found)
    tensors = {"keys": keys, "key_offsets": key_offsets, "text_hashes": np.array(hashes, np.int64)}
    for name in Units.__dataclass_fields__:
        tensors |= _table(name, [units[name] for _, _, units in found])
    return Block(tensors, [text for _, text, _ in found], dropped, cut)


def _check_key(key: str) -> None:
    try:
        usable = bool(key.encode("utf-8"))
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise DataError(f"The key {key!r} is not valid text.")


def _table(name: str, units: Sequence[Sequence[str]]) -> dict[str, Array]:
    numbers: dict[str, int] = {}
    ids = [numbers.setdefault(unit, len(numbers)) for image in units for unit in image]
    text, text_offsets = blob(numbers)
    return {
        f"{name}/text": text,
        f"{name}/text_offsets": text_offsets,
        f"{name}/ids": np.array(ids, np.int32),
        f"{name}/offsets": running_total(map(len, units)),
    }


def blob(texts: Iterable[str]) -> tuple[Array, Array]:
    """Texts as one run of UTF-8 bytes, and where each begins and ends."""
    parts = [text.encode("utf-8") for text in texts]
    return np.frombuffer(bytearray(b"".join(parts)), np.uint8), running_total(map(len, parts))


def running_total(lengths: Iterable[int]) -> Array:
    """Where runs of these lengths begin, and where the last one ends."""
    return np.fromiter(itertools.accumulate(lengths, initial=0), np.int64)


# --- several processes ------------------------------------------------------------------------------------------


def split_blocks(splitter: str, work: Iterable[list[Pair]], jobs: int) -> Iterator[Block]:
    """`split_block` of each, in order, by `jobs` processes where there are enough; a few blocks are in memory."""
    waiting = iter(work)
    first = list(itertools.islice(waiting, BLOCKS_FOR_PROCESSES))
    if jobs == 1 or len(first) < BLOCKS_FOR_PROCESSES:
        yield from (split_block(splitter, pairs) for pairs in first)
        return
    # Not forked: this process holds a model and its threads.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:

        def start(pairs: list[Pair]) -> Future[Block]:
            return pool.submit(split_block, splitter, pairs)

        try:
            yield from _in_order(itertools.chain(first, waiting), start, 2 * jobs)
        except BrokenProcessPool as error:
            raise TavqError(
                "A process that splits texts was ended from outside, most often for want of memory; go on with the "
                "same command and fewer --jobs."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _in_order(
    work: Iterable[list[Pair]], start: Callable[[list[Pair]], "Future[Block]"], ahead: int
) -> Iterator[Block]:
    running: deque[Future[Any]] = deque()
    for pairs in work:
        running.append(start(pairs))
        if len(running) == ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()
