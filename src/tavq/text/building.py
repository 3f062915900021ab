"""Makes a text store: splits every text, then encodes each distinct unit once; goes on where it was stopped."""

import json
import re
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tavq.core.errors import DataError, FileError, UsageError
from tavq.core.files import (
    TEMP_PREFIX,
    lock,
    parse_json,
    read_json,
    remove_leftovers,
    remove_leftovers_of,
    sha256_bytes,
    write_json,
    write_tensors,
)
from tavq.core.mmap_tensors import MappedTensors
from tavq.interfaces import POOLED, TOKENS
from tavq.text.encoders import TextEncoder
from tavq.text.granularity import MAX_CHARACTERS
from tavq.text.splitting import Block, Pair, blob, blocks, fingerprint, running_total, split_blocks
from tavq.text.store import FORMAT, MANIFEST, TEXT_TABLE, TEXT_TABLE_IDS, Array, Contents, TextStore, splitter_record
from tavq.text.store_writer import STORE_FOLDER, StoreWriter, resume_writer, start_writer, tables, texts_of

LOCK, PLAN = ".lock", "plan.json"
WORK_FILES = re.compile(
    rf"\.lock|(plan|state)\.json|store|(unique|numbering)-\w+|block-\d+\.safetensors|{re.escape(TEMP_PREFIX)}.*"
)
"""Everything that a killed process may leave in a working folder; `numbering-` is from the version before."""

CHUNK = 2048
"""Units encoded between two marks; those of similar length go together, and what follows a mark is done again."""

TEXTS_CHUNK = 256
"""Whole texts encoded between two marks."""

CUT = f"its text is longer than {MAX_CHARACTERS:,} characters; the rest was left out"

Bars = Callable[[str, int | None], AbstractContextManager[Callable[..., None]]]
"""Opens a progress bar of a title and a total; what it gives is called with how much is done."""


@contextmanager
def silent(title: str, total: int | None) -> Iterator[Callable[..., None]]:
    """No bar."""
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
) -> TextStore:
    """Splits and encodes the text of every image into a new store at `out`, in place of an older store there.

    Every distinct unit is encoded and stored once, so the cost grows with distinct units and not with images.
    Memory does not grow with the texts, but for 32 bytes an image. The work is done in the folder OUT.building; a
    process that was stopped there is gone on with by the next one of the same encoder and splitter, to the same bytes.
    The store appears whole or not at all.

    Args:
        texts: the text of each image by its key; captions of one image are joined by a blank line.
        splitter: a registered name.
        out: the store's folder. A folder that is something else is never replaced.
        full_text: also store the vector of every token of each unsplit text, its pooled vector and the distinct tokens,
            for LG-VQ and for TA-VQ without multi-granularity; about a hundred vectors per image, none shared.
        float16: store vectors as float16, half the size; readers still give float32.
        jobs: processes that split; a script that asks for several must be guarded by `if __name__ == "__main__"`.
        bars: shows the progress.
        empty: a store of no image is one too, as a part of several may be.

    Raises:
        DataError: a key comes twice, or no image has any text and the store may not be empty.
        UsageError: `out` is a folder of something else.
        FileError: another process is at it, or the disk is full.
    """
    check_free(out)
    made_by = splitter_record(splitter)  # before anything is written: the name may be wrong
    plan = Contents(format=FORMAT, encoder=encoder.record, splitter=made_by, full_text=full_text, float16=float16)
    work = working_folder(out)
    check_working(work)
    with lock(work / LOCK, out):
        _ready(work, plan)
        pairs = texts.items() if isinstance(texts, Mapping) else texts
        try:
            pieces = _split(work, pairs, encoder if full_text else None, splitter, jobs, bars)
            if not empty:
                _check_some(pieces)
            contents = _described(plan, pieces)
            draft = resume_writer(work, contents) or start_writer(work, [piece.path for piece in pieces], contents)
        except DataError:  # of the texts themselves: what was begun is of no use
            shutil.rmtree(work)
            raise
        with closing(draft.file):
            _encode(draft, encoder, bars)
            draft.finish(out, _faults(pieces))
        shutil.rmtree(work)
    return TextStore.open(out)


