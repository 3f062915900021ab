"""Token indices that were made before, read the same way from a tokens file and from a folder of token shards."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from tavq.api.calls import PathLike
from tavq.api.measuring import BATCH
from tavq.core.errors import UsageError
from tavq.token_file import Tokens
from tavq.token_folder.reading import TokenShards
from tavq.tokenizer import Tokenizer


@dataclass(frozen=True)
class StoredTokens:
    """The token indices of some images.

    Attributes:
        source: where they come from, in messages.
        keys: the file name of each image.
        shapes: height and width of each image's grid.
        read: called with two positions; the indices [n h w] or [n h w c] from the first up to the second, which must
            be of one shape.
        model: SHA-256 of the weights that made them; None where that was not kept.
        entries: of each part of the codebook, or only their sum; None where they were not kept.
        checked: what was read is known to be indices of that codebook.
    """

    source: str
    keys: Sequence[str]
    shapes: Int[np.ndarray, "n 2"]
    read: Callable[[int, int], Int[Tensor, "n h w *c"]]
    model: str | None
    entries: tuple[int, ...] | int | None
    checked: bool

    def check_codebook(self, tokenizer: Tokenizer) -> None:
        """Raise UsageError unless the indices are entries of the tokenizer's codebook."""
        own = tuple(tokenizer.codebook.sizes)
        if self.entries not in (None, own, sum(own)):
            raise UsageError(
                f"{self.source} was made by a model with {_count(self.entries)} codebook entries, but this one has "
                f"{_count(own)}; use the model that made it."
            )
        if self.checked:
            return
        try:
            for start in range(0, len(self.keys), BATCH):
                tokenizer.check_indices(self.read(start, min(start + BATCH, len(self.keys))))
        except UsageError as error:
            raise UsageError(f"{self.source} cannot be decoded: {error}") from error


def _count(entries: tuple[int, ...] | int | None) -> str:
    return " + ".join(map(str, entries)) if isinstance(entries, tuple) else str(entries)


def open_tokens(tokens: PathLike | Tokens) -> StoredTokens:
    """Open the folder that `encode_shards` wrote, the file that `encode_folder` wrote, or what it returned.

    Raises FileError where a file is damaged.
    """
    if isinstance(tokens, Tokens):
        return _from_memory(tokens, "The tokens")
    path = Path(tokens)
    return _from_shards(path) if path.is_dir() else _from_memory(Tokens.load(path), str(path))


def _from_memory(tokens: Tokens, source: str) -> StoredTokens:
    shapes = np.tile(tokens.indices.shape[1:3], (len(tokens.keys), 1))

    def read(start: int, stop: int) -> Tensor:
        return tokens.indices[start:stop]

    return StoredTokens(source, tokens.keys, shapes, read, tokens.model, tokens.entries, checked=False)


def _from_shards(path: Path) -> StoredTokens:
    shards = TokenShards(path)
    settings = shards.manifest.settings

    def read(start: int, stop: int) -> Tensor:
        return torch.stack([item["indices"] for item in shards.__getitems__(range(start, stop))])

    return StoredTokens(str(path), shards.keys(), shards.shapes(), read, settings.model, settings.entries, checked=True)
