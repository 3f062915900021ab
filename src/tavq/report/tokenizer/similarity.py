"""Cosines between the codes in use, and between the words that they were made of (VQCT, Fig. 6)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from tavq.codebooks.transferred import WordGraph
from tavq.interfaces import Codebook
from tavq.report.html.charts import heat_map
from tavq.report.html.markup import Markup, tag

SHOWN = 10
"""Codes of the heat map, as in the paper's figure."""

MAX_CODES = 2048
"""The most used codes whose pairs are counted."""

MIDDLE = (0.05, 0.95)
"""Quantiles between which the middle 90 % of the pairs lie."""


@runtime_checkable
class HasWords(Protocol):
    """A text store that may hold a word graph."""

    @property
    def has_word_graph(self) -> bool:
        """Whether it does."""
        ...

    def word_graph(self) -> WordGraph:
        """The words with their vectors."""
        ...


@dataclass(frozen=True)
class CodeSimilarity:
    """Cosines between the codes in use.

    Attributes:
        names: of the codes of the heat map: the word of an entry that has one, else its index.
        cosines: between their entries.
        words: between their words; None where entries have no words or the store does not know their vectors.
        codes: the number of codes whose pairs were counted.
        first_part: whether these are of the first of several parts only.
        mean: of the cosines of all pairs.
        middle: the ends of the middle 90 % of them.
        correlation: of the cosines of entries and of words over all pairs; None without words or where one is constant.
    """

    names: tuple[str, ...]
    cosines: Float[np.ndarray, "n n"]
    words: Float[np.ndarray, "n n"] | None
    codes: int
    first_part: bool
    mean: float
    middle: tuple[float, float]
    correlation: float | None


@torch.no_grad()
def measure_similarity(
    codebook: Codebook, counts: Int[np.ndarray, " k"], store: object | None = None
) -> CodeSimilarity | None:
    """The cosines between the codes that were chosen; None for fewer than two.

    The parts of a codebook have no common space unless its entries stand for words; without words only the first part
    counts. The heat map has the most used codes, equally many of each part that counts.

    Source: VQCT (Zhang et al., CVPR 2024), Fig. 6.
    Differs from the paper: it shows 10 random codes.

    Args:
        codebook: of the deep level.
        counts: how often each entry was chosen; entries that never were keep their initial values, and are left out.
        store: the text store, for the vectors of the words.
    """
    sizes = codebook.sizes if codebook.words else codebook.sizes[:1]
    codes = _most_used(counts[: sum(sizes)], range(sum(sizes)))[:MAX_CODES]
    if len(codes) < 2:
        return None
    starts = np.cumsum([0, *sizes])
    parts = [range(starts[part], starts[part + 1]) for part in range(len(sizes))]
    each = max(SHOWN // len(parts), 1)
    shown = [code for part in parts for code in _most_used(counts, part)[:each]][:SHOWN]
    entries, words = codebook().float().cpu(), _word_vectors(codebook, store)
    pairs = _pairs(entries[codes])
    low, high = np.quantile(pairs, MIDDLE)
    return CodeSimilarity(
        tuple(codebook.words[code] if codebook.words else str(code) for code in shown),
        _cosines(entries[shown]),
        None if words is None else _cosines(words[shown]),
        len(codes),
        len(sizes) < len(codebook.sizes),
        float(pairs.mean()),
        (float(low), float(high)),
        None if words is None else _correlation(pairs, _pairs(words[codes])),
    )


def _most_used(counts: Int[np.ndarray, " k"], codes: Sequence[int]) -> list[int]:
    """Those of some codes that were chosen, most used first; ties in order of index."""
    return sorted((code for code in codes if counts[code] > 0), key=lambda code: -counts[code])


def _word_vectors(codebook: Codebook, store: object | None) -> Float[Tensor, "k t"] | None:
    """The vector of each entry's word, from a store with the word graph that the codebook was made of."""
    if not (codebook.words and isinstance(store, HasWords) and store.has_word_graph):
        return None
    graph = store.word_graph()
    if (*graph.adjectives, *graph.nouns) != tuple(codebook.words):
        return None
    return torch.from_numpy(np.array(graph.vectors, np.float32))


def _cosines(vectors: Float[Tensor, "n d"]) -> Float[np.ndarray, "n n"]:
    units = normalize(vectors, dim=1)
    return (units @ units.mT).numpy()


def _pairs(vectors: Float[Tensor, "n d"]) -> Float[np.ndarray, " p"]:
    """The cosine of each pair of different vectors."""
    cosines = _cosines(vectors)
    return cosines[np.triu_indices(len(cosines), 1)]


def _correlation(first: Float[np.ndarray, " p"], second: Float[np.ndarray, " p"]) -> float | None:
    """Pearson's; None for fewer than three pairs, or where one is constant."""
    if len(first) < 3 or min(np.ptp(first), np.ptp(second)) < 1e-6:
        return None
    return float(np.corrcoef(first, second)[0, 1])


# --- the chart --------------------------------------------------------------------------------------------------


def render_similarity(similarity: CodeSimilarity | None) -> list[Markup]:
    """The heat map with what it shows; nothing without one."""
    if similarity is None:
        return []
    values = similarity.cosines
    if similarity.words is not None:  # words above the diagonal, entries below
        values = np.where(np.triu(np.ones_like(values), 1) > 0, similarity.words, values)
    chart = heat_map("Cosine between codes", similarity.names, values.tolist())
    return [tag("figure", chart, tag("figcaption", describe_similarity(similarity)))]


def describe_similarity(similarity: CodeSimilarity) -> str:
    """What the heat map shows, and the cosines of all pairs."""
    low, high = similarity.middle
    where = " of the first part" if similarity.first_part else ""
    text = (
        f"The {len(similarity.names)} most used codes{where}. All pairs of {similarity.codes:,} codes in use: mean "
        f"{similarity.mean:.2f}, the middle 90 % from {low:.2f} to {high:.2f}."
    )
    if similarity.words is not None:
        text += " Below the diagonal: entries; above: the vectors of their words."
    if similarity.correlation is not None:
        text += (
            f" Over all pairs the two correlate with {similarity.correlation:.2f}; 1 if training kept all relations."
        )
    return text.replace("-", "−")
