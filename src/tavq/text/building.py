"""Builds a text store: splits every text, encodes each distinct unit once, and resumes where it was stopped."""

import json
import re
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tavq.core.errors import DataError, FileError, TavqError, UsageError
from tavq.core.files import parse_json, read_json, sha256_bytes, write_json
from tavq.core.locks import lock
from tavq.core.mmap_tensors import MappedTensors
from tavq.core.own_files import refuse_link
from tavq.core.seals import is_intact, write_sealed_tensors
from tavq.core.temporary import TEMP_PREFIX, remove_leftovers
from tavq.interfaces import GRANULARITIES, TOKENS
from tavq.text.encoders import TextEncoder
from tavq.text.encoding import Bars, encode_tables
from tavq.text.granularity import MAX_CHARACTERS
from tavq.text.splitting import (
    DROPPED,
    Block,
    Pair,
    concatenate_texts,
    group_texts,
    hash_pairs,
    offsets_of,
    split_blocks,
)
from tavq.text.store import (
    FORMAT,
    STORE,
    TEXT_TABLE,
    TEXT_TABLE_IDS,
    Array,
    Contents,
    TextStore,
    record_splitter,
)
from tavq.text.store_writer import (
    STORE_FOLDER,
    StoreWriter,
    check_out,
    resume_writer,
    split_bytes,
    start_writer,
)

LOCK, PLAN = ".lock", "plan.json"
WORK_FILES = re.compile(
    rf"\.lock|(plan|state)\.json|store|(unique|numbering)-\w+|block-\d+\.safetensors|{re.escape(TEMP_PREFIX)}.*"
)
"""Everything that a killed process may leave in a working folder; `numbering-` is from the version before."""

CUT = f"its text is longer than {MAX_CHARACTERS:,} characters; the rest was left out"
LONG_UNIT = "it has phrases or sentences of more than {} tokens, which the encoder reads in parts"


@contextmanager
def silent(title: str, total: int | None) -> Iterator[Callable[..., None]]:
    """No progress bar."""
    yield lambda done, total=None: None


def build_store(
    texts: Mapping[str, str] | Iterable[Pair],
    encoder: TextEncoder,
    splitter: str,
    out: Path,
    full_text: bool = False,
    float16: bool = False,
    jobs: int = 1,
    bars: Bars = silent,
    empty: bool = False,
    each_caption: bool = False,
    reuse: TextStore | None = None,
    shared: bool = False,
) -> TextStore:
    """Split and encode the text of every image into a new store at `out`; an older store there is replaced.

    Every distinct unit is encoded and stored once, so the cost grows with the number of distinct units, not of images.
    Memory use is independent of the number of texts, except for 32 bytes per image. Work in progress is kept in the
    folder OUT.building: if the process is killed, the next one with the same encoder and splitter resumes it and
    writes the same bytes. The store appears only when it is complete.

    Args:
        texts: the text of each image by its key; captions of one image are joined by a blank line.
        encoder: makes the vectors.
        splitter: a registered name.
        out: the store's folder. A folder of something else is never replaced.
        full_text: also store the vector of every token of each unsplit text, its pooled vector and the distinct tokens,
            for LG-VQ and for TA-VQ without multi-granularity; about a hundred vectors per image, none shared.
        float16: store vectors as float16, half the size; readers still get float32.
        jobs: processes that split; a script that asks for several must be guarded by `if __name__ == "__main__"`.
        bars: shows the progress.
        empty: accept a store without images, as a shard may be.
        each_caption: the texts are single captions, with keys of `core.caption_keys`.
        reuse: a store whose vectors of units are copied where it has the same units by the same encoder.
        shared: whether the other processes of torchrun encode with this one (`sharing.help_encode`).

    Raises:
        DataError: a key occurs twice, or no image has any text and `empty` is False.
        UsageError: `out` is a folder of something else.
        FileError: another process is writing to it, or the disk is full.
    """
    check_out(out)
    made_by = record_splitter(splitter)  # before anything is written: the name may be wrong
    plan = Contents(
        format=FORMAT,
        encoder=encoder.record,
        splitter=made_by,
        full_text=full_text,
        float16=float16,
        each_caption=each_caption,
    )
    work = working_folder(out)
    check_work_folder(work)
    with lock(work / LOCK, out):
        _prepare_work_folder(work, plan)
        pairs = texts.items() if isinstance(texts, Mapping) else texts
        try:
            parts = _split(work, pairs, encoder, full_text, splitter, jobs, bars)
            if not empty:
                _check_not_empty(parts)
            contents = _complete_contents(plan, parts)
            writer = resume_writer(work, contents) or start_writer(work, [part.path for part in parts], contents)
        except DataError:  # the texts themselves are wrong, so the work in progress is useless
            shutil.rmtree(work)
            raise
        with closing(writer.file):
            if reuse is not None:
                _copy_units(writer, reuse)
            encode_tables(writer, encoder, bars, shared)
            writer.finish(out, _read_faults(parts))
        shutil.rmtree(work)
    return TextStore.open(out, verify=False)


