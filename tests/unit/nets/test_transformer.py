"""The transformer against torch's own layers, its mask, and the positions of a grid."""

import pytest
import torch
from torch import nn

from tavq.nets.transformer import Attention, Transformer, sinusoidal_positions


def x(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def copied(attention: Attention, oracle: nn.MultiheadAttention) -> None:
    """Gives torch's attention our weights; its biases of query, key and value are 0."""
    assert oracle.in_proj_weight is not None
    oracle.in_proj_weight.copy_(torch.cat([attention.query.weight, attention.key_value.weight]))
    oracle.in_proj_bias.zero_()
    oracle.out_proj.load_state_dict(attention.out_proj.state_dict())


@torch.no_grad()
@pytest.mark.parametrize("cross", [False, True])
def test_a_block_is_torchs_pre_norm_layer(cross: bool) -> None:
    ours = Transformer(12, 2, 3, mlp_width=20, cross=cross).eval()
    for parameter in ours.parameters():
        parameter.copy_(x(*parameter.shape, seed=parameter.numel()) / 2)
    mask = torch.tensor([[True, True, False, True, False], [True] * 5])
    text, source = x(2, 5, 12), x(2, 7, 12, seed=1)
    expected = text
    for block in ours.blocks:
        settings = {"activation": "gelu", "norm_first": True, "batch_first": True, "dropout": 0.0}
        kind = nn.TransformerDecoderLayer if cross else nn.TransformerEncoderLayer
        oracle = kind(12, 3, 20, **settings).eval()
        copied(block.self_attn, oracle.self_attn)
        norms = [block.norm_self, block.norm_mlp]
        if cross:
            copied(block.cross_attn, oracle.multihead_attn)
            norms.insert(1, block.norm_cross)
        for number, norm in enumerate(norms, 1):
            getattr(oracle, f"norm{number}").load_state_dict(norm.state_dict())
        oracle.linear1.load_state_dict(block.mlp[0].state_dict())
        oracle.linear2.load_state_dict(block.mlp[2].state_dict())
        if cross:
            expected = oracle(expected, source, tgt_key_padding_mask=~mask)
        else:
            expected = oracle(expected, src_key_padding_mask=~mask)
    found = ours(text, mask, source if cross else None)
    torch.testing.assert_close(found[mask], ours.norm(expected)[mask])


def test_masked_tokens_are_ignored_and_an_empty_sequence_stays_finite() -> None:
    net = Transformer(8, 2, 2)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    first = x(2, 3, 8).requires_grad_()
    other = torch.where(mask[:, :, None], first.detach(), 1e6)
    assert torch.equal(net(first, mask)[0, :2], net(other, mask)[0, :2])
    net(first, mask).sum().backward()
    assert first.grad is not None
    assert first.grad.isfinite().all()


@pytest.mark.parametrize("width", [1, 2, 4, 7, 64])
def test_every_position_of_a_grid_has_an_embedding(width: int) -> None:
    positions = sinusoidal_positions(3, 5, width, torch.device("cpu"))
    assert positions.shape == (15, width)
    if width >= 4:
        assert torch.cdist(positions, positions).add(torch.eye(15)).min() > 0.1


def test_positions_do_not_depend_on_the_size_of_the_grid() -> None:
    small, large = (sinusoidal_positions(*size, 16, torch.device("cpu")).view(*size, 16) for size in ((2, 3), (5, 7)))
    assert torch.equal(small, large[:2, :3])
    torch.testing.assert_close(large[2, 3, :4], torch.sin(2 * torch.tensor([1, 0.1, 0.01, 0.001])))
    torch.testing.assert_close(large[2, 3, 4:8], torch.sin(3 * torch.tensor([1, 0.1, 0.01, 0.001])))


@torch.no_grad()
def test_attention_weights_are_torchs() -> None:
    ours = Transformer(12, 2, 3, mlp_width=20).eval()
    for parameter in ours.parameters():
        parameter.copy_(x(*parameter.shape, seed=parameter.numel()) / 2)
    mask = torch.tensor([[True, True, False, True, False], [True] * 5])
    text = x(2, 5, 12)
    first, last = ours.blocks
    between = last.norm_self(first(text, mask))
    oracle = nn.MultiheadAttention(12, 3, batch_first=True)
    copied(last.self_attn, oracle)
    _, expected = oracle(between, between, between, ~mask, average_attn_weights=False)
    read, found = ours.forward_with_attention(text, mask)
    torch.testing.assert_close(read, ours(text, mask))
    assert found.shape == (2, 3, 5, 5)
    torch.testing.assert_close(found, expected)
    assert (found[0, :, :, [2, 4]] == 0).all()
    torch.testing.assert_close(found.sum(3), torch.ones(2, 3, 5))
