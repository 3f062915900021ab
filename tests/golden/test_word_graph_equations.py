"""The graph convolution against numbers of VQCT's public code, and against dense matrices by hand.

The numbers: repository zhangbq-research/VQCT, commit 805583b, class GCN of taming/modules/vqvae/quantize.py (inside
taming.zip) in evaluation mode and float64, with torch_geometric 2.8.1. Node vectors [5 4] are sin(1), sin(2), …; edges
go both ways and, as that code lists them, once for each time that a pair was seen: 0-2 three times, 0-3 once, 1-4
twice, 1-2 once. Weights of the first layer [3 4] are cos(0.3 i), its bias 0.1, -0.2, 0.3; of the second [3 3]
cos(0.7 i) and -0.3, 0.2, 0.1. The adjacency is what its GCNConv multiplies with.
"""

import torch
import torch.nn.functional as F
from text_sources import WordGraphSource
from torch import Tensor

from tavq.codebooks.transferred import TransferredCodebook
from tavq.nets.graph import normalized_adjacency

ADJECTIVES, NOUNS = ("red", "small"), ("car", "dog", "house")
EDGES, COUNTS = torch.tensor([[0, 0], [0, 1], [1, 2], [1, 0]]), torch.tensor([3.0, 1.0, 2.0, 1.0])

ADJACENCY = torch.tensor(
    [
        [0.20000000, 0.00000000, 0.60000000, 0.31622777, 0.00000000],
        [0.00000000, 0.25000000, 0.22360680, 0.00000000, 0.57735027],
        [0.60000000, 0.22360680, 0.20000000, 0.00000000, 0.00000000],
        [0.31622777, 0.00000000, 0.00000000, 0.50000000, 0.00000000],
        [0.00000000, 0.57735027, 0.00000000, 0.00000000, 0.33333333],
    ]
)
ENTRIES = torch.tensor(
    [
        [0.72983614, -0.54105312, -0.18160058],
        [-0.10134156, -0.08033805, 0.18439671],
        [0.21067843, -0.67158052, 0.46934962],
        [0.62480784, -0.54999318, -0.06754556],
        [-0.22877849, -0.19240445, 0.42498620],
    ]
)


class Graph:
    """That word graph."""

    adjectives, nouns = ADJECTIVES, NOUNS
    edges, edge_counts = EDGES.numpy(), COUNTS.long().numpy()
    vectors = torch.sin(torch.arange(20.0) + 1).view(5, 4).numpy()


def codebook(**settings: object) -> TransferredCodebook:
    config = TransferredCodebook.Config.model_validate({"width": 3, **settings})
    made = TransferredCodebook(TransferredCodebook.resolve_config(config, WordGraphSource(Graph())))
    made.load_vocabulary(WordGraphSource(Graph()))
    return made.eval()


def weigh(made: TransferredCodebook, biases: tuple[tuple[float, ...], ...]) -> None:
    """The weights of the formula."""
    for layer, step, bias in zip(made.layers, (0.3, 0.7, 0.5), biases, strict=False):
        shape = layer.weight.shape
        layer.weight.data.copy_(torch.cos(step * torch.arange(float(shape.numel()))).view(shape))
        layer.bias.data.copy_(torch.tensor(bias))


BIASES = ((0.1, -0.2, 0.3), (-0.3, 0.2, 0.1), (0.4, 0.1, -0.1))


def test_the_normalised_adjacency_is_that_of_the_public_code() -> None:
    places, values = normalized_adjacency(EDGES + torch.tensor([0, 2]), COUNTS, 5)
    dense = torch.zeros(5, 5).index_put((places[0], places[1]), values)
    torch.testing.assert_close(dense, ADJACENCY)


def test_the_entries_in_the_form_of_the_public_code_equal_it() -> None:
    made = codebook(layers=2, last_relu=False, edge_counts=True, dropout=0.5)
    weigh(made, BIASES)
    torch.testing.assert_close(made(), ENTRIES, atol=1e-6, rtol=1e-5)


def by_hand(adjacency: Tensor, layers: int) -> Tensor:
    """Dense: relu(Â X Wᵀ + b), layer after layer."""
    degrees = (adjacency + torch.eye(5)).sum(1)
    normal = (adjacency + torch.eye(5)) / (degrees[:, None] * degrees[None]).sqrt()
    rows = torch.from_numpy(Graph.vectors)
    for width, step, bias in zip((4, 3, 3), (0.3, 0.7, 0.5), BIASES, strict=True):
        weight = torch.cos(step * torch.arange(3.0 * width)).view(3, width)
        rows = F.relu(normal @ rows @ weight.T + torch.tensor(bias))
    return rows


def test_the_entries_in_the_form_of_the_paper_by_hand() -> None:
    made = codebook()
    weigh(made, BIASES)
    adjacency = torch.zeros(5, 5)
    for adjective, noun in EDGES.tolist():
        adjacency[adjective, noun + 2] = adjacency[noun + 2, adjective] = 1
    expected = by_hand(adjacency, 3)
    assert (expected > 0).float().mean() > 0.3  # else the ReLU hides everything
    torch.testing.assert_close(made(), expected)


def test_without_edges_the_network_is_an_mlp_of_each_word() -> None:
    made = codebook(network="mlp")
    weigh(made, BIASES)
    torch.testing.assert_close(made(), by_hand(torch.zeros(5, 5), 3))
