"""Image files of a published data set wherever they were left: in folders, tar files and zip files."""

import contextlib
import os
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from tavq.core.errors import DataError
from tavq.core.files import read_bytes
from tavq.importers import tars
from tavq.importers.layouts import is_image_path

ARCHIVES = (".zip", *tars.SUFFIXES)


# --- finding them -----------------------------------------------------------------------------------------------


def find_images(source: Path, *choices: Sequence[str]) -> "ImageFiles":
    """The images in `source`, in the first of the choices of which something is there.

    A choice names folders, of which all that are there are taken; in the place of each an archive of its name may lie,
    and a name may hold `*`. Raises DataError where there is nothing.
    """
    for names in choices:
        places = find_locations(source, names)
        if places:
            return ImageFiles(places)
    looked = ", ".join(dict.fromkeys(name for names in choices for name in names))
    raise DataError(
        f"There are no images in {source}: the folders {looked} and archives of these names ({', '.join(ARCHIVES)}) "
        "were looked for."
    )


def find_coco_images(source: Path, names: Sequence[str]) -> "ImageFiles":
    """The images in COCO's folders or archives `names`, in `source` or its images/; else in whatever images* is."""
    return find_images(source, [f"{at}{name}" for at in ("", "images/") for name in names], ["images*"])


def find_locations(source: Path, names: Sequence[str]) -> list[Path]:
    """Which of the folders `names` are in `source`, or in their place the archive of that name; a name may hold `*`."""
    found: dict[Path, None] = {}
    for name in names:
        plain = "*" not in name
        folders = [source / name] if plain else sorted(source.glob(name))
        archives = [path for suffix in ARCHIVES for path in _files(source, name, suffix)]
        here = [path for path in folders if path.is_dir()]
        unpacked = {path.name for path in here}
        found |= dict.fromkeys(here)
        found |= dict.fromkeys(path for path in archives if archive_stem(path) not in unpacked)
    single = {os.stat(path)[1:3]: path for path in reversed(found)}.values()  # Images and images may be one folder
    return [path for path in found if path in single and not any(above in found for above in path.parents)]


def _files(source: Path, name: str, suffix: str) -> list[Path]:
    found = [source / f"{name}{suffix}"] if "*" not in name else sorted(source.glob(f"{name}{suffix}"))
    return [path for path in found if path.is_file()]


def archive_stem(path: Path) -> str:
    """`val2017` of val2017.tar.gz."""
    return path.name.removesuffix(next((suffix for suffix in ARCHIVES if path.name.endswith(suffix)), ""))


# --- what is in them --------------------------------------------------------------------------------------------


def base_name(inner: str) -> str:
    """`9.jpg` of `train2017/9.jpg`."""
    return PurePosixPath(inner).name


def coco_id(name: str) -> int | None:
    """The number by which COCO knows an image: 9 of 000000000009.jpg (2017) and of COCO_val2014_000000000009.jpg."""
    digits = PurePosixPath(name).stem.rpartition("_")[2]
    return int(digits) if digits.isdecimal() and digits.isascii() and len(digits) <= 12 else None


def find_coco_image(images: "ImageFiles", name: str) -> str | None:
    """The file `name`, else the one of the same COCO number: 2014 and 2017 hold the same images by other names."""
    number = coco_id(name)
    return name if name in images else None if number is None else images.by_coco_id.get(number)


class ImageFiles:
    """The image files in several places, by their plain names or what else they are known as.

    Folders are searched through. Nothing is unpacked under a name that an archive chose: only files that are asked
    for are read, as bytes. `name_file` gives the name by which a file is asked for from its path within its place; what
    is then no image's name is passed by.

    Raises DataError when two files are known by the same name, or an archive is not whole.
    """

    def __init__(self, places: Sequence[Path], name_file: Callable[[str], str] = base_name) -> None:
        self.places = list(places)
        self._inner: dict[str, tuple[Path, str]] = {}
        for place in self.places:
            for inner in _inner_names(place):
                name = name_file(inner)
                if is_image_path(name):
                    self._add(name, place, inner)

    def _add(self, name: str, place: Path, inner: str) -> None:
        other = self._inner.setdefault(name, (place, inner))
        if other != (place, inner):
            raise DataError(f"There are two files {name}: {inner} in {place} and {other[1]} in {other[0]}; leave one.")

    def __len__(self) -> int:
        return len(self._inner)

    def __contains__(self, name: object) -> bool:
        return name in self._inner

    def __iter__(self) -> Iterator[str]:
        return iter(self._inner)

    @cached_property
    def by_stem(self) -> dict[str, str]:
        """The name of each file by what stands before its suffix, the first where several share it."""
        return {PurePosixPath(name).stem: name for name in reversed(self._inner)}

    @cached_property
    def by_coco_id(self) -> dict[int, str]:
        """The name of each file by its COCO number, the first where several share it."""
        numbers = ((coco_id(name), name) for name in reversed(self._inner))
        return {number: name for number, name in numbers if number is not None}

    def contents(self, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """The names in `wanted`, all of them found here, with their bytes, in the order in which they lie."""
        for place in self.places:
            inner = {self._inner[name][1]: name for name in wanted if self._inner[name][0] == place}
            if inner:
                yield from ((inner[there], data) for there, data in _contents(place, inner.keys()))


def _inner_names(place: Path) -> Iterator[str]:
    if place.is_dir():
        for folder, _, files in os.walk(place):
            yield from ((Path(folder) / name).relative_to(place).as_posix() for name in sorted(files))
    elif place.suffix == ".zip":
        with _open_zip(place) as archive:
            yield from (info.filename for info in archive.infolist() if not info.is_dir())
    else:
        yield from (member.name for member in tars.stream(place))


def _contents(place: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    if place.is_dir():
        for name in sorted(wanted):
            yield name, read_bytes(place / name)
    elif place.suffix == ".zip":
        with _open_zip(place) as archive:
            for name in wanted:
                yield name, _zipped(place, archive, name)
    else:
        left = set(wanted)
        for member in tars.stream(place):
            if member.name in left:
                left.remove(member.name)
                yield member.name, member.read()


@contextlib.contextmanager
def _open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} is not a whole zip file that can be read: {error}.") from error


def _zipped(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        data = file.read(tars.MAX_IMAGE_FILE + 1)
    if len(data) > tars.MAX_IMAGE_FILE:
        raise DataError(f"{path}: {name!r} holds more than {tars.MAX_IMAGE_FILE} bytes; it is no image.")
    return data
