"""The training data of tasks: every image of a split as tokens, made once by the frozen tokenizer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from tavq.core.config import build
from tavq.core.errors import DataError, FileError
from tavq.core.files import write_tensors
from tavq.core.mmap_tensors import MappedTensors
from tavq.data.folder import FolderDataset
from tavq.data.loader import DataConfig, EpochPermutations, EvaluationLoader
from tavq.data.records import Fault
from tavq.data.texts import collate_text, find_text_tables
from tavq.interfaces import TextSource, quantizers
from tavq.model_folder import find_model, read_model_config
from tavq.tasks.base import GenerationBatch, TokenLayout
from tavq.tokenizer import Tokenizer

BATCH = 32
FLIP = 2
"""What a random draw is for, beside the order of the samples."""

TOKENS = "tokens.safetensors"


@dataclass(frozen=True)
class FrozenTokenizer:
    """A tokenizer for tokens alone, whose weights stay as they are, and the images it is used on."""

    tokenizer: Tokenizer
    stored: dict[str, Any]
    """What its model folder says of it."""
    size: int
    """Side of an image in pixels."""
    layout: TokenLayout
    name: str
    """That of its run or model folder, or on the hub."""

    @classmethod
    def load(cls, name: Path | str, size: int | None, device: torch.device) -> "FrozenTokenizer":
        """From a model folder, run folder or hub name; without `size` for images as it was trained on."""
        stored = read_model_config(find_model(name))
        tokenizer = Tokenizer.from_pretrained(name).without_alignment().to(device)
        size = size or int(stored.get("size") or 256)
        side = size // tokenizer.factor
        settings = {"height": side, "width": side, "sizes": tokenizer.codebook.sizes}
        return cls(tokenizer, stored, size, build(TokenLayout, settings, f"Images of {size} px"), _name(name))

    @property
    def sha256(self) -> str:
        """Of its weights."""
        return str(self.stored.get("sha256"))

    @property
    def feature_width(self) -> int:
        """d of its grid."""
        return quantizers[self.tokenizer.config.quantizer.name].grid_width(self.tokenizer.config.codebook)


def _name(name: Path | str) -> str:
    """Of a folder its last part, but of RUN/model that of the run; of the hub OWNER/NAME."""
    if not Path(name).exists():
        return str(name)
    folder = Path(name).resolve()
    return folder.parent.name if folder.name == "model" else folder.name


@dataclass(frozen=True)
class TokenTable:
    """The tokens of the images of a split that could be read, in its order."""

    tokens: Int[Tensor, "p o n"]  # o orientations: as it is and, where they were made, flipped
    keys: tuple[str, ...]
    faults: tuple[Fault, ...]
    given: Int[Tensor, "p o g"] | None = None


@torch.no_grad()
def encode_split(
    frozen: FrozenTokenizer,
    dataset: FolderDataset,
    config: DataConfig,
    flip: bool,
    device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> TokenTable:
    """The tokens of every image's centre square; with `flip` also of its mirror image."""
    loader = EvaluationLoader(dataset, config, BATCH)
    parts: list[Tensor] = []
    keys: list[str] = []
    for batch in loader:
        images = batch.images.to(device)
        kinds = [images, images.flip(3)] if flip else [images]
        tokens = [frozen.layout.to_tokens(frozen.tokenizer.encode(kind)) for kind in kinds]
        parts.append(torch.stack(tokens, dim=1).int().cpu())
        keys += batch.keys
        if progress is not None:
            progress(len(keys))
    if not keys:
        raise DataError(f"No image of {dataset.folder} can be read.")
    return TokenTable(torch.cat(parts), tuple(keys), tuple(loader.faults))


def join_tables(table: TokenTable, given: TokenTable) -> TokenTable:
    """The tokens of the images that are in both tables, those of `given` beside them; DataError where none is."""
    rows = {key: row for row, key in enumerate(given.keys)}
    both = [(row, rows[key]) for row, key in enumerate(table.keys) if key in rows]
    if not both:
        raise DataError("No image can be read together with its segmentation.")
    own, others = (list(column) for column in zip(*both, strict=True))
    faults = dict.fromkeys((*table.faults, *given.faults))  # those of the metadata are in both
    return TokenTable(table.tokens[own], tuple(table.keys[row] for row in own), tuple(faults), given.tokens[others])


def load_or_encode(path: Path, stamp: str, make: Callable[[], TokenTable]) -> TokenTable:
    """The table in a file that bears this stamp, else a new one, which is written there."""
    try:
        tensors = MappedTensors(path)
        if tensors.metadata.get("stamp") == stamp:
            keys = bytes(tensors["keys"]).decode().split("\n")
            given = torch.from_numpy(np.array(tensors["given"])) if "given" in [*tensors] else None
            return TokenTable(torch.from_numpy(np.array(tensors["tokens"])), tuple(keys), (), given)
    except FileError:
        pass
    table = make()
    keys_blob = torch.frombuffer(bytearray("\n".join(table.keys).encode()), dtype=torch.uint8)
    tensors_out = {"tokens": table.tokens, "keys": keys_blob}
    if table.given is not None:
        tensors_out["given"] = table.given
    write_tensors(path, tensors_out, {"stamp": stamp})
    return table


class TokenBatches:
    """An endless iterator of one process's batches; `consumed` samples of all processes were handed out before."""

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
    ) -> None:
        self.table, self.batch, self.seed, self.text = table, batch, seed, text
        self.consumed = consumed
        self.faults: Sequence[Fault] = table.faults
        self._rank, self._world = rank, world
        self._tables = find_text_tables(dataset, text)
        self._orders = EpochPermutations(len(table.keys), seed)

    def __iter__(self) -> Iterator[GenerationBatch]:
        return self

    def __next__(self) -> GenerationBatch:
        start = self.consumed + self._rank * self.batch
        chosen = [self._sample(place) for place in range(start, start + self.batch)]
        self.consumed += self.batch * self._world
        rows, sides = (torch.tensor(column) for column in zip(*chosen, strict=True))
        keys = tuple(self.table.keys[row] for row in rows.tolist())
        text = collate_text(self.text, keys, self._tables) if self.text is not None else None
        given = None if self.table.given is None else self.table.given[rows, sides].long()
        return GenerationBatch(self.table.tokens[rows, sides].long(), keys, text, given)

    def _sample(self, place: int) -> tuple[int, int]:
        """Which image, and which of its orientations, stands at a place of the endless stream."""
        epoch, start = divmod(place, len(self.table.keys))
        row = int(self._orders[epoch][start])
        sides = self.table.tokens.shape[1]
        return row, int(np.random.default_rng([FLIP, self.seed, epoch, row]).integers(sides))

    def close(self) -> None:
        """Nothing reads ahead."""
