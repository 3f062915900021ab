"""The transformer of diffusion: the step in its norms, the text in its cross-attention."""

import pytest
import torch
from torch import nn

from tavq.nets.time_conditioned import AdaptiveNorm, TimeConditionedTransformer, init_weights


def test_an_adaptive_norm_by_hand() -> None:
    norm = AdaptiveNorm(2)
    with torch.no_grad():
        norm.linear.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 1.0], [3.0, 0.0]]))
        norm.linear.bias.copy_(torch.tensor([0.5, 0.0, 0.0, 1.0]))
    found = norm(torch.tensor([[[3.0, 1.0], [2.0, 8.0]]]), torch.tensor([[2.0, -1.0]]))
    # scale (2.5, -2), shift (-1, 7); the normed rows are (1, -1) and (-1, 1)
    expected = torch.tensor([[[3.5 - 1, 1 + 7], [-3.5 - 1, -1 + 7]]])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.fixture
def transformer() -> TimeConditionedTransformer:
    torch.manual_seed(0)
    return TimeConditionedTransformer(8, 2, 2, 5, True)


def test_the_timestep_matters(transformer: TimeConditionedTransformer) -> None:
    x, source = torch.randn(2, 3, 8), torch.randn(2, 4, 8)
    one, other = (transformer(x, torch.tensor(step), source) for step in ([0, 4], [0, 3]))
    assert torch.equal(one[0], other[0])
    assert not torch.allclose(one[1], other[1])


def test_masked_context_is_ignored(transformer: TimeConditionedTransformer) -> None:
    x, source, step = torch.randn(1, 3, 8), torch.randn(1, 4, 8), torch.tensor([2])
    mask = torch.tensor([[True, True, False, False]])
    masked = transformer(x, step, source, mask)
    torch.testing.assert_close(masked, transformer(x, step, source[:, :2]))
    assert not torch.allclose(masked, transformer(x, step, source))


def test_without_context_there_is_no_cross_attention() -> None:
    plain = TimeConditionedTransformer(8, 1, 2, 5, False)
    assert not any("read" in name for name, _ in plain.named_parameters())
    assert plain(torch.randn(1, 3, 8), torch.tensor([0])).shape == (1, 3, 8)


def test_initial_weights_are_small() -> None:
    module = nn.Sequential(nn.Linear(64, 64), nn.Embedding(64, 64), nn.LayerNorm(64))
    torch.manual_seed(0)
    init_weights(module)
    for part in module[:2]:
        assert part.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert (module[0].bias == 0).all()
    assert (module[2].weight == 1).all()
