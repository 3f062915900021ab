"""VQCT's codebook: entries computed from the vectors of words by a network on the graph of which modifies which."""

from itertools import pairwise
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from tavq.core.config import NamedConfig
from tavq.core.errors import UsageError
from tavq.interfaces import Codebook, TextSource, codebooks
from tavq.nets.graph import GraphConvolution, normalised_adjacency
from tavq.ops.collective import broadcast_first


@runtime_checkable
class Words(Protocol):
    """What is read of a word graph (tavq.text.word_graph.WordGraph is one)."""

    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]
    edges: np.ndarray  # [e 2], place of the adjective and of the noun
    edge_counts: np.ndarray  # [e]
    vectors: np.ndarray  # [k t], of the adjectives, then of the nouns


@runtime_checkable
class HasWords(Protocol):
    """A text store that can be asked for its word graph."""

    def word_graph(self) -> Words: ...


@codebooks.register("transferred")
class TransferredCodebook(Codebook):
    """One entry a word; no entry is learned, all move with the weights of the network that makes them.

    Source: VQCT (Zhang et al., CVPR 2024), eq. 3 and section 3.3; Tables 2, 3 and 5 by `words`, `network`, `split` and
    the encoder that made the text store. The form of its public code is `layers: 2, last_relu: false, edge_counts:
    true, dropout: 0.5`.
    Differs from the paper: where the words themselves are the entries (`network: none`) and are wider than these, they
    are given by their first principal components. The public code also reads a word that is both adjective and noun
    as the noun in every edge; here each is a node of its own.
    """

    class Config(NamedConfig):
        """Width of the entries, the network, and the words, which training takes from the text store."""

        name: Literal["transferred"] = "transferred"
        width: int = Field(256, ge=1, le=4096)
        split: bool = True
        """Adjectives and nouns as two parts; false for one codebook of both."""
        network: Literal["gcn", "mlp", "none"] = "gcn"
        """On the graph, on each word alone, or none: the words' vectors are the entries."""
        layers: int = Field(3, ge=1, le=16)
        last_relu: bool = True
        """ReLU after the last layer as after the others, so that no entry has a negative number."""
        dropout: float = Field(0.0, ge=0, lt=1)
        """Share of numbers set to 0 between layers in training."""
        edge_counts: bool = False
        """Edges weigh as often as they were seen; else all weigh 1."""
        words: Literal["frozen", "finetuned", "random"] = "frozen"
        """The words' vectors stay as they are, are trained too, or start at random and are trained."""
        adjectives: tuple[str, ...] = ()
        nouns: tuple[str, ...] = ()
        edges: int = Field(0, ge=0, le=2**24)
        word_width: int | None = Field(None, ge=1, le=16384)
        """Filled, like the words and edges, from the text store."""

        @property
        def parts(self) -> int:
            """Of the codebook."""
            return len(self.sizes)

        @property
        def sizes(self) -> tuple[int, ...]:
            """Entries of each part."""
            both = (len(self.adjectives), len(self.nouns))
            return both if self.split else (sum(both),)

    generated = True
    reads_text = True
    words: tuple[str, ...]
    """Of the entries, the adjectives first."""
    vectors: Tensor
    places: Tensor
    values: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.words, self.width = config.adjectives + config.nouns, config.width
        both = (len(config.adjectives), len(config.nouns))
        if not all(both) or config.word_width is None:
            raise UsageError(
                "The codebook 'transferred' is made of words and its settings name none; training takes them from the "
                "word graph of a text store."
            )
        self.sizes = config.sizes
        # Random until `load_vocabulary`, as in a test: what is loaded or taken replaces it.
        vectors = torch.randn(len(self.words), _kept_width(config, config.word_width))
        if config.words == "frozen":
            self.register_buffer("vectors", vectors)
        else:
            self.vectors = nn.Parameter(vectors)
        widths = [config.word_width, *[config.width] * config.layers] if config.network != "none" else []
        self.layers = nn.ModuleList(GraphConvolution(*pair) for pair in pairwise(widths))
        if config.edges > both[0] * both[1]:
            raise UsageError(f"{both[0]} adjectives and {both[1]} nouns cannot have {config.edges} different edges.")
        if config.network == "gcn":
            self._connect(_some_edges(config.edges, both), torch.ones(config.edges))

    def _connect(self, edges: Tensor, weights: Tensor) -> None:
        """Keeps the normalised adjacency; edges are pairs of the places of an adjective and a noun."""
        nouns = torch.tensor([0, len(self.config.adjectives)])
        places, values = normalised_adjacency(edges + nouns, weights, len(self.words))
        self.register_buffer("places", places)
        self.register_buffer("values", values)

    @classmethod
    def resolve_config(cls, config: Config, source: TextSource | None) -> Config:
        """The settings with the words of the store's word graph."""
        graph = _word_graph(source)
        found = {
            "adjectives": tuple(graph.adjectives),
            "nouns": tuple(graph.nouns),
            "edges": len(graph.edges),
            "word_width": int(graph.vectors.shape[1]),
        }
        wrong = [name for name in found if getattr(config, name) not in ((), 0, None, found[name])]
        if wrong:
            raise UsageError(
                f"model.codebook.{wrong[0]} is not that of the text store's word graph; leave it out of the recipe, or "
                "give the store that the words are from."
            )
        return config.model_copy(update=found)

    @torch.no_grad()
    def load_vocabulary(self, source: TextSource | None) -> None:
        """Fills in the words' vectors and edges."""
        graph = _word_graph(source)
        if self.config.words != "random":
            vectors = torch.from_numpy(np.array(graph.vectors, np.float32))
            wide = self.vectors.shape[1] < vectors.shape[1]
            self.vectors.copy_(principal_components(vectors, self.width) if wide else vectors)
        if self.config.network == "gcn":
            counts = torch.from_numpy(np.array(graph.edge_counts, np.float32))
            weights = counts if self.config.edge_counts else torch.ones_like(counts)
            device = self.places.device
            self._connect(torch.from_numpy(np.array(graph.edges, np.int64)), weights)
            self.to(device)

    def forward(self) -> Float[Tensor, "k d"]:
        with torch.autocast(self.vectors.device.type, enabled=False):  # the entries are fp32 whatever the network is
            return self._entries()

    def _entries(self) -> Tensor:
        rows = self.vectors
        graph = (self.places, self.values) if self.config.network == "gcn" else None
        for layer in self.layers:
            if layer is not self.layers[0]:
                rows = self._dropped(rows)
            rows = layer(rows, graph)
            if self.config.last_relu or layer is not self.layers[-1]:
                rows = F.relu(rows)
        return rows

    def _dropped(self, rows: Tensor) -> Tensor:
        if not (self.training and self.config.dropout):
            return rows
        kept = broadcast_first((torch.rand_like(rows) >= self.config.dropout).to(rows.dtype))
        return rows * kept / (1 - self.config.dropout)


