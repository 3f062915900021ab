"""Every aligner on every codebook and quantizer; computed codebooks frozen under every quantizer; parts held."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tavq.core.errors import UsageError
from tavq.interfaces import aligners, codebooks, quantizers, sum_losses
from tavq.tokenizer import Tokenizer

from .conftest import small_tokenizer

BACKBONES = [*({"quantizer": name} for name in quantizers), *({"codebook": name} for name in codebooks)]
COMPUTED = [name for name in codebooks if codebooks[name].generated]


def images() -> Tensor:
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(3)) * 2 - 1


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda backbone: "-".join(backbone.values()))
@pytest.mark.parametrize("align", aligners)
def test_an_aligner_moves_the_encoder_of_any_backbone(align: str, backbone: dict[str, str], text: Any) -> None:
    tokenizer = small_tokenizer(**backbone, align=align).train()
    output = tokenizer(images(), text([3, 2]))
    own = {key: loss for key, loss in output.losses.items() if key.startswith("align/")}
    assert own
    assert all(bool(loss.value.isfinite()) for loss in own.values())
    sum_losses(own).backward()
    gradients = [parameter.grad for parameter in tokenizer.encoder.parameters() if parameter.grad is not None]
    assert any(bool(gradient.ne(0).any()) for gradient in gradients)
    tokenizer.eval()
    assert torch.equal(tokenizer.encode(images()), tokenizer.without_alignment().encode(images()))
    entries = tokenizer.aligner.embed_entries(tokenizer.lookup_entries(), "words")  # type: ignore[union-attr]
    assert entries is None or entries.isfinite().all()


def built(codebook: str, quantizer: str) -> Tokenizer | None:
    """None where the two do not go together."""
    try:
        return small_tokenizer(codebook=codebook, quantizer=quantizer).eval()
    except UsageError:
        return None


@pytest.mark.parametrize("codebook", COMPUTED)
def test_a_computed_codebook_becomes_a_table_under_any_quantizer(codebook: str) -> None:
    taken = [tokenizer for quantizer in quantizers if (tokenizer := built(codebook, quantizer)) is not None]
    assert taken
    for tokenizer in taken:
        frozen = tokenizer.with_fixed_codebook()
        assert not frozen.codebook.generated
        assert torch.equal(frozen.encode(images()), tokenizer.encode(images()))
        assert torch.equal(frozen(images()).images, tokenizer(images()).images)


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda backbone: "-".join(backbone.values()))
@pytest.mark.parametrize("part", ["codebook", "quantizer", "encoder"])
def test_a_frozen_part_does_not_change(part: str, backbone: dict[str, str]) -> None:
    """What `train.freeze` does: no gradient, evaluation mode; the rest trains on."""
    tokenizer = small_tokenizer(**backbone).train()
    tokenizer.get_submodule(part).eval().requires_grad_(False)
    before = {key: value.clone() for key, value in tokenizer.get_submodule(part).state_dict().items()}
    optimiser = torch.optim.SGD([p for p in tokenizer.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        output = tokenizer(images())
        (output.images.square().mean() + sum_losses(output.losses)).backward()
        optimiser.step()
        optimiser.zero_grad()
    for key, value in tokenizer.get_submodule(part).state_dict().items():
        assert torch.equal(value, before[key]), key
