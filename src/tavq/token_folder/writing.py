"""Writes a folder of token shards: each in one step, by any number of processes, and its manifest when all are there.

Which images a shard holds follows from the data set and the shard size alone. So it does not matter who writes it: the
parts of a job array, the processes of torchrun and a single process leave the same bytes, and a shard that is there and
intact is never written again. Progress is kept nowhere else.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tavq.core.errors import FileError, UsageError
from tavq.core.files import read_manifest, sha256, write_json
from tavq.core.locks import lock
from tavq.core.temporary import TEMP_PREFIX
from tavq.data.records import Record
from tavq.data.sharding import Shard as Part
from tavq.token_folder.manifest import COMMAND, FORMAT, KIND, MANIFEST, Manifest, ShardNote
from tavq.token_folder.packing import bits_per_index
from tavq.token_folder.shard import Shard, TokenImage, TokenSettings, shard_name, write_shard

LOCK = ".lock"

NAMED = 5
"""Files that an error names."""


@contextmanager
def begin(out: Path, settings: TokenSettings, part: Part, resume: bool) -> Iterator[None]:
    """Hold the lock of a part of a folder, whose manifest says what it will hold.

    Args:
        out: the folder; new, or of the same settings.
        settings: what decides about the shards.
        part: which of them are to be written here.
        resume: whether some of them may be there.

    Raises:
        UsageError: `out` holds something else, tokens with other settings, or shards of this part without `resume`.
        FileError: another process writes there, or the folder cannot be written.
    """
    _check_content(out)
    with lock(out / part.add_suffix(LOCK), out):
        _check_writers(out, part)
        stored = read_settings(out)
        if stored is None:
            write_json(out / MANIFEST, _manifest(settings, ()).model_dump(mode="json"))
        else:
            check_same(out, stored, settings)
        there = [number for number in numbers_of(settings, part) if (out / shard_name(number)).exists()]
        if there and not resume:
            raise UsageError(
                f"{out} already holds {len(there):,} of these shards; keep them with --resume, or choose another --out."
            )
        yield


def _check_content(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; token shards need a folder. For one file leave --shard-size out.")
    own = re.compile(rf"tokens-\d+\.safetensors|{re.escape(MANIFEST)}|{re.escape(LOCK)}.*|{re.escape(TEMP_PREFIX)}.*")
    others = sorted(path.name for path in out.iterdir() if not own.fullmatch(path.name)) if out.exists() else []
    if others:
        raise UsageError(f"{out} holds {others[0]}, which is not a part of token shards; choose another --out.")


def _check_writers(out: Path, part: Part) -> None:
    """Refuse to write where a process writes parts of another division, which would do the same work again."""
    for path in sorted(out.glob(f"{LOCK}*")):
        found = re.fullmatch(rf"{re.escape(LOCK)}(?:-\d+-of-(\d+))?", path.name)
        if found and int(found[1] or 1) != part.of:
            with lock(path, out):
                pass


def read_settings(out: Path) -> TokenSettings | None:
    """The settings that the manifest in a folder names; None without one."""
    if not (out / MANIFEST).is_file():
        return None
    return read_manifest(out / MANIFEST, Manifest, FORMAT, KIND, COMMAND).settings


def check_same(place: Path, stored: TokenSettings, now: TokenSettings) -> None:
    """Raise UsageError where tokens at a place are of another model, data set or size."""
    names = {"model": "model", "data": "data set", "images": "number of images"}
    for name, value in now.model_dump().items():
        if getattr(stored, name) != value:
            what = names.get(name, name.replace("_", " "))
            raise UsageError(
                f"{place} cannot be continued: its {what} is {str(getattr(stored, name))[:80]}, and now "
                f"{str(value)[:80]}; choose another --out."
            )


def numbers_of(settings: TokenSettings, part: Part) -> range:
    """The numbers of the shards of a part."""
    return range(part.number - 1, settings.shards, part.of)


def find_pending(
    out: Path, settings: TokenSettings, numbers: Iterable[int], report: Callable[[str], None]
) -> list[int]:
    """The shards that are missing or damaged; `report` receives each damaged one.

    Cost: reads the shards that are there. Raises UsageError where one belongs to another folder.
    """
    pending = []
    for number in numbers:
        path = out / shard_name(number)
        if not path.exists():
            pending.append(number)
            continue
        try:
            _open(path, settings, number)
        except FileError as error:
            report(f"{error} It is encoded again.")
            pending.append(number)
    return pending


def _open(path: Path, settings: TokenSettings, number: int) -> Shard:
    found = Shard(path, verify=True)
    check_same(path, found.settings, settings)
    if found.number != number:
        raise UsageError(f"{path} is shard {found.number}, renamed; name it {shard_name(found.number)}.")
    return found


def records_of(records: Sequence[Record], settings: TokenSettings, numbers: Iterable[int]) -> list[Record]:
    """The images of shards, one shard after the other."""
    size = settings.shard_size
    return [record for number in numbers for record in records[number * size : (number + 1) * size]]


def write_shards(
    out: Path,
    settings: TokenSettings,
    records: Sequence[Record],
    numbers: Sequence[int],
    encoded: Iterable[TokenImage],
) -> None:
    """Write shards as soon as their images are encoded.

    Args:
        out: the folder.
        settings: what decides about the shards.
        records: all images of the data set.
        numbers: of the shards to write.
        encoded: the images of these shards in their order, without those that cannot be read.
    """
    size = settings.shard_size
    chosen = [(number, records[number * size : (number + 1) * size]) for number in numbers]
    shard_of = {record.file_name: number for number, own in chosen for record in own}
    waiting, images = iter(chosen), list[TokenImage]()
    number, own = next(waiting, (-1, []))
    for image in encoded:
        while shard_of[image.key] != number:
            write_shard(out / shard_name(number), settings, number, images, len(own) - len(images))
            (number, own), images = next(waiting), []
        images.append(image)
    while number >= 0:
        write_shard(out / shard_name(number), settings, number, images, len(own) - len(images))
        (number, own), images = next(waiting, (-1, [])), []


def finish(out: Path, settings: TokenSettings, check: Callable[[Manifest], None]) -> Manifest | None:
    """Write the manifest of a folder that has all its shards and return it; None where some are missing.

    Two processes that finish at the same time write the same bytes.

    Args:
        out: the folder.
        settings: what decides about the shards.
        check: raises where the folder must not become complete.

    Raises:
        FileError: a shard is damaged, or the manifest cannot be written.
        UsageError: a shard belongs to another folder.
    """
    if find_missing(out, settings):
        return None
    notes = []
    for number in range(settings.shards):
        path = out / shard_name(number)
        found = _open(path, settings, number)
        notes.append(
            ShardNote(
                file=path.name,
                sha256=sha256(path),
                bytes=path.stat().st_size,
                images=len(found),
                missing=found.missing,
            )
        )
    manifest = _manifest(settings, notes)
    check(manifest)
    write_json(out / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def find_missing(out: Path, settings: TokenSettings) -> list[str]:
    """The names of shards that are not there yet."""
    there = {path.name for path in out.iterdir()}
    return [name for name in map(shard_name, range(settings.shards)) if name not in there]


def list_missing(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _manifest(settings: TokenSettings, notes: Sequence[ShardNote]) -> Manifest:
    fields: dict[str, Any] = {
        "format": FORMAT,
        "kind": KIND,
        "complete": bool(notes),
        "settings": settings,
        "bits": tuple(map(bits_per_index, settings.entries)),
        "images": sum(note.images for note in notes),
        "missing": sum(note.missing for note in notes),
        "shards": tuple(notes),
    }
    return Manifest(**fields)
