"""CamVid: 701 frames of driving videos with label maps, as the SegNet tutorial distributes them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from tavq.data.folder import Progress
from tavq.data.records import SPLITS, Record
from tavq.importers.archives import ImageFiles
from tavq.importers.importing import ImportSummary, Source, sources
from tavq.importers.layouts import find_folder, require_folder
from tavq.importers.published import PublishedDataset
from tavq.importers.reasons import NOT_LISTED

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car", "pedestrian", "bicyclist",
    "unlabelled",
)  # fmt: skip
"""In the order of the SegNet tutorial's indices; the last is not a class but pixels without a label."""


FOLDERS = ("CamVid/train", "train")


@sources.register("camvid")
class Camvid(Source):
    """Brostow et al. 2008 in the form of Badrinarayanan et al. 2017: 11 classes, 367, 101 and 233 frames.

    The lists train.txt, val.txt and test.txt are not needed, because the folders say the same. A tar file may hold the
    same files, in folders or with `__` instead of the slash (train__0001TP_006690.jpg). For academic use.
    """

    layout = "CamVid/{train,val,test}/ and CamVid/{trainannot,valannot,testannot}/, or camvid*.tar with the same"

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Write the frames to `out`/images and the annotations to `out`/segmentation, both unchanged."""
        files = ImageFiles([_find_location(source)], name_file=_folder_and_name)
        annotations = {str(PurePosixPath(name).with_suffix("")): name for name in files}
        records, frames, left_out = {}, {}, Counter[str]()
        for split in SPLITS:
            for name in sorted(name for name in files if name.startswith(f"{split}/")):
                stem = PurePosixPath(name).stem
                annotation = annotations.get(f"{split}annot/{stem}")
                if annotation is None:
                    left_out[NOT_LISTED] += 1
                else:
                    frames[annotation] = name
                    records[name] = Record(f"images/{name}", split, segmentation=f"segmentation/{split}/{stem}.png")

        def read_maps(chosen: Sequence[str]) -> Iterator[tuple[str, bytes]]:
            names = set(chosen)
            wanted = [annotation for annotation, frame in frames.items() if frame in names]
            return ((frames[annotation], data) for annotation, data in files.read(wanted))

        found = PublishedDataset(
            files, records, left_out=left_out, segmentations=read_maps, classes=dict(enumerate(CLASSES))
        )
        return found.write(out, progress, limit)


def _find_location(source: Path) -> Path:
    """The folder that holds the folders of the splits, or the only tar file."""
    tars = sorted(path for path in source.glob("*.tar*") if path.name.lower().startswith("camvid"))
    if find_folder(source, FOLDERS) is None and len(tars) == 1:
        return tars[0]
    return require_folder(source, FOLDERS, "frames (and no single camvid*.tar)").parent


def _folder_and_name(inner: str) -> str:
    """`train/0001TP_006690.jpg` for CamVid/train/0001TP_006690.jpg and for train__0001TP_006690.jpg."""
    return "/".join(inner.replace("__", "/").split("/")[-2:])
