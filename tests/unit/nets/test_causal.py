"""The causal transformer against transformers' GPT-2, and with what it keeps against without."""

import pytest
import torch
from torch import Tensor

from tavq.nets.causal import CausalTransformer

WIDTH, LAYERS, HEADS, LENGTH = 24, 3, 4, 9


def x(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def net() -> CausalTransformer:
    """Its weights so large that attention is far from uniform."""
    made = CausalTransformer(WIDTH, LAYERS, HEADS).eval()
    for number, parameter in enumerate(made.parameters()):
        parameter.data += x(*parameter.shape, seed=number) / 3
    return made


@torch.no_grad()
def test_it_is_gpt_2(net: CausalTransformer) -> None:
    from transformers import GPT2Config, GPT2Model

    sizes = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": LENGTH, "vocab_size": 5}
    ends = {"bos_token_id": None, "eos_token_id": None}
    oracle = GPT2Model(GPT2Config(**sizes, **ends)).eval()
    oracle.wpe.weight.zero_()
    for ours, theirs in zip(net.blocks, oracle.h, strict=True):
        pairs = [
            (ours.norm_self, theirs.ln_1),
            (ours.self_attn.query_key_value, theirs.attn.c_attn),
            (ours.self_attn.out_proj, theirs.attn.c_proj),
            (ours.norm_mlp, theirs.ln_2),
            (ours.fc1, theirs.mlp.c_fc),
            (ours.fc2, theirs.mlp.c_proj),
        ]
        for own, other in pairs:
            other.load_state_dict(own.state_dict())
    oracle.ln_f.load_state_dict(net.norm.state_dict())
    given = x(2, LENGTH, WIDTH, seed=5)
    torch.testing.assert_close(net(given), oracle(inputs_embeds=given).last_hidden_state)


@torch.no_grad()
@pytest.mark.parametrize("first", [1, 4, LENGTH])
def test_tokens_one_at_a_time_equal_all_at_once(net: CausalTransformer, first: int) -> None:
    given = x(2, LENGTH, WIDTH, seed=5)
    cache = net.make_cache(2, LENGTH)
    cache.keys_values.fill_(torch.nan)  # what was not written must not be read
    parts = [net(given[:, :first], cache)] + [net(given[:, i : i + 1], cache) for i in range(first, LENGTH)]
    assert cache.length == LENGTH
    torch.testing.assert_close(torch.cat(parts, dim=1), net(given))


def test_attention_is_causal(net: CausalTransformer) -> None:
    given = x(1, LENGTH, WIDTH, seed=5).requires_grad_()
    net(given)[0, 4].square().sum().backward()
    assert given.grad is not None
    moved = given.grad[0].abs().sum(1) > 0
    assert moved.tolist() == [True] * 5 + [False] * (LENGTH - 5)


def test_dropout_is_active_in_training_only() -> None:
    net = CausalTransformer(WIDTH, LAYERS, HEADS, dropout=0.5)
    given = x(2, LENGTH, WIDTH, seed=5)
    assert not torch.equal(net(given), net(given))
    net.eval()
    assert torch.equal(net(given), net(given))


def test_fresh_weights_are_gpt_2s() -> None:
    torch.manual_seed(0)
    net = CausalTransformer(256, 8, 4)
    for block in net.blocks:
        for part, std in ((block.fc1, 0.02), (block.fc2, 0.005), (block.self_attn.out_proj, 0.005)):
            assert float(part.weight.detach().std()) == pytest.approx(std, rel=0.05)
            assert not part.bias.any()
