"""The nearest entry, its losses and the running means against vector-quantize-pytorch."""

import pytest
import torch
from torch import Tensor
from vector_quantize_pytorch import VectorQuantize

from tavq.codebooks.ema import EMACodebook
from tavq.codebooks.learned import LearnedCodebook
from tavq.interfaces import sum_losses
from tavq.quantizers.nearest import NearestQuantizer

ENTRIES, WIDTH, STEPS = 20, 6, 5


def features(step: int) -> Tensor:
    """A batch for each step, of growing scale, so that running means have something to follow."""
    generator = torch.Generator().manual_seed(step)
    return (1 + step) * torch.randn(2, WIDTH, 7, 5, generator=generator)


def table() -> Tensor:
    return torch.randn(ENTRIES, WIDTH, generator=torch.Generator().manual_seed(99))


@pytest.mark.parametrize("decay", [0.8, 0.99])
def test_running_means_equal_the_reference(decay: float) -> None:
    theirs = VectorQuantize(
        WIDTH, ENTRIES, decay=decay, commitment_weight=0.25, accept_image_fmap=True, rotation_trick=False
    ).train()
    config = EMACodebook.Config(entries=ENTRIES, width=WIDTH, decay=decay)
    ours, quantizer = EMACodebook(config).train(), NearestQuantizer(NearestQuantizer.Config(), config)
    for buffer in (theirs._codebook.embed[0], theirs._codebook.embed_avg[0], ours.table, ours.sums):
        buffer.copy_(table())
    for step in range(STEPS):
        own, their = features(step).requires_grad_(), features(step).requires_grad_()
        made = quantizer(own, ours, update=True)
        codes, indices, loss = theirs(their)
        assert torch.equal(made.indices, indices)
        torch.testing.assert_close(made.quantized, codes)
        torch.testing.assert_close(sum_losses(made.losses), loss.squeeze())
        (sum_losses(made.losses) + made.quantized.square().sum()).backward()
        (loss.squeeze() + codes.square().sum()).backward()
        torch.testing.assert_close(own.grad, their.grad)
        torch.testing.assert_close(ours(), theirs.codebook)
        torch.testing.assert_close(ours.counts, theirs._codebook.cluster_size[0])
        torch.testing.assert_close(ours.sums, theirs._codebook.embed_avg[0])
    assert len(indices.unique()) > ENTRIES // 2  # else the test says little


def test_restarts_equal_the_reference() -> None:
    """Features are alike, so that it does not matter which of them a restart draws."""
    theirs = VectorQuantize(WIDTH, ENTRIES, decay=0.9, threshold_ema_dead_code=1, rotation_trick=False).train()
    ours = EMACodebook(EMACodebook.Config(entries=ENTRIES, width=WIDTH, decay=0.9, restart=1.0))
    for buffer in (theirs._codebook.embed[0], theirs._codebook.embed_avg[0], ours.table, ours.sums):
        buffer.copy_(table())
    features = torch.arange(float(WIDTH)).expand(50, WIDTH)
    _, indices, _ = theirs(features[None])
    ours.update(features, indices[0])
    torch.testing.assert_close(ours(), theirs.codebook)
    torch.testing.assert_close(ours.counts, theirs._codebook.cluster_size[0])
    torch.testing.assert_close(ours.sums, theirs._codebook.embed_avg[0])
    assert int((ours.counts == 1).sum()) == ENTRIES - 1


def test_learned_entries_follow_the_same_gradient() -> None:
    """Theirs has one term whose gradient goes both ways, ours two; with weight 1 the gradients are equal."""
    theirs = VectorQuantize(
        WIDTH, ENTRIES, accept_image_fmap=True, rotation_trick=False, learnable_codebook=True, ema_update=False
    ).train()
    config = LearnedCodebook.Config(entries=ENTRIES, width=WIDTH)
    ours, quantizer = LearnedCodebook(config), NearestQuantizer(NearestQuantizer.Config(commitment=1.0), config)
    with torch.no_grad():
        ours.table.copy_(table())
        theirs._codebook.embed[0].copy_(table())
    own, their = features(1).requires_grad_(), features(1).requires_grad_()
    made = quantizer(own, ours, update=True)
    codes, indices, loss = theirs(their)
    assert torch.equal(made.indices, indices)
    torch.testing.assert_close(made.quantized, codes)
    for term in made.losses.values():
        torch.testing.assert_close(term.value, loss.squeeze())
    (sum_losses(made.losses) + made.quantized.square().sum()).backward()
    (loss.squeeze() + codes.square().sum()).backward()
    torch.testing.assert_close(own.grad, their.grad)
    torch.testing.assert_close(ours.table.grad, theirs._codebook.embed.grad[0])