def working_folder(out: Path) -> Path:
    """Where the store `out` is built."""
    return out.parent / f"{out.name}.building"


def check_work_folder(work: Path) -> None:
    """Refuse a working folder, which is removed at the end, that is somebody else's.

    Raises:
        UsageError: it holds files of somebody else.
        FileError: it or something in it is a link.
    """
    for path in (work, *(work.iterdir() if work.is_dir() and not work.is_symlink() else ())):
        refuse_link(path)
    unknown = [path.name for path in work.iterdir() if not WORK_FILES.fullmatch(path.name)] if work.is_dir() else []
    if unknown:
        raise UsageError(
            f"{work} is needed for work in progress and holds something else ({unknown[0]!r:.100}); move it, or choose "
            "another --out."
        )


def _prepare_work_folder(work: Path, plan: Contents) -> None:
    """Remove half-written files, and work in progress with other settings."""
    for folder in (work, work / STORE_FOLDER):
        remove_leftovers(folder)
    path, settings = work / PLAN, plan.model_dump()
    if path.is_file() and read_json(path) == settings:
        return
    for old in work.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
        elif old.name != LOCK:
            old.unlink()
    write_json(path, settings)


# --- splitting --------------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """The file of a block of split texts, and what its header says."""

    path: Path
    fingerprint: str
    images: int
    faults: Counter[str]  # number of images by what was wrong with their text


def _split(
    work: Path, pairs: Iterable[Pair], encoder: TextEncoder, full_text: bool, splitter: str, jobs: int, bars: Bars
) -> list[Part]:
    """Write a file for each block of texts, or keep the one that is there. With `full_text` they have the token ids."""
    fingerprints: list[str] = []
    missing: deque[int] = deque()
    pairs, texts = iter(pairs), 0

    def list_missing() -> Iterator[list[Pair]]:
        nonlocal texts
        for index, block in enumerate(group_texts(pairs)):
            fingerprints.append(hash_pairs(block))
            texts += len(block)
            if _read_part(_block_path(work, index), fingerprints[-1]) is None:
                missing.append(index)
                yield block
            bar(texts)

    with bars("Splitting text", None) as bar:
        for block in split_blocks(splitter, list_missing(), jobs):
            index = missing.popleft()
            _write_block(_block_path(work, index), fingerprints[index], block, encoder, full_text)
    found = [_read_part(_block_path(work, index), fingerprint) for index, fingerprint in enumerate(fingerprints)]
    parts = [part for part in found if part]
    _check_complete(parts, texts, next(pairs, None))
    return parts


def _check_complete(parts: Sequence[Part], read: int, unread: Pair | None) -> None:
    """Raise TavqError unless every text that there is was read, and is kept or is a fault."""
    kept, dropped = sum(part.images for part in parts), _count_dropped(_count_faults(parts))
    if unread is not None or kept + dropped != read:
        more = f", and {unread[0]!r} was not read" if unread is not None else ""
        raise TavqError(
            f"Of {read:,} texts {kept:,} were kept and {dropped:,} left out{more}; the store would lack texts, so it "
            "was not written. This is a fault of tavq: please report it."
        )


def _block_path(work: Path, index: int) -> Path:
    return work / f"block-{index:07d}.safetensors"


def _read_part(path: Path, fingerprint: str) -> Part | None:
    """The header of a block's file; None if the file is missing, damaged or of other texts."""
    if not path.is_file():
        return None
    try:
        tensors = MappedTensors(path)
    except FileError:
        return None
    if tensors.metadata.get("fingerprint") != fingerprint or not is_intact(path):
        return None
    faults = Counter(reason for _, reason in parse_json(tensors.metadata["faults"], str(path)))
    return Part(path, fingerprint, len(tensors["text_hashes"]), faults)


