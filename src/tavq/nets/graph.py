"""Graph convolutions for graphs of a few thousand nodes with a few edges each."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def normalized_adjacency(
    edges: Int[Tensor, "e 2"], weights: Float[Tensor, " e"], nodes: int
) -> tuple[Int[Tensor, "2 n"], Float[Tensor, " n"]]:
    """D^-1/2 (A + I) D^-1/2 of an undirected graph, as a sparse matrix.

    Returns the positions [row column] of its n = 2 e + `nodes` values, sorted by row, and the values.

    Args:
        edges: pairs of different nodes, each pair once and in one direction.
        weights: of each edge, positive; all ones for a binary graph.
        nodes: number of nodes.

    Source: Kipf and Welling, Semi-supervised classification with graph convolutional networks (2017), eq. 2.
    """
    loops = torch.arange(nodes, device=edges.device)
    positions = torch.cat([edges.T, edges.T.flip(0), loops.expand(2, nodes)], 1)
    values = torch.cat([weights, weights, weights.new_ones(nodes)])
    order = (positions[0] * nodes + positions[1]).argsort()
    positions, values = positions[:, order], values[order]
    scale = values.new_zeros(nodes).index_add_(0, positions[0], values).rsqrt()
    return positions, scale[positions[0]] * values * scale[positions[1]]


def sparse_matmul(
    positions: Int[Tensor, "2 n"], values: Float[Tensor, " n"], vectors: Float[Tensor, "k d"]
) -> Float[Tensor, "k d"]:
    """The product of a sparse matrix [k k], as positions and values, and vectors."""
    size = (len(vectors), len(vectors))
    # index_add would allocate a vector for each of the n values, and is several times slower at a thousand words.
    # check_invariants turns a position outside the matrix into an error; without it the process may crash.
    matrix = torch.sparse_coo_tensor(positions, values, size, is_coalesced=True, check_invariants=True)
    return torch.sparse.mm(matrix, vectors)


class GraphConvolution(nn.Module):
    """A linear map of each node's vector, a weighted sum over its neighbours, and a bias.

    Without a graph it is a linear layer.

    Args:
        width: of the input vectors.
        out: width of the output vectors.
    """

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        bound = math.sqrt(6 / (width + out))
        self.weight = nn.Parameter(torch.empty(out, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(
        self, vectors: Float[Tensor, "k d"], graph: tuple[Int[Tensor, "2 n"], Float[Tensor, " n"]] | None
    ) -> Float[Tensor, "k o"]:
        vectors = vectors @ self.weight.T
        if graph is not None:
            vectors = sparse_matmul(*graph, vectors)
        return vectors + self.bias
