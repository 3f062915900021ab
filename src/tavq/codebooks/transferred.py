"""The codebook of VQCT: entries computed from word vectors by a network on the graph of adjectives and nouns."""

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
from tavq.nets.graph import GraphConvolution, normalized_adjacency
from tavq.ops.collective import broadcast_first


@runtime_checkable
class WordGraph(Protocol):
    """The parts of a word graph that the codebook reads (tavq.text.word_graph.WordGraph is one)."""

    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]
    edges: np.ndarray  # [e 2], index of an adjective and of a noun that it modifies
    edge_counts: np.ndarray  # [e]
    vectors: np.ndarray  # [k t], adjectives before nouns


@runtime_checkable
class HasWordGraph(Protocol):
    """A text store with a word graph."""

    def word_graph(self) -> WordGraph: ...


@codebooks.register("transferred")
class TransferredCodebook(Codebook):
    """One entry a word. No entry is trained: all move with the weights of the network that computes them.

    Source: VQCT (Zhang et al., CVPR 2024), eq. 3 and section 3.3; Tables 2, 3 and 5 by `words`, `network`, `split` and
    the encoder that made the text store. The form of its public code is `layers: 2, last_relu: false, edge_counts:
    true, dropout: 0.5`.
    Differs from the paper: without a network (`network: none`), word vectors that are wider than the entries are
    reduced to their first principal components. The public code also takes a word that is both adjective and noun for
    the noun in every edge; here the two are separate nodes.
    """

    class Config(NamedConfig):
        """Width of the entries, the network, and the words, which training fills in from the text store."""

        name: Literal["transferred"] = "transferred"
        width: int = Field(256, ge=1, le=4096)
        split: bool = True
        """Adjectives and nouns as two parts; false for one part with both."""
        network: Literal["gcn", "mlp", "none"] = "gcn"
        """`gcn` on the graph, `mlp` on each word alone, or `none`: the word vectors are the entries."""
        layers: int = Field(3, ge=1, le=16)
        last_relu: bool = True
        """ReLU after the last layer too, so that entries are never negative."""
        dropout: float = Field(0.0, ge=0, lt=1)
        """Probability of dropout between layers."""
        edge_counts: bool = False
        """Weight edges by how often they occur in the texts; false: all weights are 1."""
        words: Literal["frozen", "finetuned", "random"] = "frozen"
        """Word vectors from the store that are `frozen` or `finetuned`, or `random` ones that are trained."""
        adjectives: tuple[str, ...] = ()
        nouns: tuple[str, ...] = ()
        edges: int = Field(0, ge=0, le=2**24)
        word_width: int | None = Field(None, ge=1, le=16384)
        """Width of the word vectors; training fills in this, the words and the edges from the text store."""

        @property
        def parts(self) -> int:
            """Parts of the codebook."""
            return len(self.sizes)

        @property
        def sizes(self) -> tuple[int, ...]:
            """Entries of each part."""
            both = (len(self.adjectives), len(self.nouns))
            return both if self.split else (sum(both),)

    generated = True
    reads_text = True
    words: tuple[str, ...]
    """The word of each entry, adjectives before nouns."""
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
                "The codebook 'transferred' needs words and its settings have none; training fills them in from the "
                "word graph of a text store."
            )
        self.sizes = config.sizes
        # random vectors and made-up edges of the right number, until `load_vocabulary` or a checkpoint replaces them
        vectors = torch.randn(len(self.words), _vector_width(config, config.word_width))
        if config.words == "frozen":
            self.register_buffer("vectors", vectors)
        else:
            self.vectors = nn.Parameter(vectors)
        widths = [config.word_width, *[config.width] * config.layers] if config.network != "none" else []
        self.layers = nn.ModuleList(GraphConvolution(*pair) for pair in pairwise(widths))
        if config.edges > both[0] * both[1]:
            raise UsageError(f"{both[0]} adjectives and {both[1]} nouns cannot have {config.edges} different edges.")
        if config.network == "gcn":
            self._set_edges(_placeholder_edges(config.edges, both), torch.ones(config.edges))

    def _set_edges(self, edges: Tensor, weights: Tensor) -> None:
        """Store the normalised adjacency of edges, which are pairs of the indices of an adjective and a noun."""
        nouns = torch.tensor([0, len(self.config.adjectives)])
        places, values = normalized_adjacency(edges + nouns, weights, len(self.words))
        self.register_buffer("places", places)
        self.register_buffer("values", values)

    @classmethod
    def resolve_config(cls, config: Config, source: TextSource | None) -> Config:
        """Fill in the words and sizes of the store's word graph."""
        graph = _word_graph(source)
        values = {
            "adjectives": tuple(graph.adjectives),
            "nouns": tuple(graph.nouns),
            "edges": len(graph.edges),
            "word_width": int(graph.vectors.shape[1]),
        }
        wrong = [name for name in values if getattr(config, name) not in ((), 0, None, values[name])]
        if wrong:
            raise UsageError(
                f"model.codebook.{wrong[0]} differs from the word graph of the text store; remove it from the recipe, "
                "or use the store that the words are from."
            )
        return config.model_copy(update=values)

    @torch.no_grad()
    def load_vocabulary(self, source: TextSource | None) -> None:
        """Copy the word vectors and edges of the store's word graph."""
        graph = _word_graph(source)
        if self.config.words != "random":
            vectors = torch.from_numpy(np.array(graph.vectors, np.float32))
            if self.vectors.shape[1] < vectors.shape[1]:
                vectors = principal_components(vectors, self.width)
            self.vectors.copy_(vectors)
        if self.config.network == "gcn":
            counts = torch.from_numpy(np.array(graph.edge_counts, np.float32))
            weights = counts if self.config.edge_counts else torch.ones_like(counts)
            device = self.places.device
            self._set_edges(torch.from_numpy(np.array(graph.edges, np.int64)), weights)
            self.to(device)

    def forward(self) -> Float[Tensor, "k d"]:
        with torch.autocast(
            self.vectors.device.type, enabled=False
        ):  # entries are float32 in mixed-precision training too
            return self._entries()

    def _entries(self) -> Tensor:
        hidden = self.vectors
        graph = (self.places, self.values) if self.config.network == "gcn" else None
        for layer in self.layers:
            if layer is not self.layers[0]:
                hidden = self._drop(hidden)
            hidden = layer(hidden, graph)
            if self.config.last_relu or layer is not self.layers[-1]:
                hidden = F.relu(hidden)
        return hidden

    def _drop(self, hidden: Tensor) -> Tensor:
        """Dropout with the same mask in all processes, so that they quantize with the same entries."""
        if not (self.training and self.config.dropout):
            return hidden
        mask = broadcast_first((torch.rand_like(hidden) >= self.config.dropout).to(hidden.dtype))
        return hidden * mask / (1 - self.config.dropout)


