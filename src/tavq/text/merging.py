"""Joins text stores that were made of parts of a data set, on several machines say, without encoding anything again."""

import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from tavq.core.errors import DataError, UsageError
from tavq.core.files import lock, sha256_bytes, write_json
from tavq.text.building import LOCK, PLAN, check_free, check_working
from tavq.text.store import STORE, Contents, TextStore
from tavq.text.store_writer import start_writer


def find_shards(out: Path) -> list[Path]:
    """The parts of the store `out` that stand beside it, in their order.

    Raises UsageError where there are none, where some are missing, or where they are of two divisions.
    """
    pattern = re.compile(re.escape(out.name) + r"-(\d+)-of-(\d+)")
    found = [match for path in out.parent.glob(f"{out.name}-*") if (match := pattern.fullmatch(path.name))]
    counts = {int(match[2]) for match in found}
    if len(counts) != 1:
        if counts:
            told = " and of ".join(map(str, sorted(counts)))
            raise UsageError(f"There are parts of {told} of {out} beside it; move those of one division away.")
        raise UsageError(f"There are no parts of {out} beside it ({out.name}-1-of-N, …); make them with: --shard 1/N")
    [count] = counts
    numbers = {int(match[1]) for match in found}
    missing = [str(number) for number in range(1, count + 1) if number not in numbers]
    if missing or len(numbers) != count:
        raise UsageError(f"Of the {count} parts of {out} these are missing: {', '.join(missing) or 'some'}.")
    return [out.with_name(f"{out.name}-{number}-of-{count}") for number in range(1, count + 1)]


def merge_stores(parts: Sequence[Path], out: Path) -> TextStore:
    """The store `out` of all images of some stores, in their order; each distinct unit stands once again.

    Vectors are copied. Every part is checked against its SHA-256 before.

    Raises:
        UsageError: the parts were made in different ways, or `out` is a folder of something else.
        DataError: an image is in two parts.
        FileError: a part is cut or altered, or the disk is full.
    """
    check_free(out)
    stores = [TextStore.open(part, verify=True) for part in parts]
    contents = _together(stores)
    work = out.parent / f"{out.name}.merging"
    check_working(work)
    with lock(work / LOCK, out):
        write_json(work / PLAN, {"merging": [str(part) for part in parts]})
        try:
            draft = start_writer(work, [store.folder / STORE for store in stores], contents, copy_vectors=True)
            with closing(draft.file):
                draft.finish(out, _faults(stores))
        except DataError as error:
            raise DataError(f"{error} The parts must be of different images.") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return TextStore.open(out)


def _together(stores: Sequence[TextStore]) -> Contents:
    """What is the same in all stores, with all their faults."""
    first = stores[0].manifest
    for store in stores[1:]:
        for name in ("encoder", "splitter", "full_text", "float16"):
            one, other = getattr(first, name), getattr(store.manifest, name)
            if one != other:
                raise UsageError(
                    f"{stores[0].folder} and {store.folder} differ in {name}: {_told(one)} and {_told(other)}; "
                    "parts of one store are made with the same flags."
                )
    faults = sum((Counter(store.manifest.faults) for store in stores), Counter[str]())
    texts = sha256_bytes("\n".join(store.manifest.texts for store in stores).encode())
    return Contents(
        format=first.format,
        encoder=first.encoder,
        splitter=first.splitter,
        full_text=first.full_text,
        float16=first.float16,
        texts=texts,
        faults=dict(sorted(faults.items())),
    )


def _told(value: object) -> str:
    fields = value.model_dump() if hasattr(value, "model_dump") else value
    return " ".join(map(str, fields.values())) if isinstance(fields, dict) else str(fields)


def _faults(stores: Sequence[TextStore]) -> Iterator[tuple[str, str]]:
    for store in stores:
        yield from store.faults()
