"""The codes of each image at the level that words are aligned with, for `metrics.word_codes`."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from tavq.evaluation.word_probe import WordProbe
from tavq.interfaces import Aligner, Codebook, Quantizer
from tavq.metrics.association import Cooccurrences
from tavq.metrics.record import Metric
from tavq.metrics.word_codes import BASELINE, FOUND, MAX_WORDS, WORD_CODE_LIFT, find_codes, word_code_lift
from tavq.ops.gathering import gather_values
from tavq.ops.grids import offset_indices

WORDS = "words"


class WordCodes:
    """Counts how often each image uses each code; drive it with a batch at a time.

    Memory: a few bytes per distinct code of an image.

    Args:
        found: codes that a word finds.
    """

    def __init__(self, found: int = FOUND) -> None:
        self.found = found
        self.counts: dict[str, list[tuple[int, int]]] = {}
        """(code, count) of the codes of each image."""

    def update(self, keys: Sequence[str], indices: Int[Tensor, "b h w *c"], sizes: Sequence[int]) -> None:
        """Add a batch: its indices of the words' level, in a codebook whose parts have these sizes."""
        for key, grid in zip(keys, offset_indices(indices, sizes).cpu().numpy(), strict=True):
            codes, counts = np.unique(grid, return_counts=True)
            self.counts[key] = list(zip(codes.tolist(), counts.tolist(), strict=True))

    def join(self) -> None:
        """Gather the images of all processes, in each of them."""
        self.counts = {key: counts for own in gather_values(self.counts) for key, counts in own.items()}

    @torch.no_grad()
    def compute(
        self, aligner: Aligner | None, quantizer: Quantizer, codebooks: Mapping[int, Codebook], probe: WordProbe
    ) -> list[Metric]:
        """`word_code_lift` with its chance level, once all processes are joined; without values if nothing is aligned.

        Args:
            aligner: maps entries to the text's space.
            quantizer: knows what an entry stands for.
            codebooks: of each level.
            probe: has the words of each image, and is joined too.
        """
        level = None if aligner is None else aligner.entry_levels.get(WORDS)
        counted = self._count(probe)
        vocabulary, present = counted.list_frequent(WORDS)
        if aligner is None or level is None or not vocabulary:
            return [WORD_CODE_LIFT, BASELINE]
        entries = aligner.embed_entries(quantizer.lookup_entries(codebooks[level]), WORDS)
        assert entries is not None, "entry_levels names what embed_entries maps"
        vectors = torch.stack([probe.vectors[word] for word in vocabulary])
        found = find_codes(entries.cpu(), counted.find_used(len(entries)), vectors, self.found)[:MAX_WORDS]
        codes, columns = found.unique(return_inverse=True)
        prominent = torch.from_numpy(counted.find_prominent(codes.tolist()))
        return word_code_lift(prominent, torch.from_numpy(present[:, :MAX_WORDS]), columns)

    def _count(self, probe: WordProbe) -> Cooccurrences:
        """The codes and words of the images that have words, in the order of their keys."""
        counted = Cooccurrences()
        for key in sorted(self.counts.keys() & probe.words.keys()):
            codes, counts = zip(*self.counts[key], strict=True)
            counted.codes.append((np.array(codes, np.int32), np.array(counts, np.int32)))
            counted.units.append({WORDS: frozenset(probe.words[key])})
        return counted