def _word_graph(source: Any) -> Words:
    if not isinstance(source, HasWords):
        raise UsageError(
            "The codebook 'transferred' needs a text store with a word graph; make it with: tavq text DIR --word-graph"
        )
    return source.word_graph()


def _kept_width(config: TransferredCodebook.Config, word_width: int) -> int:
    """Of the vectors that are kept: those of the words, or where there is no network those of the entries."""
    if config.network != "none":
        return word_width
    most = min(word_width, len(config.adjectives) + len(config.nouns))
    if config.words != "random" and config.width != word_width and config.width > most:
        raise UsageError(
            f"Without a network the entries are the words' own vectors, {word_width} wide or, by principal components, "
            f"up to {most}; model.codebook.width is {config.width}."
        )
    return config.width


def _some_edges(count: int, sizes: tuple[int, int]) -> Tensor:
    """`count` different pairs of an adjective and a noun."""
    pairs = torch.arange(count)
    return torch.stack([pairs % sizes[0], (pairs // sizes[0] + pairs % sizes[0]) % sizes[1]], 1)


def principal_components(vectors: Float[Tensor, "k t"], width: int) -> Float[Tensor, "k d"]:
    """The vectors by their first `width` principal components, which keep their distances best.

    The sign of each component, which is free, is that which makes its largest number positive.
    """
    centred = vectors.double() - vectors.double().mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    projected = centred @ axes[:width].T
    largest = projected.gather(0, projected.abs().argmax(0, keepdim=True))
    return (projected * largest.sign()).float()
