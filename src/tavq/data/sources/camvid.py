"""CamVid: 701 frames of street film with the class of every pixel, as the SegNet tutorial distributes them."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath

from tavq.core.errors import DataError
from tavq.core.files import read_bytes
from tavq.data.folder import Progress
from tavq.data.importing import ImportSummary, Source, is_picture_name, sources
from tavq.data.intake import Found, stored, take_all
from tavq.data.layouts import find_folder, need_folder
from tavq.data.records import SPLITS, Record
from tavq.data.tars import open_tar, read_alone, tar_members

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car", "pedestrian", "bicyclist",
    "unlabelled",
)  # fmt: skip
"""The SegNet tutorial's numbers; the last is no class but what nobody labelled."""

Files = dict[tuple[str, str], tuple[str, Callable[[], bytes]]]
"""By folder and stem (`trainannot`, `0001TP_006690`): the file's name and how to read it."""


@sources.register("camvid")
class Camvid(Source):
    """Brostow et al. 2008 in the form of Badrinarayanan et al. 2017: 11 classes, 367, 101 and 233 frames.

    The lists train.txt, val.txt and test.txt say what the folders say too and are not needed. A tar file may hold the
    same files, in folders or with `__` in the place of the slash (train__0001TP_006690.jpg). For academic use.
    """

    layout = "CamVid/{train,val,test}/ and CamVid/{trainannot,valannot,testannot}/, or camvid*.tar with the same"

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Writes the frames to `out`/images and the annotations to `out`/segmentation, both unchanged."""
        files = _files(source)
        left_out: Counter[str] = Counter()
        found = []
        for (folder, stem), (name, read) in sorted(files.items(), key=lambda file: file[0]):
            annotation = files.get((f"{folder}annot", stem))
            if folder in SPLITS and annotation is None:
                left_out["frames without an annotation"] += 1
            elif folder in SPLITS and annotation is not None:
                record = Record(f"images/{folder}/{name}", folder, segmentation=f"segmentation/{folder}/{stem}.png")
                found.append(Found(record, read, stored(annotation[1])))
        if not found:
            raise DataError(f"There are no frames with annotations in {source}: {self.layout} were looked for.")
        found.sort(key=lambda picture: SPLITS.index(picture.record.split))
        return take_all(out, found, left_out, progress, limit, CLASSES)


def _files(source: Path) -> Files:
    tars = sorted(path for path in source.glob("*.tar*") if path.name.lower().startswith("camvid"))
    folder = find_folder(source, ["CamVid/train", "train"])
    if folder is None and len(tars) == 1:
        return _in_tar(tars[0])
    root = need_folder(source, ["CamVid/train", "train"], "frames (and no single camvid*.tar)").parent
    places = [root / f"{split}{ending}" for split in SPLITS for ending in ("", "annot")]
    paths = [path for place in places if place.is_dir() for path in place.iterdir() if is_picture_name(path.name)]
    return {(path.parent.name, path.stem): (path.name, partial(read_bytes, path)) for path in paths}


def _in_tar(path: Path) -> Files:
    files: Files = {}
    with open_tar(path) as archive:
        for member in tar_members(path, archive):
            *_, folder, name = ["", "", *member.name.replace("__", "/").split("/")]
            if is_picture_name(name):
                files[folder, PurePosixPath(name).stem] = (name, partial(read_alone, path, member))
    return files
