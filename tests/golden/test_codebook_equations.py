"""Codebooks by their published equations: by hand, and numbers that published code gave.

CVQ: lyndonzheng/CVQ-VAE at 04864b7, quantise.py, VectorQuantiser(beta=0.25, anchor="closest") in training, on features
and tables that a formula gives; `waves` is the formula.
"""

import pytest
import torch
from torch import Tensor

from tavq.codebooks.anchored import AnchoredCodebook
from tavq.codebooks.anchors import contrastive_loss
from tavq.codebooks.ema import EMACodebook
from tavq.codebooks.learned import LearnedCodebook
from tavq.codebooks.linear import LinearCodebook
from tavq.interfaces import Distance, sum_losses
from tavq.ops.grids import flatten_grid
from tavq.quantizers.nearest import NearestQuantizer


def waves(*shape: int, speed: float, phase: float = 0.0) -> Tensor:
    """sin(speed · i + phase) at the i-th number."""
    places = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(speed * places + phase).float().view(shape)


# --- CVQ --------------------------------------------------------------------------------------------------------

# Four steps on features [2 4 3 3] (speed 2.3, phase t, times 1 + t/2) from a table [6 4] (speed 1.7): the loss of each
# step; then usage, indices, table and the table's gradient after the last.
CVQ = {
    "cosine": {
        "losses": [0.326552, 0.646921, 1.277235, 2.309106],
        "usage": [0.013129, 0.002756, 0.003273, 0.003828, 0.004378, 0.01204],
        "indices": [5, 0, 3, 5, 0, 4, 0, 1, 5, 0, 1, 5, 0, 2, 5, 0, 3, 5],
        "table": [
            [0.0, 0.991665, -0.255541, -0.925815],
            [0.047192, 0.963895, -0.579068, -0.644428],
            [0.858859, 0.396977, -0.961374, -0.148888],
            [0.999722, -0.108425, -0.971804, 0.359214],
            [0.883095, -0.580083, -0.729105, 0.775825],
            [0.529083, -0.909667, -0.294672, 0.9856],
        ],
        "gradient": [
            [0.327001, 0.002406, -0.279681, 0.139451],
            [-0.023963, -0.069912, 0.06257, 0.035361],
            [-0.023592, -0.024613, 0.040418, -0.00555],
            [-0.079712, 0.001162, 0.077297, -0.059703],
            [-0.040393, 0.025497, 0.0217, -0.043219],
            [0.055141, 0.213297, -0.217515, -0.107678],
        ],
    },
    "l2": {
        "losses": [0.321216, 0.646087, 1.239535, 2.220144],
        "usage": [0.010896, 0.005528, 0.003273, 0.003828, 0.004378, 0.011501],
        "indices": [5, 1, 3, 5, 1, 4, 0, 1, 5, 0, 1, 5, 0, 2, 5, 1, 3, 5],
        "table": [
            [0.0, 0.991665, -0.255541, -0.925815],
            [-0.099331, 1.465493, -0.709671, -1.073731],
            [0.858858, 0.396978, -0.961373, -0.14889],
            [0.999722, -0.108425, -0.971804, 0.359214],
            [0.883095, -0.580083, -0.729105, 0.775825],
            [0.529083, -0.909667, -0.294672, 0.9856],
        ],
        "gradient": [
            [0.18862, 0.097135, -0.217917, 0.016895],
            [0.098, -0.097289, -0.044294, 0.12174],
            [-0.023592, -0.024613, 0.040418, -0.00555],
            [-0.079712, 0.001162, 0.077297, -0.059703],
            [-0.040393, 0.025497, 0.0217, -0.043219],
            [0.055141, 0.213297, -0.217515, -0.107678],
        ],
    },
}


@pytest.mark.parametrize("distance", ["cosine", "l2"])
def test_cvq_follows_its_published_code(distance: Distance) -> None:
    config = AnchoredCodebook.Config(entries=6, width=4, distance=distance, anchor="closest")
    codebook, quantizer = AnchoredCodebook(config).train(), NearestQuantizer(NearestQuantizer.Config(), config)
    codebook.table.data = waves(6, 4, speed=1.7)
    losses = []
    for step in range(4):
        codebook.zero_grad()
        made = quantizer(waves(2, 4, 3, 3, speed=2.3, phase=step) * (1 + step / 2), codebook, update=True)
        loss = sum_losses(made.losses)
        loss.backward()
        losses.append(loss.item())
    expected = CVQ[distance]
    assert losses == pytest.approx(expected["losses"], abs=2e-6)
    assert made.indices.flatten().tolist() == expected["indices"]
    assert codebook.usage.tolist() == pytest.approx(expected["usage"], abs=1e-6)
    torch.testing.assert_close(codebook.table.data, torch.tensor(expected["table"]), atol=2e-6, rtol=0)
    torch.testing.assert_close(codebook.table.grad, torch.tensor(expected["gradient"]), atol=2e-6, rtol=0)


