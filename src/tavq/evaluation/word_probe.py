"""The indices and words of each image of a split, for the word probe."""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tavq.interfaces import Codebook, CodebookView, Quantizer, TextUnits
from tavq.metrics.record import Metric
from tavq.metrics.word_probe import probe_word_relations
from tavq.ops.checks import require_finite
from tavq.ops.collective import all_gather_uneven
from tavq.ops.gathering import gather_values


class WordProbe:
    """Collects what `metrics.word_probe` reads; drive it with a batch at a time.

    Memory: the indices of each image with words, and each distinct word vector once.
    """

    def __init__(self) -> None:
        self.indices: dict[str, Int[Tensor, "h w *c"]] = {}
        self.words: dict[str, list[str]] = {}
        """For each image the digests of its distinct words."""
        self.vectors: dict[str, Float[Tensor, " t"]] = {}
        """Word vectors by their digests."""

    def update(self, keys: Sequence[str], indices: Int[Tensor, "b h w *c"], words: TextUnits) -> None:
        """Add a batch: its indices of the deep level and its words."""
        vectors, masks, grids = words.vectors.float().cpu(), words.mask.cpu(), indices.to("cpu", torch.int32)
        for key, grid, own, mask in zip(keys, grids, vectors, masks, strict=True):
            if mask.any():
                found = {hashlib.sha256(vector.numpy().tobytes()).hexdigest(): vector for vector in own[mask]}
                self.indices[key], self.words[key] = grid, list(found)
                self.vectors.update({digest: found[digest].clone() for digest in found.keys() - self.vectors.keys()})

    def join(self) -> None:
        """Gather the images and words of all processes, in each of them; without other processes nothing changes."""
        shape = list(next(iter(self.indices.values())).shape) if self.indices else []
        gathered = gather_values([shape, self.words, list(self.vectors)])
        shape = next((own for own, _, _ in gathered if own), [])
        grids = all_gather_uneven(_stack([grid.flatten() for grid in self.indices.values()]))
        vectors = all_gather_uneven(_stack(list(self.vectors.values())))
        self.words = {key: digests for _, words, _ in gathered for key, digests in words.items()}
        self.indices = {key: grid.view(shape) for key, grid in zip(self.words, grids, strict=True)}
        digests = [digest for _, _, own in gathered for digest in own]
        self.vectors = dict(zip(digests, vectors, strict=True))

    @torch.no_grad()
    def compute(self, quantizer: Quantizer, codebook: Codebook) -> list[Metric]:
        """`probe_word_code_mse` and its baseline, once all processes are joined."""
        view = CodebookView(codebook, codebook())  # a generated codebook is computed once
        device = view().device
        keys = sorted(self.words, key=lambda key: hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest())

        def codes(number: int) -> Float[Tensor, "p d"]:
            grid = self.indices[keys[number]][None].long().to(device)
            return require_finite(quantizer.lookup(grid, view)[0].flatten(1).mT.cpu(), "The tokenizer's entries")

        words = [torch.stack([self.vectors[digest] for digest in self.words[key]]) for key in keys]
        return list(probe_word_relations(keys, codes, words))


def _stack(rows: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(rows)) if rows else torch.zeros(0, 1)
