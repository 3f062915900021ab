"""The patch discriminator's size, shape and reach, and its losses by hand."""

import pytest
import torch
from pydantic import ValidationError

from tavq.core.errors import UsageError
from tavq.nets.discriminators import DiscriminatorConfig, PatchDiscriminator, discriminator_hinge, generator_loss


def discriminator(seed: int = 0, **settings: object) -> PatchDiscriminator:
    return PatchDiscriminator(DiscriminatorConfig.model_validate(settings), seed=seed)


def test_the_default_has_the_papers_size() -> None:
    # 4 × 4 kernels 3→64→128→256→512→1, biases on the first and last, two numbers a channel in three norms
    expected = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + 64 + 1 + 2 * (128 + 256 + 512)
    assert expected == 2_765_633
    assert sum(part.numel() for part in discriminator().parameters()) == expected


@pytest.mark.parametrize(("layers", "size", "scores"), [(3, 64, 6), (3, 32, 2), (3, 24, 1), (2, 32, 6), (1, 32, 14)])
def test_the_grid_of_scores(layers: int, size: int, scores: int) -> None:
    logits = discriminator(layers=layers, channels=8)(torch.zeros(2, 3, size, size))
    assert logits.shape == (2, 1, scores, scores)


@pytest.mark.parametrize(("layers", "field"), [(1, 16), (2, 34), (3, 70)])
def test_the_receptive_field_of_a_score(layers: int, field: int) -> None:
    images = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(1), requires_grad=True)
    logits = discriminator(layers=layers, channels=4, norm="none")(images)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    seen = images.grad.abs().sum((0, 1)) > 0
    assert (int(seen.any(0).sum()), int(seen.any(1).sum())) == (field, field)


@pytest.mark.parametrize("norm", ["group", "none"])
def test_without_batch_norm_the_batch_does_not_matter(norm: str) -> None:
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    net = discriminator(norm=norm, channels=8)
    torch.testing.assert_close(net(images)[:1], net(images[:1]))


def test_batch_norm_is_there_by_default() -> None:
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    net = discriminator(channels=8)
    assert not torch.allclose(net(images)[:1], net(images[:1]))


def test_the_seed_decides_the_weights_and_the_global_state_stays() -> None:
    state = torch.get_rng_state()
    first, same, other = discriminator(seed=1), discriminator(seed=1), discriminator(seed=2)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not torch.equal(first.main[0].weight, other.main[0].weight)
    widest = first.main[8].weight
    assert widest.std().item() == pytest.approx(0.02, rel=0.01)
    assert widest.mean().item() == pytest.approx(0, abs=1e-4)
    assert first.main[9].weight.mean().item() == pytest.approx(1, abs=0.01)
    assert first.main[0].bias.abs().max() == 0


def test_images_that_are_too_small_are_refused() -> None:
    with pytest.raises(UsageError, match=r"16 × 23 pixels; .* needs 24 × 24 or more\. Choose fewer layers"):
        discriminator(channels=8)(torch.zeros(1, 3, 23, 16))


@pytest.mark.parametrize("settings", [{"layers": 0}, {"layers": 99}, {"channels": 10**12}, {"norm": "layer"}])
def test_settings_out_of_range_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DiscriminatorConfig.model_validate(settings)


def test_hinge_by_hand() -> None:
    real = torch.tensor([2.0, 0.5, -1.0, 1.0]).view(1, 1, 2, 2)  # 0, 0.5, 2, 0
    fake = torch.tensor([-2.0, -0.5, 1.0, -1.0]).view(1, 1, 2, 2)  # 0, 0.5, 2, 0
    assert discriminator_hinge(real, fake).item() == pytest.approx(0.625)
    assert discriminator_hinge(real, fake + 1).item() == pytest.approx((0.625 + (0 + 1.5 + 3 + 1) / 4) / 2)
    assert generator_loss(fake).item() == pytest.approx(0.625)


def test_the_losses_pull_scores_apart() -> None:
    real = torch.zeros(1, 1, 2, 2, requires_grad=True)
    fake = torch.zeros(1, 1, 2, 2, requires_grad=True)
    discriminator_hinge(real, fake).backward()
    assert real.grad.flatten().tolist() == [-1 / 8] * 4
    assert fake.grad.flatten().tolist() == [1 / 8] * 4
    fake.grad = None
    generator_loss(fake).backward()
    assert fake.grad.flatten().tolist() == [-1 / 4] * 4
