"""Merges text stores that were built from shards of a data set, on several machines say, without encoding again."""

import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from tavq.core.errors import DataError, UsageError
from tavq.core.files import sha256_bytes, write_json
from tavq.core.locks import lock
from tavq.text.building import LOCK, PLAN, check_work_folder
from tavq.text.store import STORE, Contents, TextStore
from tavq.text.store_writer import check_out, start_writer

SAME = ("encoder", "splitter", "full_text", "float16", "each_caption")
"""What the shards of a store must have in common."""


def find_shards(out: Path) -> list[Path]:
    """The shards OUT-1-of-N to OUT-N-of-N of the store `out`, in their order.

    Raises UsageError if there are none, if some are missing, or if they come from two different splits.
    """
    pattern = re.compile(re.escape(out.name) + r"-(\d+)-of-(\d+)")
    matches = [match for path in out.parent.glob(f"{out.name}-*") if (match := pattern.fullmatch(path.name))]
    counts = {int(match[2]) for match in matches}
    if len(counts) > 1:
        listed = " and of ".join(map(str, sorted(counts)))
        raise UsageError(f"Found shards of {out} from different splits (of {listed}); remove all but one set.")
    if not counts:
        raise UsageError(f"There are no shards of {out} ({out.name}-1-of-N, …); make them with: --shard 1/N")
    [count] = counts
    numbers = {int(match[1]) for match in matches}
    missing = [str(number) for number in range(1, count + 1) if number not in numbers]
    if missing or len(numbers) != count:
        raise UsageError(f"Of the {count} shards of {out} these are missing: {', '.join(missing) or 'some'}.")
    return [out.with_name(f"{out.name}-{number}-of-{count}") for number in range(1, count + 1)]


def merge_stores(shards: Sequence[Path], out: Path) -> TextStore:
    """Build the store `out` of all images of some stores, in their order; each distinct unit is again stored once.

    Vectors are copied. Every shard is checked against its SHA-256 before.

    Raises:
        UsageError: the shards were built with different settings, or `out` is a folder of something else.
        DataError: an image is in two shards.
        FileError: a shard is truncated or altered, or the disk is full.
    """
    check_out(out)
    stores = [TextStore.open(shard) for shard in shards]
    contents = _merge_contents(stores)
    work = out.parent / f"{out.name}.merging"
    check_work_folder(work)
    with lock(work / LOCK, out):
        write_json(work / PLAN, {"merging": [str(shard) for shard in shards]})
        try:
            writer = start_writer(work, [store.folder / STORE for store in stores], contents, copy_vectors=True)
            with closing(writer.file):
                writer.finish(out, _read_faults(stores))
        except DataError as error:
            raise DataError(f"{error} The shards must be of different images.") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return TextStore.open(out, verify=False)


def _merge_contents(stores: Sequence[TextStore]) -> Contents:
    """The settings that all stores share, with the faults of all of them."""
    first = stores[0].manifest
    for store in stores[1:]:
        for name in SAME:
            expected, found = getattr(first, name), getattr(store.manifest, name)
            if expected != found:
                raise UsageError(
                    f"{stores[0].folder} and {store.folder} differ in {name}: {_format(expected)} and "
                    f"{_format(found)}; build all shards with the same flags."
                )
    faults = sum((Counter(store.manifest.faults) for store in stores), Counter[str]())
    texts = sha256_bytes("\n".join(store.manifest.texts for store in stores).encode())
    return Contents(
        format=first.format,
        encoder=first.encoder,
        splitter=first.splitter,
        full_text=first.full_text,
        float16=first.float16,
        each_caption=first.each_caption,
        texts=texts,
        faults=dict(sorted(faults.items())),
    )


def _format(value: object) -> str:
    fields = value.model_dump() if hasattr(value, "model_dump") else value
    return " ".join(map(str, fields.values())) if isinstance(fields, dict) else str(fields)


def _read_faults(stores: Sequence[TextStore]) -> Iterator[tuple[str, str]]:
    for store in stores:
        yield from store.faults()