def _write_block(path: Path, fingerprint: str, block: Block, encoder: TextEncoder, full_text: bool) -> None:
    tensors = block.tensors | (_tokenize(encoder, block.texts) if full_text else {})
    long = LONG_UNIT.format(encoder.max_unit)
    faults = [*block.dropped, *((key, CUT) for key in block.cut)]
    faults += ((key, long) for key in _find_long_units(encoder, block.tensors))
    write_sealed_tensors(
        path,
        {name: torch.from_numpy(array) for name, array in tensors.items()},
        {"fingerprint": fingerprint, "faults": json.dumps(faults)},
    )


def _find_long_units(encoder: TextEncoder, tensors: Mapping[str, Array]) -> list[str]:
    """The keys of images that have a unit which the encoder cannot read at once."""
    images = np.zeros(len(tensors["text_hashes"]), bool)
    for name in ("phrases", "sentences"):
        texts = split_bytes(tensors[f"{name}/text"], tensors[f"{name}/text_offsets"])
        is_long = np.array(encoder.is_longer(texts), bool)[tensors[f"{name}/ids"]]
        owners = np.repeat(np.arange(len(images)), np.diff(tensors[f"{name}/offsets"]))
        images[owners[is_long]] = True
    keys = split_bytes(tensors["keys"], tensors["key_offsets"])
    return [key for key, has_long in zip(keys, images, strict=True) if has_long]


def _tokenize(encoder: TextEncoder, texts: Sequence[str]) -> dict[str, Array]:
    """The tensors of the table `tokens`; `tokens/numbers` are the ids in the encoder's own vocabulary."""
    tokens = encoder.tokenize(texts)
    flat = np.array([token for text in tokens for token in text], np.int32)
    encoder_ids, ids = np.unique(flat, return_inverse=True)
    text, text_offsets = concatenate_texts(encoder.token_names(encoder_ids.tolist()))
    return {
        f"{TOKENS}/text": text,
        f"{TOKENS}/text_offsets": text_offsets,
        f"{TOKENS}/numbers": encoder_ids,
        TEXT_TABLE_IDS: ids.astype(np.int32),
        f"{TEXT_TABLE}/offsets": offsets_of(map(len, tokens)),
    }


def _count_faults(parts: Sequence[Part]) -> Counter[str]:
    return sum((part.faults for part in parts), Counter[str]())


def _count_dropped(faults: Counter[str]) -> int:
    return sum(faults[reason] for reason in DROPPED)


def _check_not_empty(parts: Sequence[Part]) -> None:
    """Raise DataError if no text can be used."""
    if not any(part.images for part in parts):
        faults = _count_faults(parts)
        texts = _count_dropped(faults)
        reasons = "; ".join(f"{count:,}: {reason}" for reason, count in faults.most_common()) or "there are none"
        raise DataError(f"None of {texts:,} images has a text that can be split into units ({reasons}).")


def _complete_contents(plan: Contents, parts: Sequence[Part]) -> Contents:
    """The contents with the hash and the faults of the texts."""
    texts = sha256_bytes("\n".join(part.fingerprint for part in parts).encode())
    return plan.model_copy(update={"texts": texts, "faults": dict(sorted(_count_faults(parts).items()))})


def _read_faults(parts: Iterable[Part]) -> Iterator[tuple[str, str]]:
    for part in parts:
        if part.faults:
            yield from parse_json(MappedTensors(part.path).metadata["faults"], str(part.path))


# --- encoding ---------------------------------------------------------------------------------------------------


def _kept_faults(contents: Contents) -> dict[str, int]:
    """The faults of texts that are in a store."""
    return {reason: count for reason, count in contents.faults.items() if reason not in DROPPED}


def _copy_units(writer: StoreWriter, store: TextStore) -> None:
    """Copy the vectors of units from a store that has the same ones, so that they stay the same bits anywhere."""
    made, manifest = writer.contents, store.manifest
    kinds = [(each.encoder, each.float16, _kept_faults(each)) for each in (made, manifest)]
    if writer.done or kinds[0] != kinds[1]:  # a store from before long units were read in parts has other faults
        return
    before = MappedTensors(store.folder / STORE)
    for name in GRANULARITIES:
        parts = (f"{name}/text", f"{name}/text_offsets")
        if all(np.array_equal(before[part], writer.tensors[part]) for part in parts):
            vectors = before[f"{name}/vectors"]
            writer.file.write(f"{name}/vectors", 0, np.asarray(vectors))
            writer.mark(**{name: len(vectors)})
