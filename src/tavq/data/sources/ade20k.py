"""ADE20K as SceneParse150: 22,210 scenes with the class of every pixel, of 150."""

from collections import Counter
from functools import partial
from pathlib import Path

from tavq.core.errors import DataError
from tavq.core.files import read_bytes, read_text
from tavq.data.folder import Progress
from tavq.data.importing import ImportSummary, Source, find_file, is_picture_name, sources
from tavq.data.intake import Found, stored, take_all
from tavq.data.layouts import need_folder
from tavq.data.records import Record

NAMES = "objectInfo150.txt"
SPLITS = {"train": "training", "val": "validation"}


@sources.register("ade20k")
class Ade20k(Source):
    """Zhou et al. 2017, in the form of the scene parsing challenge of 2016 (ADEChallengeData2016).

    20,210 pictures for training and 2,000 for validation; those for testing were never labelled. A pixel is 0 (other)
    or 1 to 150. There are no captions. The full ADE20K, whose 3,000 classes are coded in colours and named in a
    pickle, is not read.
    """

    layout = f"ADEChallengeData2016/{NAMES}, images/{{training,validation}}/, annotations/{{training,validation}}/"

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Writes the pictures to `out`/images and the annotations to `out`/segmentation, both unchanged."""
        root = find_file(source, NAMES, ("ADEChallengeData2016",)).parent
        classes = _classes(root / NAMES)
        left_out: Counter[str] = Counter()
        found = []
        for split, published in SPLITS.items():
            folder = need_folder(root, [f"images/{published}"], "pictures")
            for path in sorted(path for path in folder.iterdir() if is_picture_name(path.name)):
                picture = f"images/{published}/{path.name}"
                annotation = root / f"annotations/{published}/{path.stem}.png"
                left_out["pictures without an annotation"] += not annotation.is_file()
                if annotation.is_file():
                    record = Record(picture, split, segmentation=f"segmentation/{published}/{path.stem}.png")
                    found.append(Found.file(record, path, stored(partial(read_bytes, annotation))))
        return take_all(out, found, left_out, progress, limit, classes)


def _classes(path: Path) -> list[str]:
    """The names by class number, from a table whose first column is the number and whose last is the name."""
    names = {"0": "other"}
    for line in read_text(path).splitlines()[1:]:
        if line.strip():
            columns = line.split("\t")
            names[columns[0].strip()] = columns[-1].strip()
    if list(names) != [str(number) for number in range(len(names))] or len(names) == 1:
        raise DataError(f"{path} does not number its classes from 1 on; expected the columns Idx, ..., Name with tabs.")
    return list(names.values())
