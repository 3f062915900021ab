"""Flickr8k: 8,000 photographs with five captions each."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tavq.core.errors import DataError
from tavq.core.files import read_text
from tavq.data.folder import Progress
from tavq.data.importing import (
    ImportSummary,
    PictureFiles,
    Source,
    find_file,
    is_picture_name,
    new_folder,
    sources,
    summarize,
    write_records,
)
from tavq.data.layouts import token_captions
from tavq.data.records import Record

TEXT_FOLDERS = ("Flickr8k_text",)
PICTURE_FOLDERS = ("Flicker8k_Dataset", "Flickr8k_Dataset", "Images", "images")  # the first is the publishers' spelling
SPLITS = {"train": "train", "val": "dev", "test": "test"}


@sources.register("flickr8k")
class Flickr8k(Source):
    """Hodosh, Young and Hockenmaier 2013, as published: captions in one file, a list of pictures for each split.

    For research use only; the photographs belong to their makers. The 91 pictures outside of the official split are
    left out, as in all published results.
    """

    layout = "Flickr8k.token.txt, Flickr_8k.{train,dev,test}Images.txt, pictures in Flicker8k_Dataset/ or images*.tar"

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Writes the split's pictures unchanged to `out`/images, with their captions in the published order."""
        captions, empty = token_captions(find_file(source, "Flickr8k.token.txt", TEXT_FOLDERS))
        splits = {
            split: _listed(find_file(source, f"Flickr_8k.{name}Images.txt", TEXT_FOLDERS))
            for split, name in SPLITS.items()
        }
        pictures = PictureFiles(source, PICTURE_FOLDERS, "images*.tar")
        here = {split: [name for name in names if name in pictures.names] for split, names in splits.items()}
        records = [
            Record(f"images/{name}", split, captions.get(name, ()))
            for split, names in here.items()
            for name in names[:limit]
        ]
        if not records:
            raise DataError(f"None of the pictures that the splits list is in {pictures.place}.")
        left_out = _left_out(captions, splits, here, pictures.names) | {
            "captions that are empty": empty,
            "pictures beyond the limit": sum(map(len, here.values())) - len(records),
        }
        _write(out, records, pictures, progress)
        return summarize(records, left_out)


def _listed(path: Path) -> list[str]:
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    wrong = next((name for name in names if not is_picture_name(name)), None)
    if wrong is not None:
        raise DataError(f"{path} lists {wrong!r:.100}; expected one picture file name a line.")
    return list(dict.fromkeys(names))


def _left_out(
    captions: Mapping[str, tuple[str, ...]],
    splits: Mapping[str, Sequence[str]],
    here: Mapping[str, Sequence[str]],
    names: frozenset[str],
) -> dict[str, int]:
    listed = {name for split in splits.values() for name in split}
    return {
        "pictures in no split": len(names - listed),
        "listed pictures without a file": sum(map(len, splits.values())) - sum(map(len, here.values())),
        "captioned names without a file": len(captions.keys() - names - listed),
    }


def _write(out: Path, records: Sequence[Record], pictures: PictureFiles, progress: Progress | None) -> None:
    written = 0

    def done() -> None:
        nonlocal written
        written += 1
        if progress:
            progress(written, len(records))

    with new_folder(out) as folder:
        pictures.copy([Path(record.file_name).name for record in records], folder / "images", done)
        write_records(folder, records)
