"""Data sets of the Hugging Face hub, and local folders that its package `datasets` reads."""

import contextlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from tavq.core.errors import DataError, FileError, UsageError
from tavq.core.files import read_bytes
from tavq.data.folder import Progress
from tavq.data.foreign_names import parse_split
from tavq.data.images import FORMATS
from tavq.importers.importing import ImportSummary, Source, sources
from tavq.importers.reasons import UNREADABLE
from tavq.importers.writer import DatasetWriter, create_dataset

SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "GIF": ".gif", "TIFF": ".tif",
            "PPM": ".ppm", "AVIF": ".avif", "JPEG2000": ".jp2"}  # fmt: skip
SAVED = ("dataset_dict.json", "state.json")
"""Files by which a folder of `save_to_disk` is recognized."""


@sources.register("huggingface")
class HuggingFace(Source):
    """A folder of images (`imagefolder`), a folder written by `save_to_disk`, or a name on the hub (`owner/name`).

    Uses the first image column, and the columns `captions` (or `caption`, `sentences`, `text`), `long_text`, `objects`
    and `questions` if they have the form of metadata.jsonl. The splits train, validation and test keep their meaning;
    a data set without splits is for training. Needs the extra `tavq[hf]` with `datasets` 4 or later, because earlier
    versions run code that comes with a data set.
    """

    layout = "a local imagefolder or save_to_disk folder, or a name on the hub; needs: pip install 'tavq[hf]'"

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Write the images byte for byte to `out`/images/SPLIT/NUMBER.jpg."""
        datasets = _import_datasets()
        splits = _load_splits(datasets, source)
        done, total = 0, sum(map(len, splits.values()))
        with create_dataset(out, limit) as writer:
            for published, rows in splits.items():
                split = parse_split(published)
                for number, (data, fields) in enumerate(_rows(datasets, source, rows) if split else ()):
                    if writer.has_room(str(split)):
                        _add_image(writer, str(split), number, data, fields)
                    done += 1
                    if progress:
                        progress(done, total)
                if split is None:
                    writer.left_out[f"images of the split {published!r} (train, val and test are known)"] += len(rows)
            return writer.finish()


def _import_datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UsageError("Importing from Hugging Face needs the package datasets: pip install 'tavq[hf]'.") from error
    if int(datasets.__version__.partition(".")[0]) < 4:  # these run code that comes with a data set
        raise UsageError(
            f"datasets {datasets.__version__} is too old; install 4 or later: pip install --upgrade 'tavq[hf]'."
        )
    return datasets


def _load_splits(datasets: Any, source: Path) -> Mapping[str, Any]:
    """The rows of each split; each of the many errors of `datasets` becomes one line that names the source."""
    try:
        if any((source / name).is_file() for name in SAVED):
            loaded = datasets.load_from_disk(str(source))
        elif source.is_dir():
            loaded = datasets.load_dataset("imagefolder", data_dir=str(source))
        else:
            loaded = datasets.load_dataset(source.as_posix())
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"datasets cannot load {source} as a folder or a name on the hub: {reason}") from error
    return loaded if isinstance(loaded, dict) else {"train": loaded}


def _rows(datasets: Any, source: Path, rows: Any) -> Iterator[tuple[bytes | None, Mapping[str, Any]]]:
    """The image file and the other fields of each row, without decoding the image."""
    column = next((name for name, kind in rows.features.items() if isinstance(kind, datasets.Image)), None)
    if column is None:
        raise DataError(f"{source} has no image column; it has: {', '.join(rows.features)}.")
    for row in rows.cast_column(column, datasets.Image(decode=False)):
        yield _read_image(row.pop(column)), row


def _read_image(image: Any) -> bytes | None:
    if isinstance(image, dict) and image.get("bytes"):
        return bytes(image["bytes"])
    if isinstance(image, dict) and image.get("path"):
        with contextlib.suppress(FileError):
            return read_bytes(Path(image["path"]))
    return None


def _add_image(writer: DatasetWriter, split: str, number: int, data: bytes | None, fields: Mapping[str, Any]) -> None:
    suffix = _find_suffix(data) if data is not None else None
    if data is None or suffix is None:
        writer.left_out[UNREADABLE] += 1
        return
    record = writer.build_record(f"images/{split}/{number:08d}{suffix}", split, fields)
    if record is not None:
        writer.add(record, data)


def _find_suffix(data: bytes) -> str | None:
    """The usual suffix of an image file, from its content."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return SUFFIXES[str(image.format)]
    except Exception:  # a hostile file may raise anything
        return None
