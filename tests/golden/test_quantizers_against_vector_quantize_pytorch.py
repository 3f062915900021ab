"""The quantizers beside those of vector-quantize-pytorch (1.32), from the same entries and features."""

from typing import Any

import pytest
import torch
from torch import Tensor
from vector_quantize_pytorch import FSQ, LFQ, ResidualVQ, VectorQuantize

from tavq.codebooks.lattice import LatticeCodebook
from tavq.codebooks.learned import LearnedCodebook
from tavq.ops.entropy import binary_entropy_gap, entropy_gap
from tavq.ops.grids import flatten_grid
from tavq.quantizers.binary import BinaryQuantizer
from tavq.quantizers.nearest import NearestQuantizer
from tavq.quantizers.residual import ResidualQuantizer
from tavq.quantizers.scalar import ScalarQuantizer
from tavq.quantizers.spherical import SphericalQuantizer


def randn(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def learned(entries: Tensor, parts: int = 1) -> LearnedCodebook:
    size, width = entries.shape
    made = LearnedCodebook(LearnedCodebook.Config(entries=size // parts, width=width, parts=parts))
    with torch.no_grad():
        made.table.copy_(entries)
    return made


def gradient(codes: Tensor, features: Tensor, seed: int = 5) -> Tensor:
    """Of a random weighting of the codes with respect to the features."""
    return torch.autograd.grad((codes * randn(*codes.shape, seed=seed)).sum(), features)[0]


@pytest.mark.parametrize("levels", [(8, 6, 5), (8, 5, 5, 5), (3, 3), (4,), (7, 9, 4, 5)])
def test_finite_scalars(levels: tuple[int, ...]) -> None:
    features = randn(2, len(levels), 5, 6, scale=2).requires_grad_()
    settings = LatticeCodebook.Config(levels=levels)
    quantizer, lattice = ScalarQuantizer(ScalarQuantizer.Config(), settings), LatticeCodebook(settings)
    peer = FSQ(levels)
    torch.testing.assert_close(lattice(), peer.implicit_codebook)
    made, (codes, indices) = quantizer(features, lattice), peer(features)
    assert torch.equal(made.indices, indices.long())
    assert len(made.indices.unique()) > min(20, lattice.size // 2)
    torch.testing.assert_close(made.quantized, codes)
    torch.testing.assert_close(gradient(made.quantized, features), gradient(codes, features))


@pytest.mark.parametrize("kind", ["lfq", "bsq"])
def test_signs(kind: Any) -> None:
    axes, weight = 6, 0.25
    features = randn(2, axes, 5, 6).requires_grad_()
    settings = LatticeCodebook.Config(levels=(2,) * axes, sphere=kind == "bsq")
    lattice = LatticeCodebook(settings)
    quantizer = BinaryQuantizer(BinaryQuantizer.Config(kind=kind, commitment=weight), settings)
    peer = LFQ(dim=axes, spherical=kind == "bsq", commitment_loss_weight=weight)
    made, (theirs, parts) = quantizer(features, lattice), peer(features, return_loss_breakdown=True)
    # Their first axis is the greatest digit, ours the least.
    turned = sum((made.indices >> axis & 1) << (axes - 1 - axis) for axis in range(axes))
    assert torch.equal(turned, theirs.indices.long())
    torch.testing.assert_close(made.quantized, theirs.quantized)
    torch.testing.assert_close(gradient(made.quantized, features), gradient(theirs.quantized, features))
    torch.testing.assert_close(made.losses["quantizer/commitment"].value, parts.commitment)


@pytest.mark.parametrize("temperature", [1.0, 4.0])  # above, none of their probabilities falls under their floor
def test_the_entropies(temperature: float) -> None:
    axes = 5
    features = randn(2, axes, 4, 6, scale=0.5).requires_grad_()
    peer = LFQ(dim=axes)
    _, parts = peer(features, inv_temperature=1 / temperature, return_loss_breakdown=True)
    expected = parts.per_sample_entropy - parts.batch_entropy
    corners = LatticeCodebook(LatticeCodebook.Config(levels=(2,) * axes))()
    gap = entropy_gap(flatten_grid(features), corners, temperature)
    torch.testing.assert_close(gap, expected, rtol=1e-4, atol=1e-4)
    slopes = [torch.autograd.grad(value, features, retain_graph=True)[0] for value in (gap, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-6)
    # Of one position the mean choice is the choice itself, which the factorised form has exactly.
    assert binary_entropy_gap(randn(1, axes), 1.0, temperature) == pytest.approx(0, abs=1e-5)
    # Of many it lies below: independent axes have the greatest entropy.
    assert binary_entropy_gap(flatten_grid(features), 1.0, temperature) <= gap + 1e-5


def test_residuals() -> None:
    parts, size, width = 3, 16, 5
    entries, features = randn(parts * size, width, seed=1), randn(2, width, 4, 6)
    peer = ResidualVQ(
        dim=width, num_quantizers=parts, codebook_size=size, rotation_trick=False, ema_update=False,
        commitment_weight=1.0,
    )  # fmt: skip
    for layer, own in zip(peer.layers, entries.split(size), strict=True):
        layer._codebook.embed.data.copy_(own[None])
    codes, indices, losses = peer(flatten_grid(features)[None].requires_grad_())
    settings = LearnedCodebook.Config(entries=size, width=width, parts=parts)
    made = ResidualQuantizer(ResidualQuantizer.Config(), settings)(features, learned(entries, parts))
    assert torch.equal(made.indices.flatten(0, 2), indices[0])
    torch.testing.assert_close(flatten_grid(made.quantized), codes[0])
    torch.testing.assert_close(made.losses["quantizer/commitment"].value, losses.mean())


def test_the_rotation() -> None:
    entries, features = randn(32, 6, seed=1), randn(2, 6, 4, 5).requires_grad_()
    peer = VectorQuantize(
        dim=6, codebook_size=32, accept_image_fmap=True, rotation_trick=True, ema_update=False, commitment_weight=1.0
    )
    peer._codebook.embed.data.copy_(entries[None])
    codes, indices, loss = peer(features)
    config = NearestQuantizer.Config(gradient="rotation")
    made = NearestQuantizer(config, LearnedCodebook.Config())(features, learned(entries))
    assert torch.equal(made.indices, indices)
    torch.testing.assert_close(made.quantized, codes)
    torch.testing.assert_close(gradient(made.quantized, features), gradient(codes, features))
    torch.testing.assert_close(made.losses["quantizer/commitment"].value, loss.squeeze())


def test_the_cosine() -> None:
    entries, features = randn(32, 6, seed=1), randn(2, 6, 4, 5)
    peer = VectorQuantize(dim=6, codebook_size=32, accept_image_fmap=True, use_cosine_sim=True).eval()
    peer._codebook.embed.data.copy_(torch.nn.functional.normalize(entries, dim=1)[None])
    codes, indices, _ = peer(features)
    made = SphericalQuantizer(SphericalQuantizer.Config(), LearnedCodebook.Config())(features, learned(entries))
    assert torch.equal(made.indices, indices)
    torch.testing.assert_close(made.quantized, codes)
