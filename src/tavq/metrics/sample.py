"""A sample of a set of images that depends neither on their order nor on the processes that read them."""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tavq.ops.collective import all_gather_uneven

KEPT = 10_000
"""Images in a sample by default."""


class BottomKSample:
    """The features of the `size` images whose keys have the smallest hashes.

    A hash is independent of the image's content, so this is a uniform sample without replacement. It does not depend
    on order, batches or processes, and the samples of two sets merge to that of their union. A key that comes twice
    counts once.

    Memory: `size` rows of float32 (82 MB for 10,000 of 2,048), and a batch.
    """

    def __init__(self, width: int, size: int = KEPT) -> None:
        self.size = size
        self.hashes = torch.zeros(0, dtype=torch.int64)
        self.features = torch.zeros(0, width)

    def update(self, features: Float[Tensor, "b f"], keys: Sequence[str]) -> None:
        """Adds a batch of images."""
        self._add(torch.tensor([hash_key(key) for key in keys], dtype=torch.int64), features.float().cpu())

    def merge(self, other: "BottomKSample") -> None:
        """Adds the images of another sample."""
        self._add(other.hashes, other.features)

    def join(self) -> None:
        """Merges the samples of all processes, in each of them; without other processes nothing changes."""
        hashes, features = all_gather_uneven(self.hashes[:, None])[:, 0], all_gather_uneven(self.features)
        self.hashes, self.features = self.hashes[:0], self.features[:0]
        self._add(hashes, features)

    def _add(self, hashes: Int[Tensor, " b"], features: Float[Tensor, "b f"]) -> None:
        hashes, features = torch.cat([self.hashes, hashes]), torch.cat([self.features, features])
        order = hashes.argsort(stable=True)
        hashes = hashes[order]
        first = torch.ones(len(hashes), dtype=torch.bool)
        first[1:] = hashes[1:] != hashes[:-1]
        kept = order[first][: self.size]
        self.hashes, self.features = hashes[first][: self.size], features[kept]


def hash_key(key: str) -> int:
    """The first 63 bits of the key's SHA-256."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1
