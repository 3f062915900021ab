"""The training data of generation tasks: the tokens of every image of a split, encoded once."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from tavq.core.config import build
from tavq.core.errors import DataError, FileError
from tavq.core.mmap_tensors import MappedTensors
from tavq.core.seals import is_intact, write_sealed_tensors
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.loader import CPU, EvaluationLoader
from tavq.data.prefetch import prefetch
from tavq.data.records import Fault
from tavq.data.texts import CaptionKeys, PackedText, find_text_tables
from tavq.data.workers import EpochPermutations, StreamSampler, iter_texts
from tavq.interfaces import TextSource, quantizers
from tavq.model_folder import find_model, read_model_config
from tavq.ops.collective import any_process, barrier, rank, world_size
from tavq.ops.gathering import gather_in_order, gather_rows
from tavq.ops.shares import share_of
from tavq.tasks.base import GenerationBatch, TokenLayout
from tavq.tokenizer import Tokenizer

BATCH = 32

FLIP = 2
"""First number of the seed that decides which images are flipped; other uses of the run's seed have other numbers."""

CONDITION = "given"
"""Name of the condition tokens in `tokens.safetensors`; files of every version use it."""

TOKENS = "tokens.safetensors"


@dataclass(frozen=True)
class FrozenTokenizer:
    """A tokenizer whose weights do not change, and the images it encodes."""

    tokenizer: Tokenizer
    stored: dict[str, Any]
    """The config.json of its model folder."""
    size: int
    """Side of an image in pixels."""
    layout: TokenLayout
    name: str
    """Name of its run folder, model folder or hub repository."""

    @classmethod
    def load(cls, name: Path | str, size: int | None, device: torch.device) -> "FrozenTokenizer":
        """Load it from a model folder, run folder or hub name; `size` is by default the size it was trained at."""
        stored = read_model_config(find_model(name))
        tokenizer = Tokenizer.from_pretrained(name).without_alignment().prepare(device, "fp32")
        size = size or int(stored.get("size") or 256)
        side = size // tokenizer.factor
        settings = {"height": side, "width": side, "sizes": tokenizer.codebook.sizes}
        return cls(tokenizer, stored, size, build(TokenLayout, settings, f"Images of {size} px"), _short_name(name))

    @property
    def sha256(self) -> str:
        """The hash of its weights."""
        return str(self.stored.get("sha256"))

    @property
    def feature_width(self) -> int:
        """d of its latent grid."""
        return quantizers[self.tokenizer.config.quantizer.name].grid_width(self.tokenizer.config.codebook)


def _short_name(name: Path | str) -> str:
    """The last part of a folder's path (RUN for RUN/model), or the whole name on the hub."""
    if not Path(name).exists():
        return str(name)
    folder = Path(name).resolve()
    return folder.parent.name if folder.name == "model" else folder.name


@dataclass(frozen=True)
class TokenTable:
    """The tokens of the readable images of a split, in its order."""

    tokens: Int[Tensor, "p o n"]  # o orientations: the image and, with flip, its mirror image
    keys: tuple[str, ...]
    faults: tuple[Fault, ...]
    condition: Int[Tensor, "p o g"] | None = None  # tokens of the segmentation maps, if the task needs them


