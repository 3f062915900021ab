"""Convolutions on a graph whose nodes are few thousand and whose edges are few a node."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def normalised_adjacency(
    edges: Int[Tensor, "e 2"], weights: Float[Tensor, " e"], nodes: int
) -> tuple[Int[Tensor, "2 n"], Float[Tensor, " n"]]:
    """D^-1/2 (A + I) D^-1/2 of an undirected graph, as places sorted by row and their values; n is 2 e + `nodes`.

    Args:
        edges: pairs of different nodes, each pair once and in one direction.
        weights: of each edge, positive; ones make the graph binary.
        nodes: how many there are.

    Source: Kipf and Welling, Semi-supervised classification with graph convolutional networks (2017), eq. 2.
    """
    itself = torch.arange(nodes, device=edges.device)
    places = torch.cat([edges.T, edges.T.flip(0), itself.expand(2, nodes)], 1)
    values = torch.cat([weights, weights, weights.new_ones(nodes)])
    order = (places[0] * nodes + places[1]).argsort()
    places, values = places[:, order], values[order]
    scale = values.new_zeros(nodes).index_add_(0, places[0], values).rsqrt()
    return places, scale[places[0]] * values * scale[places[1]]


def spread(places: Int[Tensor, "2 n"], values: Float[Tensor, " n"], rows: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
    """The product of a sparse matrix [k k] and rows; a matrix with places outside of it is an error, not a crash."""
    size = (len(rows), len(rows))
    # Not index_add: it holds a row for each place, and is several times slower at a thousand words.
    matrix = torch.sparse_coo_tensor(places, values, size, is_coalesced=True, check_invariants=True)
    return torch.sparse.mm(matrix, rows)


class GraphConvolution(nn.Module):
    """A linear map of each node's vector, then the weighted sum over its neighbours, then a bias.

    Without a graph it is a linear layer.

    Args:
        width: of the vectors that come in.
        out: of those that go out.
    """

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        bound = math.sqrt(6 / (width + out))
        self.weight = nn.Parameter(torch.empty(out, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(
        self, rows: Float[Tensor, "k d"], graph: tuple[Int[Tensor, "2 n"], Float[Tensor, " n"]] | None
    ) -> Float[Tensor, "k o"]:
        rows = rows @ self.weight.T
        if graph is not None:
            rows = spread(*graph, rows)
        return rows + self.bias
