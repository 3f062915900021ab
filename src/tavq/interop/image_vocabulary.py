"""The tokens that stand for images in a language model: their names, their order, and images as sequences of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from tavq.ops.grids import offset_indices

BEGIN, END, ROW = "<image_begin>", "<image_end>", "<image_row>"
"""Before an image, after it, and after each row of its positions."""

PREFIX = "<image_"
"""What the name of every token begins with; a caption that holds it is written with a space inside."""


@dataclass(frozen=True)
class ImageVocabulary:
    """The tokens of images: one for each codebook entry, counted through all parts, then begin, end and row.

    Args:
        sizes: the number of entries of each part of the codebook.
        rows: whether a row token follows each row.
    """

    sizes: tuple[int, ...]
    rows: bool = True

    @property
    def entries(self) -> int:
        """The number of image tokens without begin, end and row, whose ids follow in this order."""
        return sum(self.sizes)

    def names(self) -> list[str]:
        """The names of all tokens by their ids; the three special ones are always there."""
        return [*(f"{PREFIX}{entry}>" for entry in range(self.entries)), BEGIN, END, ROW]

    def to_ids(self, indices: Int[Tensor, "n h w *c"]) -> Iterator[list[int]]:
        """The sequence of each image: begin, its tokens in raster order with the parts of a position in turn, end."""
        tokens = offset_indices(indices.long(), self.sizes).flatten(2)
        begin, end, row = (torch.full((1,), self.entries + i, dtype=torch.long) for i in range(3))
        if self.rows:
            tokens = torch.cat([tokens, row.expand(*tokens.shape[:2], 1)], dim=2)
        for sequence in tokens.flatten(1):
            yield torch.cat([begin, sequence, end]).tolist()

    def to_text(self, ids: Sequence[int]) -> str:
        """The names of a sequence of ids, without spaces."""
        special = (BEGIN, END, ROW)
        return "".join(f"{PREFIX}{i}>" if i < self.entries else special[i - self.entries] for i in ids)


def escape_caption(caption: str) -> str:
    """A caption in one line, in which no text can be read as an image token."""
    return " ".join(caption.split()).replace(PREFIX, f"{PREFIX[0]} {PREFIX[1:]}")