def working_folder(out: Path) -> Path:
    """Where the store `out` is made."""
    return out.parent / f"{out.name}.building"


def check_free(out: Path) -> None:
    """Raises UsageError where `out` is something that a store must not replace."""
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file()):
        raise UsageError(f"{out} exists and is no text store; choose another place, nothing was replaced.")
    remove_leftovers_of(out)


def check_working(work: Path) -> None:
    """Raises UsageError where the working folder holds something of somebody's: it is removed at the end."""
    strange = [path.name for path in work.iterdir() if not WORK_FILES.fullmatch(path.name)] if work.is_dir() else []
    if strange:
        raise UsageError(
            f"{work} is needed for work in progress and holds something else ({strange[0]!r:.100}); move it, or choose "
            "another --out."
        )


def _ready(work: Path, plan: Contents) -> None:
    """Empties the working folder of what was begun in another way, and of what a killed process left half-written."""
    for folder in (work, work / STORE_FOLDER):
        remove_leftovers(folder)
    path, told = work / PLAN, plan.model_dump()
    if path.is_file() and read_json(path) == told:
        return
    for old in work.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
        elif old.name != LOCK:
            old.unlink()
    write_json(path, told)


# --- splitting --------------------------------------------------------------------------------------------------


class Piece(NamedTuple):
    """The file of a block of texts, and what its header tells."""

    path: Path
    fingerprint: str
    kept: int
    faults: Counter[str]  # images by what was wrong with their text


def _split(
    work: Path, pairs: Iterable[Pair], encoder: TextEncoder | None, splitter: str, jobs: int, bars: Bars
) -> list[Piece]:
    """A file for each block of texts; those that are there already are kept. With an encoder, its tokens too."""
    prints: list[str] = []
    missing: deque[int] = deque()
    texts = 0

    def unsplit() -> Iterator[list[Pair]]:
        nonlocal texts
        for number, block in enumerate(blocks(pairs)):
            prints.append(fingerprint(block))
            texts += len(block)
            if _piece(_place(work, number), prints[-1]) is None:
                missing.append(number)
                yield block
            bar(texts)

    with bars("Splitting text", None) as bar:
        for block in split_blocks(splitter, unsplit(), jobs):
            number = missing.popleft()
            _write_block(_place(work, number), prints[number], block, encoder)
    pieces = [_piece(_place(work, number), told) for number, told in enumerate(prints)]
    assert all(pieces), "every block was written"
    return [piece for piece in pieces if piece]


def _place(work: Path, number: int) -> Path:
    return work / f"block-{number:07d}.safetensors"


def _piece(path: Path, fingerprint: str) -> Piece | None:
    """What is known of a block's file, None where it is missing or of other texts."""
    if not path.is_file():
        return None
    try:
        tensors = MappedTensors(path)
    except FileError:
        return None
    if tensors.metadata.get("fingerprint") != fingerprint:
        return None
    faults = Counter(reason for _, reason in parse_json(tensors.metadata["faults"], str(path)))
    return Piece(path, fingerprint, len(tensors["text_hashes"]), faults)


def _write_block(path: Path, fingerprint: str, block: Block, encoder: TextEncoder | None) -> None:
    tensors = block.tensors | (_tokens(encoder, block.kept) if encoder else {})
    faults = [*block.dropped, *((key, CUT) for key in block.cut)]
    write_tensors(
        path,
        {name: torch.from_numpy(array) for name, array in tensors.items()},
        {"fingerprint": fingerprint, "faults": json.dumps(faults)},
    )


def _tokens(encoder: TextEncoder, texts: Sequence[str]) -> dict[str, Array]:
    """The tokens of whole texts, as `split_block` gives units; `tokens/numbers` are theirs in the encoder."""
    tokens = encoder.tokenize(texts)
    flat = np.array([number for text in tokens for number in text], np.int32)
    numbers, ids = np.unique(flat, return_inverse=True)
    text, text_offsets = blob(encoder.token_names(numbers.tolist()))
    return {
        f"{TOKENS}/text": text,
        f"{TOKENS}/text_offsets": text_offsets,
        f"{TOKENS}/numbers": numbers,
        TEXT_TABLE_IDS: ids.astype(np.int32),
        f"{TEXT_TABLE}/offsets": running_total(map(len, tokens)),
    }


