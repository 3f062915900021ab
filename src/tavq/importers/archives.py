"""Finding and reading the image files of a published data set, in folders, tar files and zip files."""

import contextlib
import os
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from tavq.core.errors import DataError
from tavq.core.files import read_bytes
from tavq.data import tars
from tavq.data.foreign_files import SHARDS
from tavq.data.foreign_names import inner_path, is_image_path
from tavq.data.foreign_text import normalize_name

ARCHIVES = (".zip", *SHARDS)


# --- finding locations -----------------------------------------------------------------------------------------------


def find_images(source: Path, *choices: Sequence[str]) -> "ImageFiles":
    """The images in `source`, from the first of the choices that exists at least in part.

    A choice is a list of folders. All that exist are used; instead of a folder there may be an archive of the same
    name, and a name may contain `*`. Raises DataError if no choice exists.
    """
    for names in choices:
        locations = find_locations(source, names)
        if locations:
            return ImageFiles(locations)
    expected = ", ".join(dict.fromkeys(name for names in choices for name in names))
    raise DataError(
        f"There are no images in {source}; expected the folders {expected}, or archives of these names "
        f"({', '.join(ARCHIVES)})."
    )


def find_coco_images(source: Path, names: Sequence[str]) -> "ImageFiles":
    """The images in COCO's folders or archives `names`, in `source` or its images/; else in a folder images*."""
    return find_images(source, [f"{parent}{name}" for parent in ("", "images/") for name in names], ["images*"])


def find_locations(source: Path, names: Sequence[str]) -> list[Path]:
    """The folders `names` that exist in `source`, or the archives of these names; a name may contain `*`."""
    found: dict[Path, None] = {}
    for name in names:
        folders = [path for path in _expand(source, name) if path.is_dir()]
        unpacked = {path.name for path in folders}
        archives = [path for suffix in ARCHIVES for path in _expand(source, f"{name}{suffix}") if path.is_file()]
        found |= dict.fromkeys(folders)
        found |= dict.fromkeys(path for path in archives if archive_stem(path) not in unpacked)
    # on a file system that ignores case, Images and images are one folder: keep the first of each (inode, device)
    distinct = {os.stat(path)[1:3]: path for path in reversed(found)}.values()
    return [path for path in found if path in distinct and found.keys().isdisjoint(path.parents)]


def _expand(source: Path, name: str) -> list[Path]:
    return sorted(source.glob(name)) if "*" in name else [source / name]


def archive_stem(path: Path) -> str:
    """`val2017` of val2017.tar.gz."""
    return path.name.removesuffix(next((suffix for suffix in ARCHIVES if path.name.endswith(suffix)), ""))


# --- reading images --------------------------------------------------------------------------------------------


def base_name(inner: str) -> str:
    """`9.jpg` of `train2017/9.jpg`."""
    return PurePosixPath(inner).name


def read_coco_id(name: str) -> int | None:
    """COCO's id of an image: 9 for 000000000009.jpg (2017) and for COCO_val2014_000000000009.jpg."""
    digits = PurePosixPath(name).stem.rpartition("_")[2]
    return int(digits) if digits.isdecimal() and digits.isascii() and len(digits) <= 12 else None


def find_coco_image(images: "ImageFiles", name: str) -> str | None:
    """The file `name`, else the one with the same COCO id: 2014 and 2017 have the same images under other names."""
    found = images.find(name)
    if found is not None:
        return found
    image_id = read_coco_id(name)
    return None if image_id is None else images.by_coco_id.get(image_id)


class ImageFiles:
    """The image files in folders and archives, by name.

    Folders are searched recursively. Archives are never unpacked to disk, so that no member can choose where it is
    written: only the files that are asked for are read, into memory.

    Args:
        locations: folders, tar files and zip files.
        name_file: the name of a file from its path inside its location; files whose name is then not that of an image
            are skipped.

    Raises:
        DataError: two files have the same name, or an archive is damaged.
    """

    def __init__(self, locations: Sequence[Path], name_file: Callable[[str], str] = base_name) -> None:
        self.locations = list(locations)
        self._files: dict[str, tuple[Path, str]] = {}
        found = [(name_file(inner), location, path) for location in self.locations for inner, path in _inner(location)]
        names = {name for name, _, _ in found}
        for name, location, path in found:
            composed = normalize_name(name)
            # two files whose names differ in their Unicode form alone keep the names they have
            name = name if composed in names else composed
            if is_image_path(name):
                self._add(name, location, path)

    def _add(self, name: str, location: Path, path: str) -> None:
        other = self._files.setdefault(name, (location, path))
        if other != (location, path):
            raise DataError(
                f"There are two files {name}: {path} in {location} and {other[1]} in {other[0]}; remove one."
            )

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def find(self, name: str) -> str | None:
        """The file that annotations call `name`; None if there is none.

        The name may have another Unicode form, and a folder in front (`train2017/9.jpg`, as LVIS writes).
        """
        composed = normalize_name(name)
        return next((form for form in (name, composed, base_name(composed)) if form in self._files), None)

    @cached_property
    def by_stem(self) -> dict[str, str]:
        """The name of each file by its stem, the first one if several share it."""
        return {PurePosixPath(name).stem: name for name in reversed(self._files)}

    @cached_property
    def by_coco_id(self) -> dict[int, str]:
        """The name of each file by its COCO id, the first one if several share it."""
        ids = ((read_coco_id(name), name) for name in reversed(self._files))
        return {image_id: name for image_id, name in ids if image_id is not None}

    def read(self, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """The names in `wanted`, which must exist, and their bytes, in the order in which they are stored."""
        for location in self.locations:
            names = {self._files[name][1]: name for name in wanted if self._files[name][0] == location}
            if names:
                yield from ((names[path], data) for path, data in _read_files(location, names.keys()))


def _inner(location: Path) -> Iterator[tuple[str, str]]:
    """The path of each file inside a location, and the name under which it is stored there."""
    is_folder = location.is_dir()
    return ((path if is_folder else inner_path(path), path) for path in _list_files(location))


def _list_files(location: Path) -> Iterator[str]:
    """The path of each file inside a location."""
    if location.is_dir():
        for folder, _, files in os.walk(location):
            yield from ((Path(folder) / name).relative_to(location).as_posix() for name in sorted(files))
    elif location.suffix == ".zip":
        with _open_zip(location) as archive:
            yield from (info.filename for info in archive.infolist() if not info.is_dir())
    else:
        yield from (member.name for member in tars.iter_members(location))


def _read_files(location: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    if location.is_dir():
        for path in sorted(wanted):
            yield path, read_bytes(location / path)
    elif location.suffix == ".zip":
        with _open_zip(location) as archive:
            for path in wanted:
                yield path, _read_zip_member(location, archive, path)
    else:
        remaining = set(wanted)  # a tar file may hold several members of one name: the first one counts
        for member in tars.iter_members(location):
            if member.name in remaining:
                remaining.remove(member.name)
                yield member.name, member.read()


@contextlib.contextmanager
def _open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} is truncated, damaged or not a zip file: {error}.") from error


def _read_zip_member(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        data = file.read(tars.MAX_IMAGE_FILE + 1)
    if len(data) > tars.MAX_IMAGE_FILE:
        raise DataError(f"{path}: {name!r} has more than {tars.MAX_IMAGE_FILE:,} bytes, too many for an image.")
    return data
