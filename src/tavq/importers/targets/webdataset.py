"""WebDataset shards, for training at scale by whatever reads them; `tavq data import webdataset` reads them back."""

import contextlib
from collections import Counter
from pathlib import Path, PurePosixPath

from tavq.core.errors import DataError
from tavq.core.files import create_folder, read_bytes, write_bytes
from tavq.data.folder import SEGMENTATION_CLASSES, FolderDataset, Progress
from tavq.data.images import check_image, load_segmentation
from tavq.data.records import Record, to_line
from tavq.importers.exporting import ExportSummary, Format, formats
from tavq.importers.reasons import UNREADABLE, UNUSABLE_SEGMENTATION
from tavq.importers.samples import JSON, SEGMENTATION, TEXT, SampleWriter


@formats.register("webdataset")
class WebDatasetFormat(Format):
    """Shards SPLIT-000000.tar, in the order of metadata.jsonl; a key is the image's place in it.

    KEY.jpg (or .png, ...) holds the image's file byte for byte, KEY.json all fields of the record, KEY.txt the
    captions, one a line (the long text where there are none), KEY.seg.png the segmentation. Images that cannot be
    decoded are left out. The names of the classes lie beside the shards, in segmentation_classes.json: in a shard they
    would be a sample without an image to most readers.
    """

    layout = "SPLIT-000000.tar, ... with KEY.jpg, KEY.json, KEY.txt and KEY.seg.png; segmentation_classes.json"

    def run(self, folder: Path, out: Path, shard_size: int, progress: Progress | None = None) -> ExportSummary:
        """Decodes each image once to see that it is whole: 1 ms for 128 pixels a side, 10 ms for a megapixel."""
        dataset = FolderDataset(folder)
        images: Counter[str] = Counter()
        left_out = Counter({"faults of metadata.jsonl": len(dataset.faults)})
        writers: dict[str, SampleWriter] = {}
        with create_folder(out) as place, contextlib.ExitStack() as open_shards:
            for index, record in enumerate(dataset):
                if record.split not in writers:
                    writers[record.split] = SampleWriter(place, record.split, shard_size)
                    open_shards.callback(writers[record.split].close)
                members = _members(dataset, record, left_out)
                if members is not None:
                    writers[record.split].write(f"{index:09d}", members)
                    images[record.split] += 1
                if progress:
                    progress(index + 1, len(dataset))
            classes = folder / SEGMENTATION_CLASSES
            if classes.is_file():
                write_bytes(place / SEGMENTATION_CLASSES, read_bytes(classes))
            if not images:
                raise DataError(f"None of the {len(dataset)} images of {folder} can be read; try: tavq data check")
        files = sum(writer.shards for writer in writers.values())
        return ExportSummary(dict(images), files, {reason: count for reason, count in left_out.items() if count})


def _members(dataset: FolderDataset, record: Record, left_out: Counter[str]) -> dict[str, bytes] | None:
    """The files of a sample by their extension; None where there is no whole image."""
    path = dataset.path(record.file_name)
    try:
        check_image(path)
    except DataError:
        left_out[UNREADABLE] += 1
        return None
    members = {PurePosixPath(record.file_name).suffix[1:].lower() or "jpg": read_bytes(path)}
    members[JSON] = to_line(record).rstrip(b"\n")
    text = "\n".join(" ".join(caption.split()) for caption in record.captions) or record.long_text
    if text:
        members[TEXT] = text.encode()
    if record.segmentation is not None:
        segmentation = dataset.path(record.segmentation)
        try:
            load_segmentation(segmentation)
            members[SEGMENTATION] = read_bytes(segmentation)
        except DataError:
            left_out[UNUSABLE_SEGMENTATION] += 1
    return members