# Features [2 16 3 3] of sin(0.37 i²) and a table [5 16] (speed 1.7), both times `scale`; contras_loss on, no anchoring:
# what the term adds to the loss, and the first four columns of what it adds to the table's gradient.
CONTRAST: dict[Distance, tuple[float, float, list[list[float]]]] = {
    "cosine": (
        1.0,
        0.034558653831481934,
        [
            [0.000964, -0.001221, -0.006745, 0.003484],
            [-0.003478, -0.01215, -0.012071, -0.01617],
            [-0.00133, -0.000796, 0.004274, 0.00098],
            [0.004841, 0.00075, -0.005931, 0.002262],
            [-0.004148, -0.015225, -0.013887, -0.020631],
        ],
    ),
    "l2": (
        0.1,
        1.3568403720855713,
        [
            [-0.098385, -0.024253, -0.270829, 0.452618],
            [-0.140629, -0.098536, -0.193593, -0.133778],
            [0.2592, -0.146244, 0.035727, 0.068182],
            [-0.104355, -0.028884, -0.274321, 0.448905],
            [-0.140348, -0.103053, -0.190658, -0.136773],
        ],
    ),
}


@pytest.mark.parametrize("distance", ["cosine", "l2"])
def test_the_contrastive_loss_equals_the_public_code(distance: Distance) -> None:
    scale, value, gradient = CONTRAST[distance]
    places = torch.arange(288, dtype=torch.float64)
    features = flatten_grid(torch.sin(0.37 * places.square()).float().view(2, 16, 3, 3) * scale)
    table = (waves(5, 16, speed=1.7) * scale).requires_grad_()
    loss = contrastive_loss(features, table, distance, 0.07)
    loss.backward()
    assert loss.item() == pytest.approx(value, abs=1e-6)
    assert table.grad is not None
    torch.testing.assert_close(table.grad[:, :4], torch.tensor(gradient), atol=2e-6, rtol=0)


# --- running means, VQ-VAE appendix A.1 ---------------------------------------------------------------------------


def test_running_means_by_hand() -> None:
    codebook = EMACodebook(EMACodebook.Config(entries=2, width=1, decay=0.5))
    start = codebook().clone()
    codebook.update(torch.tensor([[1.0], [2.0], [6.0]]), torch.tensor([0, 0, 0]))
    # counts 0.5 + 0.5 * (3, 0); sums 0.5 e + 0.5 * (9, 0)
    torch.testing.assert_close(codebook.counts, torch.tensor([2.0, 0.5]))
    torch.testing.assert_close(codebook.sums, start / 2 + torch.tensor([[4.5], [0.0]]))
    # each count is smoothed: (N_k + 1e-5) / (2.5 + 2e-5) * 2.5
    smoothed = torch.tensor([[2.0 + 1e-5], [0.5 + 1e-5]]) / (2.5 + 2e-5) * 2.5
    torch.testing.assert_close(codebook(), codebook.sums / smoothed)
    assert codebook()[1].item() == pytest.approx(start[1].item(), rel=1e-4)  # an entry that nothing chooses stays


def test_running_means_restart_by_hand() -> None:
    codebook = EMACodebook(EMACodebook.Config(entries=3, width=1, decay=0.5, restart=0.75))
    codebook.update(torch.tensor([[7.0], [7.0]]), torch.tensor([0, 0]))
    # counts 1.5, 0.5, 0.5: two are below 0.75; they get a feature each, and state as if they had 0.75 of them
    assert codebook.counts.tolist() == [1.5, 0.75, 0.75]
    assert codebook()[1:].tolist() == [[7.0], [7.0]]
    assert codebook.sums[1:].tolist() == [[5.25], [5.25]]


def test_a_learned_codebook_restarts_by_hand() -> None:
    codebook = LearnedCodebook(LearnedCodebook.Config(entries=3, width=1, restart=1.0))
    start = codebook().tolist()
    codebook.update(torch.tensor([[7.0], [8.0]]), torch.tensor([0, 2]))
    # counts 0.99 + 0.01 * (1, 0, 1)
    torch.testing.assert_close(codebook.counts, torch.tensor([1.0, 1.0, 1.0]))
    assert codebook()[1].item() in (7.0, 8.0)
    assert [codebook()[0].tolist(), codebook()[2].tolist()] == [start[0], start[2]]


# --- SimVQ ------------------------------------------------------------------------------------------------------


def test_simvq_by_hand() -> None:
    codebook = LinearCodebook(LinearCodebook.Config(entries=3, width=2))
    codebook.base.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 3.0]]))
    with torch.no_grad():
        codebook.map.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert codebook().tolist() == [[1.0, 3.0], [2.0, 4.0], [8.0, 18.0]]
    codebook()[0].sum().backward()  # one entry's gradient moves the map, and so every entry
    assert codebook.map.weight.grad is not None
    assert codebook.map.weight.grad.tolist() == [[1.0, 0.0], [1.0, 0.0]]
    assert [name for name, _ in codebook.named_parameters()] == ["map.weight"]


def test_simvq_starts_with_vectors_of_about_unit_length() -> None:
    torch.manual_seed(0)
    codebook = LinearCodebook(LinearCodebook.Config(entries=2000, width=128))
    assert codebook.base.norm(dim=1).mean().item() == pytest.approx(1.0, abs=0.01)