def _check_some(pieces: Sequence[Piece]) -> None:
    """Raises DataError where no text can be used."""
    if not any(piece.kept for piece in pieces):
        faults = sum((piece.faults for piece in pieces), Counter[str]())
        texts = sum(faults.values()) - faults[CUT]
        reason = faults.most_common(1)[0][0] if faults else "there are none"
        raise DataError(f"None of the {texts} texts can be split into units ({reason}).")


def _described(plan: Contents, pieces: Sequence[Piece]) -> Contents:
    """The contents with what is known of the texts."""
    faults = sum((piece.faults for piece in pieces), Counter[str]())
    told = sha256_bytes("\n".join(piece.fingerprint for piece in pieces).encode())
    return plan.model_copy(update={"texts": told, "faults": dict(sorted(faults.items()))})


def _faults(pieces: Iterable[Piece]) -> Iterator[tuple[str, str]]:
    for piece in pieces:
        if piece.faults:
            yield from parse_json(MappedTensors(piece.path).metadata["faults"], str(piece.path))


# --- encoding ---------------------------------------------------------------------------------------------------


def _encode(draft: StoreWriter, encoder: TextEncoder, bars: Bars) -> None:
    """Writes every vector that is still missing."""
    tensors = draft.tensors
    counts = {table.name: len(tensors[f"{table.name}/vectors"]) for table in tables(draft.contents.full_text)}
    images = draft.contents.images if draft.contents.full_text else 0
    with bars("Encoding text", sum(counts.values()) + images) as bar:
        before = 0
        for name, count in counts.items():
            for start in range(draft.done.get(name, 0), count, CHUNK):
                stop = min(start + CHUNK, count)
                draft.file.write(f"{name}/vectors", start, _vectors(encoder, name, tensors, start, stop))
                draft.mark(**{name: stop})
                bar(before + stop)
            before += count
        for start in range(draft.done.get(TEXT_TABLE, 0), images, TEXTS_CHUNK):
            stop = min(start + TEXTS_CHUNK, images)
            _encode_full_text(draft, encoder, tensors, start, stop)
            draft.mark(**{TEXT_TABLE: stop})
            bar(before + stop)


def _vectors(encoder: TextEncoder, name: str, tensors: MappedTensors, start: int, stop: int) -> Array:
    """The vectors of a table's rows."""
    if name == TOKENS:
        return _finite(encoder.token_vectors(tensors[f"{TOKENS}/numbers"][start:stop].tolist()), encoder)
    offsets = np.asarray(tensors[f"{name}/text_offsets"][start : stop + 1])
    texts = texts_of(np.asarray(tensors[f"{name}/text"][offsets[0] : offsets[-1]]), offsets)
    return _finite((encoder.encode_words if name == "words" else encoder.encode_units)(texts), encoder)


def _encode_full_text(draft: StoreWriter, encoder: TextEncoder, tensors: MappedTensors, start: int, stop: int) -> None:
    offsets = np.asarray(tensors[f"{TEXT_TABLE}/offsets"][start : stop + 1])
    numbers = np.asarray(tensors[f"{TOKENS}/numbers"])[tensors[TEXT_TABLE_IDS][offsets[0] : offsets[-1]]]
    vectors, pooled = encoder.encode_tokens([part.tolist() for part in np.split(numbers, offsets[1:-1] - offsets[0])])
    draft.file.write(f"{TEXT_TABLE}/vectors", int(offsets[0]), _finite(vectors, encoder))
    draft.file.write(POOLED, start, _finite(pooled, encoder))


def _finite(vectors: torch.Tensor, encoder: TextEncoder) -> Array:
    if not vectors.isfinite().all():
        raise DataError(f"The text encoder {encoder.name!r} gave a vector that is not finite; its weights are broken.")
    return vectors.numpy()
