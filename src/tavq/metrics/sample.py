"""At most so many images of a set, the same ones in whatever order and in whichever process they came."""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tavq.ops.collective import all_gather_uneven

KEPT = 10_000


class BottomKSample:
    """The features of the `most` images whose keys have the smallest hashes.

    A hash says nothing of the image, so that this is a draw without replacement; it does not depend on order, batches
    or processes, and two samples merge to that of both sets. A key that came twice counts once.

    Memory: `most` rows of float32 (82 MB for 10,000 of 2,048), and a batch.
    """

    def __init__(self, width: int, most: int = KEPT) -> None:
        self.most = most
        self.marks = torch.zeros(0, dtype=torch.int64)
        self.features = torch.zeros(0, width)

    def update(self, features: Float[Tensor, "b f"], keys: Sequence[str]) -> None:
        """Counts a batch of images."""
        self._add(torch.tensor([hash_key(key) for key in keys], dtype=torch.int64), features.float().cpu())

    def merge(self, other: "BottomKSample") -> None:
        """Counts what `other` has seen as seen here."""
        self._add(other.marks, other.features)

    def join(self) -> None:
        """Counts what all processes have seen, in each of them; alone, nothing happens."""
        marks, features = all_gather_uneven(self.marks[:, None])[:, 0], all_gather_uneven(self.features)
        self.marks, self.features = self.marks[:0], self.features[:0]
        self._add(marks, features)

    def _add(self, marks: Int[Tensor, " b"], features: Float[Tensor, "b f"]) -> None:
        marks, features = torch.cat([self.marks, marks]), torch.cat([self.features, features])
        order = marks.argsort(stable=True)
        marks = marks[order]
        first = torch.ones(len(marks), dtype=torch.bool)
        first[1:] = marks[1:] != marks[:-1]
        kept = order[first][: self.most]
        self.marks, self.features = marks[first][: self.most], features[kept]


def hash_key(key: str) -> int:
    """63 bits of the key's hash."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1