@torch.no_grad()
def encode_split(
    frozen: FrozenTokenizer,
    dataset: FolderDataset,
    config: DataConfig,
    flip: bool,
    device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> TokenTable:
    """The tokens of the centre square of every image, in the order of the split.

    Each of several processes encodes a part, in the batches of a single process, and all return the whole.

    Args:
        frozen: the tokenizer.
        dataset: the split.
        config: how images are loaded.
        flip: also encode the mirror images.
        device: where the tokenizer is.
        progress: called with the number of images that this process has encoded.
    """
    loader = EvaluationLoader(dataset, config, BATCH, None, None, rank(), world_size())
    parts: list[Tensor] = []
    keys: list[str] = []
    for batch in loader:
        images = batch.images.to(device)
        orientations = [images, images.flip(3)] if flip else [images]
        encoded = [frozen.layout.to_tokens(frozen.tokenizer.encode(pixels)) for pixels in orientations]
        parts.append(torch.stack(encoded, dim=1).int().cpu())
        keys += batch.keys
        if progress is not None:
            progress(len(keys))
    loader.join_faults()
    position_of = {record.file_name: position for position, record in enumerate(dataset)}
    positions = [position_of[key] for key in keys]
    tokens, names = gather_rows(positions, parts), tuple(gather_in_order(positions, keys))
    if not names:
        raise DataError(f"No image of {dataset.folder} can be read; see why with: tavq data check {dataset.folder}")
    return TokenTable(tokens, names, tuple(loader.faults))


def join_tables(images: TokenTable, maps: TokenTable) -> TokenTable:
    """Join the tokens of images and of their segmentation maps, as tokens and condition, where both could be read."""
    rows = {key: row for row, key in enumerate(maps.keys)}
    pairs = [(row, rows[key]) for row, key in enumerate(images.keys) if key in rows]
    if not pairs:
        raise DataError("No image can be read together with its segmentation map; see why with: tavq data check")
    image_rows, map_rows = (list(column) for column in zip(*pairs, strict=True))
    keys = tuple(images.keys[row] for row in image_rows)
    faults = dict.fromkeys((*images.faults, *maps.faults))  # once each: faults of the metadata are in both
    return TokenTable(images.tokens[image_rows], keys, tuple(faults), maps.tokens[map_rows])


def load_or_encode(
    path: Path,
    stamp: str,
    encode: Callable[[], TokenTable],
    cached: Callable[[], Path | None] = lambda: None,
    say: Callable[[str], None] = lambda text: None,
) -> TokenTable:
    """Load the table from an intact file with this stamp; if there is none, encode it and write the file.

    Several processes call this together, and encode together unless each finds such a file. The first writes it;
    the others write their own where their disks are not shared.

    Args:
        path: the file of the run.
        stamp: of what decides the tokens.
        encode: makes the table.
        cached: finds the file that other runs share, if there can be one. Tables with faults are not kept there, as
            another run may accept fewer.
        say: receives a line about where the tokens come from.
    """
    stored = _load_table(path, stamp)
    is_missing = any_process(stored is None)
    if stored is not None and not is_missing:
        return stored
    shared = cached()
    stored = None if shared is None else _load_table(shared, stamp)
    is_missing = any_process(stored is None)
    if stored is not None and not is_missing:
        say(f"The tokens of the images are those that an earlier run kept in {shared}.")
        return stored
    table = encode()
    if rank() == 0 and shared is not None and not table.faults:
        try:
            _write_table(shared, stamp, table)
            say(f"The tokens of the images are kept for other runs in {shared}.")
        except FileError as error:
            say(f"The tokens of the images are not kept for other runs: {error}")
    for writer in (True, False):
        if (rank() == 0) == writer and _load_table(path, stamp) is None:
            _write_table(path, stamp, table)
        barrier()
    return table


def _load_table(path: Path, stamp: str) -> TokenTable | None:
    try:
        tensors = MappedTensors(path)
        if tensors.metadata.get("stamp") == stamp and is_intact(path):
            keys = bytes(tensors["keys"]).decode().split("\n")
            condition = torch.from_numpy(np.array(tensors[CONDITION])) if CONDITION in [*tensors] else None
            return TokenTable(torch.from_numpy(np.array(tensors["tokens"])), tuple(keys), (), condition)
    except FileError:
        pass
    return None


def _write_table(path: Path, stamp: str, table: TokenTable) -> None:
    keys_bytes = torch.frombuffer(bytearray("\n".join(table.keys).encode()), dtype=torch.uint8)
    stored = {"tokens": table.tokens, "keys": keys_bytes}
    if table.condition is not None:
        stored[CONDITION] = table.condition
    write_sealed_tensors(path, stored, {"stamp": stamp})


class TokenBatches:
    """An endless iterator over the batches of one process.

    Args:
        table: the encoded split.
        dataset: the same split, for its texts.
        batch: samples of a step, which all processes share.
        seed: decides the order and the flips.
        text: encoded text by file_name, if the task reads text.
        consumed: samples that all processes together used before.
        rank: of this process.
        world: number of processes.
        workers: processes that look up text.
        device: where the text is.
    """

    def __init__(
        self,
        table: TokenTable,
        dataset: FolderDataset,
        batch: int,
        seed: int,
        text: TextSource | None = None,
        consumed: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        device: torch.device = CPU,
    ) -> None:
        self.table, self.seed = table, seed
        self.consumed = consumed
        self.faults: Sequence[Fault] = table.faults
        self._share = share_of(batch, rank, world)
        self._orders = EpochPermutations(len(table.keys), seed)
        self._texts: Generator[PackedText, None, None] | None = None
        if text is not None:
            drawn = self._draw_texts(CaptionKeys(dataset, text), StreamSampler(consumed, self._share))
            self._texts = prefetch(iter_texts(text, find_text_tables(dataset, text), drawn, workers), device)

    def __iter__(self) -> Iterator[GenerationBatch]:
        return self

    def __next__(self) -> GenerationBatch:
        start = self.consumed + self._share.first
        samples = [self._sample(position) for position in range(start, start + self._share.count)]
        self.consumed += self._share.total
        rows, orientations = (torch.tensor(column) for column in zip(*samples, strict=True))
        keys = tuple(self.table.keys[row] for row in rows.tolist())
        text = next(self._texts).unpack() if self._texts is not None else None
        condition = self.table.condition[rows, orientations].long() if self.table.condition is not None else None
        return GenerationBatch(self.table.tokens[rows, orientations].long(), keys, text, condition)

    def _row(self, position: int) -> tuple[int, int]:
        """The epoch and the row of the sample at a position of the endless stream."""
        epoch, offset = divmod(position, len(self.table.keys))
        return epoch, int(self._orders[epoch][offset])

    def _sample(self, position: int) -> tuple[int, int]:
        """The row and the orientation of the sample at a position of the endless stream."""
        epoch, row = self._row(position)
        orientations = self.table.tokens.shape[1]
        return row, int(np.random.default_rng([FLIP, self.seed, epoch, row]).integers(orientations))

    def _draw_texts(self, captions: CaptionKeys, batches: Iterable[Sequence[int]]) -> Iterator[list[str]]:
        """The keys of the texts of each batch of positions, drawn for the epochs of these."""
        indices = {name: index for index, name in enumerate(captions.names)}
        for positions in batches:
            rows = [self._row(position) for position in positions]
            yield [captions.draw(indices[self.table.keys[row]], self.seed, epoch) for epoch, row in rows]

    def close(self) -> None:
        """End the workers."""
        if self._texts is not None:
            self._texts.close()