def _word_graph(source: Any) -> WordGraph:
    if not isinstance(source, HasWordGraph):
        raise UsageError(
            "The codebook 'transferred' needs a text store with a word graph; make one with: tavq text DIR --word-graph"
        )
    return source.word_graph()


def _vector_width(config: TransferredCodebook.Config, word_width: int) -> int:
    """Width of `vectors`: that of the word vectors, or of the entries if there is no network."""
    if config.network != "none":
        return word_width
    most = min(word_width, len(config.adjectives) + len(config.nouns))
    if config.words != "random" and config.width != word_width and config.width > most:
        raise UsageError(
            f"Without a network the entries are the word vectors, {word_width} wide, or up to {most} of their "
            f"principal components; model.codebook.width is {config.width}."
        )
    return config.width


def _placeholder_edges(count: int, sizes: tuple[int, int]) -> Tensor:
    """`count` different pairs of an adjective and a noun, to give the buffers their final size."""
    pairs = torch.arange(count)
    return torch.stack([pairs % sizes[0], (pairs // sizes[0] + pairs % sizes[0]) % sizes[1]], 1)


def principal_components(vectors: Float[Tensor, "k t"], width: int) -> Float[Tensor, "k d"]:
    """Project vectors on their first `width` principal components, which preserve their distances best.

    The sign of a component is arbitrary; here its largest value is positive.
    """
    centred = vectors.double() - vectors.double().mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    projected = centred @ axes[:width].T
    largest = projected.gather(0, projected.abs().argmax(0, keepdim=True))
    return (projected * largest.sign()).float()
