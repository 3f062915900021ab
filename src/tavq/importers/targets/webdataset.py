"""WebDataset shards, for training at scale in other projects; `tavq data import webdataset` reads them back."""

import contextlib
from collections import Counter
from pathlib import Path, PurePosixPath

from tavq.core.errors import DataError
from tavq.core.files import create_folder, read_bytes, write_bytes
from tavq.data.folder import SEGMENTATION_CLASSES, FolderDataset, Progress
from tavq.data.images import check_image, load_segmentation
from tavq.data.records import Record, to_line
from tavq.data.samples import JSON, SEGMENTATION, TEXT
from tavq.importers.exporting import ExportSummary, Format, formats
from tavq.importers.reasons import UNREADABLE, UNUSABLE_SEGMENTATION
from tavq.importers.sample_writer import SampleWriter


@formats.register("webdataset")
class WebDatasetFormat(Format):
    """Shards SPLIT-000000.tar, in the order of metadata.jsonl; a key is the position of the image in it.

    KEY.jpg (or .png, ...) is the image file byte for byte, KEY.json has all fields of the record, KEY.txt the captions,
    one per line (or the long text if there are none), KEY.seg.png is the segmentation. Images that cannot be decoded
    are left out. The class names are in segmentation_classes.json next to the shards: inside a shard, most readers
    would take them for a sample without an image.
    """

    layout = "SPLIT-000000.tar, ... with KEY.jpg, KEY.json, KEY.txt and KEY.seg.png; segmentation_classes.json"

    def run(self, folder: Path, out: Path, shard_size: int, progress: Progress | None = None) -> ExportSummary:
        """Export; decodes each image once to check it: 1 ms for 128 pixels a side, 10 ms for a megapixel."""
        dataset = FolderDataset(folder)
        images: Counter[str] = Counter()
        left_out = Counter({"faults of metadata.jsonl": len(dataset.faults)})
        writers: dict[str, SampleWriter] = {}
        with create_folder(out) as folder_out, contextlib.ExitStack() as open_shards:
            for index, record in enumerate(dataset):
                if record.split not in writers:
                    writers[record.split] = SampleWriter(folder_out, record.split, shard_size)
                    open_shards.callback(writers[record.split].close)
                members = _members(dataset, record, left_out)
                if members is not None:
                    writers[record.split].write(f"{index:09d}", members)
                    images[record.split] += 1
                if progress:
                    progress(index + 1, len(dataset))
            classes = dataset.home / SEGMENTATION_CLASSES
            if classes.is_file():
                write_bytes(folder_out / SEGMENTATION_CLASSES, read_bytes(classes))
            if not images:
                raise DataError(
                    f"None of {len(dataset)} images can be read; list their faults: tavq data check {folder}"
                )
        files = sum(writer.shards for writer in writers.values())
        return ExportSummary(dict(images), files, dict(+left_out))


def _members(dataset: FolderDataset, record: Record, left_out: Counter[str]) -> dict[str, bytes] | None:
    """The files of a sample by extension; None if its image cannot be decoded."""
    path = dataset.file(record.file_name)
    try:
        check_image(path)
    except DataError:
        left_out[UNREADABLE] += 1
        return None
    members = {PurePosixPath(record.file_name).suffix[1:].lower() or "jpg": path.read_bytes()}
    members[JSON] = to_line(record).rstrip(b"\n")
    captions = "\n".join(" ".join(caption.split()) for caption in record.captions)
    text = captions or record.long_text
    if text:
        members[TEXT] = text.encode()
    if record.segmentation is not None:
        segmentation = dataset.file(record.segmentation)
        try:
            load_segmentation(segmentation)
            members[SEGMENTATION] = segmentation.read_bytes()
        except DataError:
            left_out[UNUSABLE_SEGMENTATION] += 1
    return members
