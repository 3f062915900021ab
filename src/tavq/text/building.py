"""Makes a text store: splits every text, encodes each distinct unit once, writes all at once."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from tavq.core.errors import DataError, UsageError
from tavq.core.files import (
    TEMPORARY,
    sha256,
    write_folder,
    write_json,
    write_tensors,
)
from tavq.interfaces import GRANULARITIES, POOLED, WHOLE_IDS
from tavq.text.encoders import TextEncoder
from tavq.text.granularity import MAX_CHARACTERS, Units, clean, load_splitter
from tavq.text.store import MANIFEST, STORE, Array, Contents, splitter_record

CHUNK = 2048
"""Units encoded between two reports of progress."""


@dataclass(frozen=True)
class StoreSummary:
    """What `build_store` did."""

    pictures: int
    units: Mapping[str, int]  # units of all pictures by granularity, repeats between pictures counted
    distinct: Mapping[str, int]  # vectors stored by granularity; of words, the size of the vocabulary
    dropped: tuple[tuple[str, str], ...]  # pictures that are not in the store, each with the reason
    cut: tuple[str, ...]  # pictures whose text was longer than MAX_CHARACTERS

    def share(self, granularity: str) -> float:
        """Vectors stored for each unit met: 0.1 means that a unit is met ten times."""
        return self.distinct[granularity] / max(1, self.units[granularity])


def build_store(
    texts: Mapping[str, str] | Iterable[tuple[str, str]],
    encoder: TextEncoder,
    splitter: str,
    out: Path,
    whole: bool = False,
    half: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> StoreSummary:
    """Splits and encodes the text of every picture into a new store at `out`, in place of an older store there.

    Every distinct unit is encoded and stored once, so the cost grows with distinct units and not with pictures. The
    store appears whole or not at all. The tensors stand in memory once before they are written.

    Args:
        texts: the text of each picture by its key; captions of one picture are joined by a blank line.
        splitter: a registered name.
        out: the store's folder. A folder that is something else is never replaced.
        whole: also the token vectors of each text as it is with their pooled vector, and the distinct tokens, for
            LG-VQ and for TA-VQ without multi-granularity; about a hundred vectors a picture, none shared.
        half: vectors as float16, half the size; readers still give float32.
        progress: called with the units encoded so far and all of them.

    Raises:
        DataError: a key comes twice, or no picture has any text.
        UsageError: `out` is a folder of something else.
    """
    _check_free(out)
    units, dropped, cut = _split_all(texts, splitter)
    if not units:
        raise DataError(f"None of the {len(dropped)} texts can be split into units ({_most_frequent(dropped)}).")
    tables = {name: _index(units, name) for name in GRANULARITIES}
    report = _Progress(progress, sum(len(table.texts) for table in tables.values()) + len(units) * whole)
    tensors = dict(zip(("keys", "key_offsets"), _blob(units), strict=True))
    dtype = np.float16 if half else np.float32
    for name, table in tables.items():
        tensors |= _tensors(name, table, _encode(encoder, name, table.texts, dtype, report))
    if whole:
        tensors |= _encode_whole(encoder, [text for text, _ in units.values()], dtype, report)
    contents = Contents(
        format=1,
        encoder=encoder.record,
        splitter=splitter_record(splitter),
        pictures=len(units),
        units={name: len(table.texts) for name, table in tables.items()},
        whole=whole,
        half=half,
    )
    _write(out, contents, tensors)
    return StoreSummary(
        len(units), {name: len(table.ids) for name, table in tables.items()}, contents.units, tuple(dropped), tuple(cut)
    )


class _Table(NamedTuple):
    """The distinct units of one granularity and which of them each picture has."""

    texts: list[str]
    ids: list[int]
    offsets: list[int]


class _Progress:
    def __init__(self, call: Callable[[int, int], None] | None, total: int) -> None:
        self.call = call
        self.total = total
        self.done = 0

    def add(self, count: int) -> None:
        self.done += count
        if self.call:
            self.call(self.done, self.total)


def _check_free(out: Path) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file()):
        raise UsageError(f"{out} exists and is no text store; choose another place, nothing was replaced.")
    for leftover in out.parent.glob(f"{TEMPORARY}*-{out.name}"):  # of a build that was killed
        shutil.rmtree(leftover, ignore_errors=True)


def _split_all(
    texts: Mapping[str, str] | Iterable[tuple[str, str]], splitter: str
) -> tuple[dict[str, tuple[str, Units]], list[tuple[str, str]], list[str]]:
    """Cleaned text and units by sorted key, the pictures without units and why, those with a text that was cut."""
    load = load_splitter(splitter)
    units: dict[str, tuple[str, Units]] = {}
    dropped: list[tuple[str, str]] = []
    cut = []
    seen = set()
    for key, text in texts.items() if isinstance(texts, Mapping) else texts:
        if key in seen or not _encodable(key):
            raise DataError(f"The key {key!r} comes twice." if key in seen else f"The key {key!r} is not valid text.")
        seen.add(key)
        cleaned = clean(text)
        found = load.split(cleaned)
        if found.sentences:
            units[key] = (cleaned, found)
        else:
            dropped.append((key, "no word or number in its text" if cleaned.strip() else "empty text"))
        if len(text) > MAX_CHARACTERS:
            cut.append(key)
    return {key: units[key] for key in sorted(units)}, sorted(dropped), sorted(cut)


def _encodable(key: str) -> bool:
    try:
        return bool(key.encode("utf-8"))
    except UnicodeEncodeError:
        return False


def _most_frequent(dropped: Sequence[tuple[str, str]]) -> str:
    reasons = [reason for _, reason in dropped]
    return max(reasons, key=reasons.count) if reasons else "there are none"


def _index(units: Mapping[str, tuple[str, Units]], granularity: str) -> _Table:
    numbers: dict[str, int] = {}
    ids: list[int] = []
    offsets = [0]
    for _, found in units.values():
        ids += (numbers.setdefault(unit, len(numbers)) for unit in found[granularity])
        offsets.append(len(ids))
    return _Table(list(numbers), ids, offsets)


def _encode(encoder: TextEncoder, granularity: str, texts: Sequence[str], dtype: Any, report: _Progress) -> Array:
    """The vector of each text; texts of similar length go together, so that little padding is computed."""
    encode = encoder.encode_words if granularity == "words" else encoder.encode_units
    vectors = np.empty((len(texts), encoder.width), dtype)
    order = sorted(range(len(texts)), key=lambda row: (len(texts[row]), row))
    for start in range(0, len(order), CHUNK):
        rows = order[start : start + CHUNK]
        vectors[rows] = _finite(encode([texts[row] for row in rows]).numpy(), encoder)
        report.add(len(rows))
    return vectors


def _encode_whole(encoder: TextEncoder, texts: Sequence[str], dtype: Any, report: _Progress) -> dict[str, Array]:
    tokens: list[int] = []
    pieces, pooled = [], []
    for text in texts:
        found = encoder.encode_whole(text)
        tokens += found.ids
        pieces.append(_finite(found.vectors.numpy(), encoder).astype(dtype))
        pooled.append(_finite(found.pooled.numpy(), encoder).astype(dtype))
        report.add(1)
    distinct, ids = np.unique(np.array(tokens, np.int64), return_inverse=True)
    names, rows = encoder.token_rows(distinct.tolist())
    blob, blob_offsets = _blob(names)
    return {
        "whole/vectors": np.concatenate(pieces),
        "whole/offsets": np.cumsum([0, *map(len, pieces)], dtype=np.int64),
        WHOLE_IDS: ids.astype(np.int32),
        POOLED: np.stack(pooled),
        "tokens/vectors": _finite(rows.numpy(), encoder).astype(dtype),
        "tokens/text": blob,
        "tokens/text_offsets": blob_offsets,
    }


def _finite(vectors: Array, encoder: TextEncoder) -> Array:
    if not np.isfinite(vectors).all():
        raise DataError(f"The text encoder {encoder.name!r} gave a vector that is not finite; its weights are broken.")
    return vectors


def _tensors(name: str, table: _Table, vectors: Array) -> dict[str, Array]:
    text, text_offsets = _blob(table.texts)
    return {
        f"{name}/vectors": vectors,
        f"{name}/text": text,
        f"{name}/text_offsets": text_offsets,
        f"{name}/ids": np.array(table.ids, np.int32),
        f"{name}/offsets": np.array(table.offsets, np.int64),
    }


def _blob(texts: Iterable[str]) -> tuple[Array, Array]:
    """Texts as one run of UTF-8 bytes, and where each begins and ends."""
    parts = [text.encode("utf-8") for text in texts]
    offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    return np.frombuffer(bytearray(b"".join(parts)), np.uint8), offsets


def _write(out: Path, contents: Contents, tensors: Mapping[str, Array]) -> None:
    with write_folder(out) as folder:
        path = folder / STORE
        write_tensors(
            path,
            {name: torch.from_numpy(array) for name, array in tensors.items()},
            {"contents": contents.model_dump_json()},
        )
        told = contents.model_dump() | {"bytes": path.stat().st_size, "sha256": sha256(path)}
        write_json(folder / MANIFEST, told)
