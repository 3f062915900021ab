"""ADE20K as SceneParse150: 22,210 scenes with label maps of 150 classes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from tavq.core.errors import DataError
from tavq.core.files import read_bytes
from tavq.data.folder import Progress
from tavq.data.foreign_text import read_foreign_text, split_lines
from tavq.data.records import Record
from tavq.importers.archives import ImageFiles
from tavq.importers.importing import ImportSummary, Source, sources
from tavq.importers.layouts import find_file, require_folder
from tavq.importers.published import PublishedDataset
from tavq.importers.reasons import NOT_LISTED

NAMES = "objectInfo150.txt"
SPLITS = {"train": "training", "val": "validation"}


@sources.register("ade20k")
class Ade20k(Source):
    """Zhou et al. 2017, in the form of the scene parsing challenge of 2016 (ADEChallengeData2016).

    20,210 images for training and 2,000 for validation; the test images have no labels. A pixel is 0 (other) or 1 to
    150. There are no captions. The full ADE20K is not supported: its 3,000 classes are coded as colours and named in a
    pickle.
    """

    layout = f"ADEChallengeData2016/{NAMES}, images/{{training,validation}}/, annotations/{{training,validation}}/"

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Write the images to `out`/images and the annotations to `out`/segmentation, both unchanged."""
        root = find_file(source, NAMES, ("ADEChallengeData2016",)).parent
        classes = _read_classes(root / NAMES)
        for published in SPLITS.values():
            require_folder(root, [f"images/{published}"], "images")
        images = ImageFiles([root / "images"], name_file=str)
        records, annotations, left_out = {}, {}, Counter[str]()
        for split, published in SPLITS.items():
            for name in sorted(name for name in images if name.rpartition("/")[0] == published):
                png = PurePosixPath(name).with_suffix(".png")
                annotations[name] = root / "annotations" / png
                if annotations[name].is_file():
                    records[name] = Record(f"images/{name}", split, segmentation=f"segmentation/{png}")
                else:
                    left_out[NOT_LISTED] += 1

        def read_maps(chosen: Sequence[str]) -> Iterator[tuple[str, bytes]]:
            return ((name, read_bytes(annotations[name])) for name in chosen)

        found = PublishedDataset(images, records, left_out=left_out, segmentations=read_maps, classes=classes)
        return found.write(out, progress, limit)


def _read_classes(path: Path) -> dict[int, str]:
    """The class names by index, from a table whose first column is the index and whose last is the name."""
    names = {"0": "other"}
    for line in split_lines(read_foreign_text(path))[1:]:
        if line.strip():
            columns = line.split("\t")
            names[columns[0].strip()] = columns[-1].strip()
    if list(names) != [str(number) for number in range(len(names))] or len(names) == 1:
        raise DataError(f"{path} must number its classes from 1, in tab-separated columns Idx, ..., Name.")
    return dict(enumerate(names.values()))
